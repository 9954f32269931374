"""Ask a fit for a size: the best for a budget, the cheapest for a loss, or the loss of a given one."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.result import FitResult
from shapelaw.prescribe.answer import Prescription, collect
from shapelaw.prescribe.price import Cost, Throughput
from shapelaw.prescribe.search import Found, Goal, Question, ReachLoss, SpendBudget, exact, zoom
from shapelaw.prescribe.surface import Surface
from shapelaw.prescribe.world import Points, World, law_of, reads_shapes
from shapelaw.runs.table import RunsTable
from shapelaw.shapes import ShapeRules

Array = NDArray[np.float64]

SPACES = ("feasible", "relaxed", "params")
LEASTS = ("cost", "tokens")
ASPECT_TOLERANCE = math.log(1.15)
"""How far a whole shape may be from a held ratio, so that sizes lie close enough together."""
SCAN_DECADES, SCAN_STEP = 10.0, 0.05
"""How far from a budget one is looked for that the shapes can serve, and in which steps (decades)."""
LOG_PARAMS = (math.log(1e3), math.log(1e16))
"""Sizes without a shape that are searched."""
MOST_SHAPES = 200_000
"""Whole shapes that are searched; the suite's own rules allow some 8,000."""


@dataclass(frozen=True)
class Limits:
    """What a shape must meet beside the suite's rules.

    Args:
        params_min, params_max: range of all parameters.
        aspect_min, aspect_max: range of width / depth.
        aspect_ratio: one ratio to hold: within 15%, and of every width the depth nearest to it (exactly it, if relaxed).
    """

    params_min: float = 0.0
    params_max: float = math.inf
    aspect_min: float = 0.0
    aspect_max: float = math.inf
    aspect_ratio: float | None = None

    def __post_init__(self) -> None:
        if self.aspect_ratio is not None and not (math.isfinite(self.aspect_ratio) and self.aspect_ratio > 0):
            raise UserError(f"aspect_ratio={self.aspect_ratio}: allowed are positive numbers, such as 64")

    def __str__(self) -> str:
        """Those that are set, as they are given."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        asked = {name: value for name, value in values.items() if value != getattr(UNLIMITED, name)}
        return ", ".join(f"{name if name == 'aspect_ratio' else f'limits.{name}'}={v:g}" for name, v in asked.items())

    @property
    def given(self) -> bool:
        """Whether any limit is set."""
        return self != Limits()

    def allow(self, points: Points) -> NDArray[np.bool_]:
        """Mask of the shapes that meet them."""
        assert points.width is not None
        assert points.depth is not None
        ratio = points.width / points.depth
        mask = (points.params >= self.params_min) & (points.params <= self.params_max)
        mask &= (ratio >= self.aspect_min) & (ratio <= self.aspect_max)
        if self.aspect_ratio is not None:
            nearest = points.depth == np.maximum(np.rint(points.width / self.aspect_ratio), 1)
            mask &= nearest | (np.abs(np.log(ratio / self.aspect_ratio)) <= ASPECT_TOLERANCE)
        return mask


UNLIMITED = Limits()
FLOPS = Cost()


@dataclass(frozen=True)
class Problem:
    """A fit, the suite it speaks of, and what sizes and prices are.

    Args:
        fit: a fitted law.
        world: the suite of its runs.
        cost: what is spent.
        space: `feasible` (every whole shape by the suite's rules), `relaxed` (real width and depth within the same
            ranges) or `params` (params and tokens alone, 6N FLOPs).
        limits: on the shapes.
        shapes: whole shapes to search instead of all by the rules.
        intervals: whether the refits of the fit are prescribed for too.
        seed: of the draws of the throughput's coefficients.
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
        law = law_of(self.fit)
        if self.space not in SPACES:
            raise UserError(f"space={self.space}: allowed are {', '.join(SPACES)}")
        if self.space == "params" and {"width", "depth"} & set(law.predictors):
            raise UserError(f"space=params: law {law.name} reads width and depth; give space=feasible or relaxed")
        if self.space != "params" and not reads_shapes(law) and self.limits.aspect_ratio is None:
            raise UserError(
                f"law={law.name}: has no width and depth, so it prescribes no aspect ratio; hold one by "
                "aspect_ratio=NUMBER, ask for params and tokens alone by space=params, or take a fit of interaction, "
                "width_depth_params_tokens or width_depth_tokens"
            )
        surface = Surface.of(self.fit, self.intervals)
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
        cost: Cost | None = None,
        space: str = "feasible",
        limits: Limits | None = None,
    ) -> Problem:
        """A problem in the world of the fit's own runs."""
        return cls(fit, World.of(fit, runs), cost or FLOPS, space, limits or UNLIMITED)

    def best(self, budget: float) -> Prescription:
        """The size and tokens of lowest predicted loss for a budget in the cost's unit.

        For every size the tokens follow from the budget: tokens = (budget - serving) / cost per trained token. The
        search is over sizes alone, and again for every refit of the law.

        Raises:
            UserError: if the budget is not positive, buys no token, or its best shape is the smallest or largest of all.
        """
        if not (math.isfinite(budget) and budget > 0):
            raise UserError(f"budget={budget}: allowed are positive numbers of {self.cost.unit}")
        found = self.search(SpendBudget(budget))
        self._refuse_unaffordable(found, budget)
        self._refuse_ends(found, f"budget={budget:.6g} {self.cost.unit}", budget)
        return collect(self, found, f"lowest loss for {budget:.6g} {self.cost.unit}")

    def reach(self, loss: float, least: str = "cost") -> Prescription:
        """The cheapest size and tokens that reach a predicted loss, serving included.

        Args:
            loss: nats per token.
            least: `cost` (in the cost's unit) or `tokens`, which a limit on the size should accompany: by a law whose terms
                add up, the fewest tokens are those of the largest model.

        Raises:
            UserError: if no allowed size reaches the loss under the law, or the best is the smallest or largest of all.
        """
        if least not in LEASTS:
            raise UserError(f"least={least}: allowed are {', '.join(LEASTS)}")
        found = self.search(ReachLoss(loss, least))
        if not math.isfinite(found.value[0]):
            raise UserError(
                f"loss={loss:g}: no allowed size reaches it under law {self.fit.law}, at any number of tokens; "
                f"the lowest is {self.lowest_loss():.6g} nats per token"
            )
        if least == "cost":
            self._refuse_ends(found, f"loss={loss:g}")
        unit = self.cost.unit if least == "cost" else "tokens"
        return collect(self, found, f"least {unit} for a loss of {loss:g}")

    def at(self, width: int, depth: int, tokens: float) -> Prescription:
        """The predicted loss and cost of a given shape and token count.

        Raises:
            UserError: if a size is not positive.
        """
        if width < 1 or depth < 1 or not (math.isfinite(tokens) and tokens > 0):
            raise UserError(f"width={width}, depth={depth}, tokens={tokens}: all must be positive")
        one = self.world.points([width], [depth])
        log_tokens = np.full((len(self.surface), 1), math.log(tokens))
        losses = self.surface.at(one).loss(log_tokens)
        index = np.zeros(len(self.surface), dtype=np.intp)
        return collect(self, Found(one.take(index), log_tokens[:, 0], losses[:, 0], index), "loss of a given shape")

    def search(self, goal: Goal) -> Found:
        """The best point of every parameter vector in the problem's space."""
        question = Question(self.surface, self.cost, goal, self.coefficients)
        if self.space == "feasible":
            assert self.shapes is not None
            return exact(question, self.shapes)
        return zoom(question, self.build, *self.box())

    def box(self) -> tuple[Array, Array]:
        """Ends of the searched logarithms: (params), (width), or (width, depth)."""
        if self.space == "params":
            return np.array(LOG_PARAMS[:1]), np.array(LOG_PARAMS[1:])
        rules, ratio = self.world.rules, self.limits.aspect_ratio
        low, high = np.log([rules.width_min, rules.depth_min]), np.log([rules.width_max, rules.depth_max])
        if ratio is None:
            return low, high
        ends = np.array([max(low[0], low[1] + math.log(ratio))]), np.array([min(high[0], high[1] + math.log(ratio))])
        if ends[0] > ends[1]:
            raise UserError(f"aspect_ratio={ratio:g}: no width and depth of {rules} have it; widen the ranges")
        return ends

    def build(self, logs: Array) -> Points:
        """Points at logarithms of shape (vectors, points, dimensions)."""
        sizes = np.exp(logs)
        if self.space == "params":
            return self.world.sizes(sizes[..., 0])
        ratio = self.limits.aspect_ratio
        depth = sizes[..., 1] if ratio is None else sizes[..., 0] / ratio
        return self.world.points(sizes[..., 0], depth, relaxed=True)

    def replaced(self, **changes: object) -> Problem:
        """The problem with other values; whole shapes are listed anew unless they are given."""
        kept = {"shapes": None} if {"limits", "space", "world"} & set(changes) else {}
        return dataclasses.replace(self, **{**kept, **changes})  # type: ignore[arg-type]

    def lowest_loss(self) -> float:
        """Predicted loss of the best allowed size at unlimited tokens."""
        points = (
            self.shapes
            if self.space == "feasible"
            else self.build(np.stack(np.meshgrid(*np.stack(self.box(), 1)), -1)[None])
        )
        assert points is not None
        return float(self.surface.rows(0, 1).at(points).loss(np.array(100.0)).min())

    def _refuse_unaffordable(self, found: Found, budget: float) -> None:
        if not math.isfinite(found.value[0]):
            raise UserError(
                f"budget={budget:.6g} {self.cost.unit}: buys no training token of any allowed size{self._ends_text()}; "
                "give more, or fewer inference_tokens"
            )

    def nearest_served(self, budget: float) -> float | None:
        """The budget nearest to one, itself included, whose best shape is neither the smallest nor the largest of all.

        Looked for upward where the best is the smallest or nothing is bought, downward where it is the largest; two digits
        where it is another than the given one, None where none lies within ten decades.
        """
        alone = self.replaced(intervals=False, shapes=self.shapes)
        end = alone._end_of(alone.search(SpendBudget(budget)))
        if not end:
            return budget
        for step in np.arange(SCAN_STEP, SCAN_DECADES, SCAN_STEP):
            other = float(f"{budget * 10 ** (-step if end == 'largest' else step):.1e}")
            if not alone._end_of(alone.search(SpendBudget(other))):
                return other
        return None

    def _refuse_ends(self, found: Found, asked: str, budget: float | None = None) -> None:
        """Refuse an optimum at the smallest or largest of all shapes: the true one lies outside what was searched."""
        which = self._end_of(found)
        if not which:
            return
        other = None if budget is None else self.nearest_served(budget)
        instead = (
            "give another" if other is None else f"the nearest budget that they serve is about {other:.3g}: give that"
        )
        raise UserError(
            f"{asked}: outside what the shapes can serve, as the best is the {which} of all{self._ends_text()}; {instead}, "
            "ask for space=relaxed, or widen the rules (rules.width_min, rules.width_max, rules.depth_min, rules.depth_max)"
        )

    def _end_of(self, found: Found) -> str:
        """`smallest` or `largest` where the best shape is that of all (or none is affordable); else nothing."""
        if self.space != "feasible" or self.limits.given or self.shapes is None or found.index is None:
            return ""
        if not math.isfinite(found.value[0]):
            return "smallest"
        costs = self.shapes.train_flops
        return {int(np.argmin(costs)): "smallest", int(np.argmax(costs)): "largest"}.get(int(found.index[0]), "")

    def _ends_text(self) -> str:
        if self.shapes is None or self.shapes.width is None or self.shapes.depth is None:
            return ""
        costs = self.shapes.train_flops
        small, large = (int(pick(costs)) for pick in (np.argmin, np.argmax))
        names = [
            f"{self.shapes.width[i]:.0f}x{self.shapes.depth[i]:.0f} ({self.shapes.params[i]:.3g} params, "
            f"{costs[i]:.3g} FLOPs a token)"
            for i in (small, large)
        ]
        return f"; the smallest shape is {names[0]}, the largest {names[1]}"


def _check_size(rules: ShapeRules) -> None:
    """Refuse ranges with more shapes than memory holds."""
    widths = (rules.width_max - rules.width_min) // rules.head_size + 1
    depths = rules.depth_max - rules.depth_min + 1
    if widths * depths > MOST_SHAPES:
        raise UserError(
            f"rules.width_max={rules.width_max}, rules.depth_max={rules.depth_max}: {widths} widths by {depths} depths are "
            f"too many to search; allowed are {MOST_SHAPES:,} shapes; narrow rules.width_min to rules.width_max, or "
            "rules.depth_min to rules.depth_max, or ask for space=relaxed"
        )


def feasible_points(world: World, limits: Limits) -> Points:
    """Every whole shape that meets the suite's rules and the limits.

    Raises:
        UserError: if none does.
    """
    _check_size(world.rules)
    widths = np.array(world.rules.widths(), dtype=np.int64)
    depths = np.arange(world.rules.depth_min, world.rules.depth_max + 1, dtype=np.int64)
    points = world.points(np.repeat(widths, len(depths)), np.tile(depths, len(widths)))
    mask = limits.allow(points) if len(points.params) else np.zeros(0, dtype=bool)
    if not mask.any():
        having = f" has {limits}" if limits.given else ""
        raise UserError(f"no shape of {world.rules}{having}; widen the ranges (rules.width_min, ...) or the limits")
    return points.take(np.flatnonzero(mask))


def measured_cost(runs: RunsTable, world: World, unit: str = "device_hours", price: float = 1.0) -> Cost:
    """Hours or dollars by the runs' own measured steps."""
    return Cost(unit, Throughput.measured(runs, world), price)
