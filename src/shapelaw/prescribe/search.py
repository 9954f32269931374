"""The search over sizes in the world of a fit: the sizes, their costs, and the spread of the best size over refits."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.result import FitResult
from shapelaw.laws import Law
from shapelaw.prescribe.goals import AtTokens, Goal
from shapelaw.prescribe.limits import SAME, UNLIMITED, Limits, Region, feasible_points
from shapelaw.prescribe.optimum import Objective, Optimum, exact, zoom
from shapelaw.prescribe.price import FLOPS, Cost
from shapelaw.prescribe.surface import Surface, level_of
from shapelaw.prescribe.world import Points, World, law_of, reads_shapes
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]
SPACES = ("feasible", "relaxed", "params")
PARAMS = (1e3, 1e16)
"""Range of the search over sizes without a shape."""
LOG_TOKENS_WITHOUT_END = 100.0
"""Log tokens beyond which more tokens change no digit of a loss."""
SCANNED = 20_001
"""Number of widths to scan for those that can have a given cost per token."""


@dataclass(frozen=True)
class SizeSearch:
    """A fit, the suite that its runs came from, the cost of sizes, and the sizes to search.

    Args:
        fit: a fitted law.
        world: the suite of its runs.
        cost: the cost to spend.
        space: `feasible` (every whole shape by the suite's rules), `relaxed` (real width and depth within the same
            ranges) or `params` (tokens and params as the law counts them, 6N FLOPs).
        limits: limits on the sizes.
        shapes: whole shapes to search instead of all by the rules.
        intervals: whether to repeat the search for the refits of the fit.
        seed: seed of the draws of the throughput's coefficients.

    Raises:
        UserError: for a law that cannot be searched in this space.
    """

    fit: FitResult
    world: World
    cost: Cost = FLOPS
    space: str = "feasible"
    limits: Limits = UNLIMITED
    shapes: Points | None = None
    intervals: bool = True
    seed: int = 0
    surface: Surface = field(init=False)
    coefficients: Array | None = field(init=False)

    def __post_init__(self) -> None:
        _check_space(law_of(self.fit), self.space, self.limits)
        surface = Surface.of(self.fit, self.intervals, self.world.given)
        object.__setattr__(self, "surface", surface)
        throughput = self.cost.throughput
        drawn = throughput.draws(len(surface) - 1, self.seed) if throughput and throughput.covariance.any() else None
        object.__setattr__(self, "coefficients", drawn)
        if self.space == "feasible" and self.shapes is None:
            object.__setattr__(self, "shapes", feasible_points(self.world, self.limits))

    @classmethod
    def of(
        cls,
        fit: FitResult,
        runs: RunsTable,
        cost: Cost = FLOPS,
        space: str = "feasible",
        limits: Limits = UNLIMITED,
    ) -> Self:
        """A search in the world of the fit's own runs."""
        return cls(fit, World.of(fit, runs), cost, space, limits)

    @property
    def level(self) -> float:
        """Share of the fit's refits that lie inside an interval."""
        return level_of(self.fit)

    def search(self, goal: Goal) -> Optimum:
        """The best point of every parameter vector in the searched space."""
        objective = self.objective(goal)
        if self.space == "feasible":
            assert self.shapes is not None
            return exact(objective, self.shapes)
        low, high = self.box()
        if len(low) == 1:
            return zoom(objective, self.build, low, high)
        if self.limits.given:
            return zoom(objective, self.build, low, high, self.region.clip)
        return zoom(objective, self.build, low, high, build_grid=self.region.grid)

    def search_priced(self, goal: Goal, flops_per_token: float, near: Optimum) -> Optimum:
        """The best real-valued size among those with the given training FLOPs per token.

        Few widths may have an allowed depth with these FLOPs: a scan finds them first, and the width of `near` is also tried.
        """
        objective, (low, high), region = self.objective(goal), self.box(), self.region
        if self.space == "params":
            log_params = np.array([math.log(flops_per_token / 6.0)])
            inside = low - SAME <= log_params <= high + SAME
            return zoom(objective, lambda logs: self.build(np.where(inside, logs, np.nan)), log_params, log_params)

        def build(logs: Array) -> Points:
            width = np.exp(logs[..., 0])
            depth = self.world.depth_at(width, flops_per_token)
            inside = region.inside(width, depth)
            return self.world.points(width, np.where(inside, depth, np.nan), relaxed=True)

        assert near.points.width is not None
        logs, step = np.linspace(low[0], high[0], SCANNED, retstep=True)
        logs = np.append(logs, np.log(near.points.width[0]))
        some = logs[np.isfinite(build(logs[:, None]).params)]
        ends = (some.min() - step, some.max() + step) if len(some) else (low[0], high[0])
        return zoom(objective, build, *np.array(ends)[:, None])

    def spread(self, values: Array) -> dict[str, float]:
        """Ends of a quantity's interval over the refits, `low` and `high`; nothing without refits.

        Args:
            values: one per parameter vector, that of the fit first.
        """
        if len(values) < 3:
            return {}
        tails = [(1 - self.level) / 2, (1 + self.level) / 2]
        low, high = np.quantile(values[1:], tails, method="closest_observation")
        return {"low": float(low), "high": float(high)}

    def objective(self, goal: Goal) -> Objective:
        """A goal under the fit's parameter vectors and the price."""
        return Objective(self.surface, self.cost, goal, self.coefficients)

    @property
    def region(self) -> Region:
        """The real widths and depths of the space `relaxed`."""
        return Region(self.world, self.limits)

    def box(self) -> tuple[Array, Array]:
        """Ends of the searched coordinates: those of the region, or the logarithm of the params."""
        if self.space != "params":
            return self.region.box
        low, high = np.log([max(self.limits.params_min, PARAMS[0]), min(self.limits.params_max, PARAMS[1])])
        if low > high:
            raise UserError(
                f"{self.limits}: space=params searches {PARAMS[0]:g} to {PARAMS[1]:g} params; give other limits"
            )
        return np.array([low]), np.array([high])

    def build(self, coordinates: Array) -> Points:
        """Points at coordinates of shape (..., dimensions)."""
        if self.space == "params":
            return self.world.sizes(np.exp(coordinates[..., 0]))
        return self.region.points(coordinates)

    def allowed(self) -> dict[str, tuple[float, float]]:
        """Ranges of the searched or limited quantities; none for a single size."""
        limits, rules = self.limits, self.world.rules
        if self.space == "params":
            low, high = self.box()
            return {"params": (math.exp(low[0]), math.exp(high[0]))}
        if self.shapes is not None:
            sizes = {"width": self.shapes.width, "depth": self.shapes.depth}
            ends = {name: (float(v.min()), float(v.max())) for name, v in sizes.items() if v is not None}
            return ends if len(self.shapes.params) > 1 else {}
        by_rules = {"width": (rules.width_min, rules.width_max), "depth": (rules.depth_min, rules.depth_max)}
        free = {} if limits.aspect_ratio else {"aspect_ratio": limits.aspects}
        return by_rules | {"params": (limits.params_min, limits.params_max)} | free

    def ends(self) -> Points:
        """The smallest and the largest of all sizes."""
        if self.shapes is None:
            return self.build(np.stack(self.box()))
        costs = self.shapes.train_flops
        return self.shapes.take(np.array([np.argmin(costs), np.argmax(costs)]))

    def end_of(self, optimum: Optimum) -> str:
        """`smallest` or `largest` if the best size is that one of all (or none is affordable); else nothing."""
        if self.limits.given:
            return ""
        if not math.isfinite(optimum.value[0]):
            return "smallest"
        same = np.isclose(optimum.points.train_flops[0], self.ends().train_flops, rtol=SAME, atol=0.0)
        return next((name for name, equal in zip(("smallest", "largest"), same, strict=True) if equal), "")

    def replaced(self, **changes: object) -> Self:
        """The same search with other values; whole shapes are listed again unless they are given."""
        fresh = {"shapes": None} if {"limits", "space", "world"} & set(changes) else {}
        return dataclasses.replace(self, **{**fresh, **changes})  # type: ignore[arg-type]

    def relaxed(self, ratio: float | None = None) -> Self:
        """The same search over real-valued shapes, with or without a fixed aspect ratio."""
        return self.replaced(space="relaxed", limits=self.limits.holding(ratio))

    def without_refits(self) -> Self:
        """The same search for the fit's own parameters alone."""
        return self.replaced(intervals=False, shapes=self.shapes)

    def lowest_loss(self) -> float:
        """Predicted loss of the best allowed size at unlimited tokens."""
        return float(self.without_refits().search(AtTokens(math.exp(LOG_TOKENS_WITHOUT_END))).value[0])


def _check_space(law: Law, space: str, limits: Limits) -> None:
    """Refuse an unknown space, or one in which the law has no sizes."""
    if space not in SPACES:
        raise UserError(f"space={space}: allowed values are {', '.join(SPACES)}")
    if space == "params" and {"width", "depth"} & set(law.predictors):
        raise UserError(f"space=params: law {law.name} reads width and depth; give space=feasible or relaxed")
    if space == "params" and limits.aspects != UNLIMITED.aspects:
        raise UserError(
            f"{limits}: space=params has neither width nor depth; give only limits.params_min or limits.params_max, or "
            "space=feasible or relaxed"
        )
    if space != "params" and not reads_shapes(law) and limits.aspect_ratio is None:
        raise UserError(
            f"law={law.name}: has no width and depth, so it prescribes no aspect ratio; fix one with "
            "aspect_ratio=NUMBER, ask only for params and tokens with space=params, or give a fit of interaction, "
            "width_depth_params_tokens or width_depth_tokens"
        )
