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
from shapelaw.prescribe.limits import SAME, UNLIMITED, Limits, Region, no_shape
from shapelaw.prescribe.price import Cost, Throughput
from shapelaw.prescribe.search import AtTokens, Found, Goal, Question, ReachLoss, SpendBudget, exact, zoom
from shapelaw.prescribe.surface import Surface
from shapelaw.prescribe.world import Points, World, law_of, reads_shapes
from shapelaw.runs.table import RunsTable
from shapelaw.shapes import ShapeRules

Array = NDArray[np.float64]

SPACES = ("feasible", "relaxed", "params")
LEASTS = ("cost", "tokens")
SCAN_DECADES, SCAN_STEP = 10.0, 0.05
"""How far from a budget one is looked for that the shapes can serve, and in which steps (decades)."""
PARAMS = (1e3, 1e16)
"""Sizes without a shape that are searched."""
LOG_TOKENS_WITHOUT_END = 100.0
"""Where more tokens change no digit of a loss."""
MOST_SHAPES = 200_000
"""Whole shapes that are searched; the suite's own rules allow some 8,000."""


FLOPS = Cost()


@dataclass(frozen=True)
class Problem:
    """A fit, the suite it speaks of, and what sizes and prices are.

    Args:
        fit: a fitted law.
        world: the suite of its runs.
        cost: what is spent.
        space: `feasible` (every whole shape by the suite's rules), `relaxed` (real width and depth within the same
            ranges) or `params` (tokens and params as the law counts them, 6N FLOPs).
        limits: on the sizes.
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
        if self.space == "params" and self.limits.aspects != UNLIMITED.aspects:
            raise UserError(
                f"{self.limits}: space=params has neither width nor depth; give limits.params_min or limits.params_max "
                "alone, or space=feasible or relaxed"
            )
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
        return collect(self, found, f"lowest loss for {budget:.6g} {self.cost.words}")

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
        if least == "cost" or self.space == "params":
            self._refuse_ends(found, f"loss={loss:g}")
        unit = self.cost.words if least == "cost" else "tokens"
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
        clip = np.asarray if self.space == "params" else self.region.clip
        return zoom(question, self.build, *self.box(), clip)

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
            raise UserError(f"{self.limits}: space=params searches {PARAMS[0]:g} to {PARAMS[1]:g} params; give others")
        return np.array([low]), np.array([high])

    def build(self, coordinates: Array) -> Points:
        """Points at coordinates of shape (..., dimensions)."""
        if self.space == "params":
            return self.world.sizes(np.exp(coordinates[..., 0]))
        return self.region.points(coordinates)

    def allowed(self) -> dict[str, tuple[float, float]]:
        """Ranges of what is searched or limited; none of a single size."""
        limits, rules = self.limits, self.world.rules
        if self.space == "params":
            low, high = self.box()
            return {"params": (math.exp(low[0]), math.exp(high[0]))}
        if self.shapes is not None:
            sizes = {"width": self.shapes.width, "depth": self.shapes.depth}
            ends = {name: (float(v.min()), float(v.max())) for name, v in sizes.items() if v is not None}
            return ends if len(self.shapes.params) > 1 else {}
        own = {"width": (rules.width_min, rules.width_max), "depth": (rules.depth_min, rules.depth_max)}
        held = {} if limits.aspect_ratio else {"aspect_ratio": limits.aspects}
        return own | {"params": (limits.params_min, limits.params_max)} | held

    def replaced(self, **changes: object) -> Problem:
        """The problem with other values; whole shapes are listed anew unless they are given."""
        kept = {"shapes": None} if {"limits", "space", "world"} & set(changes) else {}
        return dataclasses.replace(self, **{**kept, **changes})  # type: ignore[arg-type]

    def lowest_loss(self) -> float:
        """Predicted loss of the best allowed size at unlimited tokens."""
        return float(self._alone().search(AtTokens(math.exp(LOG_TOKENS_WITHOUT_END))).value[0])

    def serves(self, budget: float) -> bool:
        """Whether the best size for a budget is neither the smallest nor the largest of all."""
        alone = self._alone()
        return not alone._end_of(alone.search(SpendBudget(budget)))

    def _alone(self) -> Problem:
        """The problem without its refits."""
        return self.replaced(intervals=False, shapes=self.shapes)

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
        alone = self._alone()
        end = alone._end_of(alone.search(SpendBudget(budget)))
        if not end:
            return budget
        for step in np.arange(SCAN_STEP, SCAN_DECADES, SCAN_STEP):
            other = float(f"{budget * 10 ** (-step if end == 'largest' else step):.1e}")
            if alone.serves(other):
                return other
        return None

    def _refuse_ends(self, found: Found, asked: str, budget: float | None = None) -> None:
        """Refuse an optimum at the smallest or largest of all sizes: the true one lies outside what was searched."""
        which = self._end_of(found)
        if not which:
            return
        other = None if budget is None else self.nearest_served(budget)
        instead = (
            "give another" if other is None else f"the nearest budget that they serve is about {other:.3g}: give that"
        )
        kind, wider = _WIDER[self.space == "params"]
        raise UserError(
            f"{asked}: outside what the {kind}s can serve, as the best is the {which} of all{self._ends_text()}; "
            f"{instead}, or {wider}"
        )

    def _end_of(self, found: Found) -> str:
        """`smallest` or `largest` where the best size is that of all (or none is affordable); else nothing."""
        if self.limits.given:
            return ""
        if not math.isfinite(found.value[0]):
            return "smallest"
        same = np.isclose(found.points.train_flops[0], self._ends().train_flops, rtol=SAME, atol=0.0)
        return next((name for name, here in zip(("smallest", "largest"), same, strict=True) if here), "")

    def _ends(self) -> Points:
        """The smallest and the largest of all sizes."""
        if self.shapes is None:
            return self.build(np.stack(self.box()))
        costs = self.shapes.train_flops
        return self.shapes.take(np.array([np.argmin(costs), np.argmax(costs)]))

    def _ends_text(self) -> str:
        if self.shapes is None and self.limits.given:
            return ""  # the corners of such a box need not be the smallest and the largest
        ends = self._ends()
        names = [
            f"{n:.3g} params, {cost:.3g} FLOPs a token" for n, cost in zip(ends.params, ends.train_flops, strict=True)
        ]
        if ends.width is not None and ends.depth is not None:
            sizes = zip(ends.width, ends.depth, names, strict=True)
            names = [f"{width:.0f}x{depth:.0f} ({name})" for width, depth, name in sizes]
        kind, _ = _WIDER[self.space == "params"]
        return f"; the smallest {kind} is {names[0]}, the largest {names[1]}"


_WIDER = (
    ("shape", "widen the rules (rules.width_min, rules.width_max, rules.depth_min, rules.depth_max)"),
    ("size", "limit the sizes yourself (limits.params_min, limits.params_max)"),
)
"""With and without shapes: what is searched, and how to search more."""


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
        raise no_shape(world, limits)
    return points.take(np.flatnonzero(mask))


def measured_cost(runs: RunsTable, world: World, unit: str = "device_hours", price: float = 1.0) -> Cost:
    """Hours or dollars by the runs' own measured steps."""
    return Cost(unit, Throughput.measured(runs, world), price)
