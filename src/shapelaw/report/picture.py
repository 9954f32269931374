"""The picture beside the answer: loss and best size against the budget, as SVG that the page's script updates."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from shapelaw.errors import UserError
from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.limits import SAME
from shapelaw.runs.table import RunsTable

WIDTH, HEIGHT = 440, 360
"""The picture's own units; its text is set for a column of about this many pixels."""
LEFT, RIGHT = 46, 394
"""Ends of the budgets' axis; the names of lines are to its right."""
LOSS, SIZES = (14, 196), (222, 322)
"""Top and bottom of both panels."""
BUDGETS, REFITTED = 73, 13
"""Number of budgets at which the law is evaluated, and of those at which its refits are too."""
MOST_RUNS, MOST_POINTS = 200, 40
"""Most runs to draw, and most points of each."""
MOST_TICKS = 6
SEEN = 0.9
"""Least share of the validations on the loss axis; the first ones of a run lie far above the law."""
MARGIN = 0.05
Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis from values to the picture's units.

    Args:
        low, high: ends, as logarithms to base 10 if `log`.
        start, end: their places.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        """The place of a value."""
        return self.start + self.share(value) * (self.end - self.start)

    def within(self, value: float) -> float:
        """The place of a value; a value beyond an end is placed at that end."""
        return self.start + min(max(self.share(value), 0.0), 1.0) * (self.end - self.start)

    def share(self, value: float) -> float:
        """How far along the axis a value lies: 0 to 1 between its ends."""
        return ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)

    def holds(self, value: float) -> bool:
        """Whether a value lies between the ends, or at one."""
        return -SAME <= self.share(value) <= 1 + SAME

    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels of a few round values."""
        return [(self(value), _label(value)) for value in _round_values(self)]


@dataclass(frozen=True)
class Line:
    """The drawing of one quantity.

    Args:
        name: name of the answer's value.
        law, beyond: paths inside the fitted domain and outside of it.
        band: path around the interval; empty without refits.
        at: place of the chosen budget's value, and both ends of its interval.
        label: place of its name.
    """

    name: str
    law: str
    beyond: str
    band: str
    at: tuple[float, float, float]
    label: float


@dataclass(frozen=True)
class Panel:
    """One quantity, or several on one scale, against the budget."""

    title: str
    scale: Scale
    lines: Sequence[Line]
    runs: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """Both panels, and the place of the chosen budget."""

    budgets: Scale
    panels: Sequence[Panel]
    budget: float
    caption: str
    width: int = WIDTH
    height: int = HEIGHT
    ends: tuple[float, float] = (LOSS[0], SIZES[1])


@dataclass(frozen=True)
class Asked:
    """Answers along the budgets: by the law, and at fewer budgets with the intervals of its refits."""

    law: list[tuple[float, Prescription | None]] = field(default_factory=list)
    refits: list[tuple[float, Prescription]] = field(default_factory=list)


def picture(problem: Problem, answer: Prescription, runs: RunsTable, high: float) -> Picture:
    """The picture beside the answer to a budget.

    Args:
        problem: the problem that gave the answer.
        answer: answer to the budget with which the page opens.
        runs: runs whose losses are shown.
        high: log10 of the largest budget shown.
    """
    curves = _curves(runs)
    budget = answer.values["flops"]
    budgets = Scale(math.log10(min(first for curve in curves for first, _ in curve[:1])), high, LEFT, RIGHT, True)
    asked = _ask(problem, budgets)
    losses = _loss_scale(curves, asked, answer)
    names = ["width", "depth"] if "width" in answer.values else ["params"]
    sizes = _size_scale(names, asked, answer)
    drawn = [_path(points, budgets, losses) for points in curves]
    return Picture(
        budgets,
        [
            Panel("loss", losses, [_line("loss", budgets, losses, asked, answer)], drawn),
            Panel("best size", sizes, [_line(name, budgets, sizes, asked, answer) for name in names]),
        ],
        budgets(budget),
        _caption(names, answer, asked),
    )


def _caption(names: Sequence[str], answer: Prescription, asked: Asked) -> str:
    size = "parameters" if names == ["params"] else " and ".join(names)
    band = f", with {answer.level:.0%} intervals" if asked.refits else ""
    return (
        f"Above, the runs' losses in {answer.units['loss']} (grey) and the lowest loss that law {answer.law} gives for a "
        f"budget; below, the best {size}{band}. Dashed: outside the fitted domain. The dots are your budget."
    )


def _curves(runs: RunsTable) -> list[list[Point]]:
    """(FLOPs, loss) along every run, thinned."""
    kept = runs.kept.assign(flops=runs.flops()).sort_values("tokens")
    curves = [group[["flops", "loss"]].to_numpy(dtype=np.float64) for _, group in kept.groupby("run", sort=True)]
    some = curves[:: math.ceil(len(curves) / MOST_RUNS)]
    return [[(float(x), float(y)) for x, y in curve[_spread(len(curve))]] for curve in some]


def _spread(n: int) -> np.ndarray:
    """Indices of at most MOST_POINTS of n points, including both ends."""
    return np.unique(np.linspace(0, n - 1, min(n, MOST_POINTS)).round().astype(int))


def _ask(problem: Problem, budgets: Scale) -> Asked:
    """Answers along the axis; None if the law has none."""
    alone, grid = problem.without_refits(), np.logspace(budgets.low, budgets.high, BUDGETS)
    law = [(float(budget), _answer(alone, float(budget))) for budget in grid]
    some = list(grid[:: (BUDGETS - 1) // (REFITTED - 1)]) if len(problem.surface) > 1 else []
    refits = [(float(budget), _answer(problem, float(budget))) for budget in some]
    return Asked(law, [(budget, found) for budget, found in refits if found is not None])


def _answer(problem: Problem, budget: float) -> Prescription | None:
    with contextlib.suppress(UserError):
        return problem.best(budget) if problem.serves(budget) else None
    return None


def _loss_scale(curves: Sequence[Sequence[Point]], asked: Asked, answer: Prescription) -> Scale:
    """From below the lowest loss of runs and law to the SEEN quantile of the runs', or the law's own if higher."""
    measured = [loss for curve in curves for _, loss in curve]
    told = [found.values["loss"] for _, found in asked.law if found] + [answer.values["loss"]]
    low, high = min(measured + told), max(float(np.quantile(measured, SEEN)), *told)
    room = MARGIN * (high - low) or MARGIN * high
    return Scale(low - room, high + room, LOSS[1], LOSS[0], False)


def _size_scale(names: Sequence[str], asked: Asked, answer: Prescription) -> Scale:
    answers = [answer, *(found for _, found in asked.law if found), *(found for _, found in asked.refits)]
    values = [one.values[name] for one in answers for name in names]
    ends = [end for one in answers for name in names for end in one.intervals.get(name, ())]
    low, high = np.log10([min(values + ends), max(values + ends)])
    room = MARGIN * (high - low) or MARGIN
    return Scale(float(low - room), float(high + room), SIZES[1], SIZES[0], True)


def _line(name: str, budgets: Scale, scale: Scale, asked: Asked, answer: Prescription) -> Line:
    """One quantity along the budgets, and its mark at the chosen one."""
    found = [(budget, one) for budget, one in asked.law if one is not None]
    inside = [(budget, one.values[name] if one and one.inside else math.nan) for budget, one in asked.law]
    every = [(budget, one.values[name] if one else math.nan) for budget, one in asked.law]
    value = answer.values[name]
    ends = answer.intervals.get(name, (value, value))
    last = found[-1][1].values[name] if found else value
    at = (scale.within(value), scale.within(ends[0]), scale.within(ends[1]))
    law, beyond = _path(inside, budgets, scale), _path(every, budgets, scale)
    return Line(name, law, beyond, _band(name, budgets, scale, asked), at, scale.within(last))


def _band(name: str, budgets: Scale, scale: Scale, asked: Asked) -> str:
    """The path about the intervals."""
    ends = [(budget, one.intervals.get(name, (one.values[name],) * 2)) for budget, one in asked.refits]
    if len(ends) < 2 or all(math.isclose(low, high, rel_tol=SAME) for _, (low, high) in ends):
        return ""
    around = [(budget, low) for budget, (low, _) in ends] + [(budget, high) for budget, (_, high) in reversed(ends)]
    return _path(around, budgets, scale) + "Z"


def _path(points: Sequence[Point], budgets: Scale, scale: Scale) -> str:
    """SVG's path through points; it breaks where a value is missing or lies beyond the axes."""
    words, pen = [], "M"
    for flops, value in points:
        if math.isnan(value) or not budgets.holds(flops):
            pen = "M"
            continue
        words.append(f"{pen}{budgets(flops):.1f} {scale(value):.1f}")
        pen = "L"
    return "".join(words)


def _round_values(scale: Scale) -> list[float]:
    """At most MOST_TICKS values of one digit within a scale: whole decades if a logarithmic one has enough of them."""
    if scale.log:
        decades = range(math.ceil(scale.low), math.floor(scale.high) + 1)
        if len(decades) > 2:
            return [10.0**power for power in decades[:: math.ceil(len(decades) / MOST_TICKS)]]
        powers = range(math.floor(scale.low), math.ceil(scale.high) + 1)
        return [x for power in powers for x in (10.0**power * digit for digit in (1, 2, 5)) if scale.holds(x)]
    step = _step((scale.high - scale.low) / MOST_TICKS)
    return [step * i for i in range(math.ceil(scale.low / step), math.floor(scale.high / step) + 1)]


def _step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten from a length on."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= least * (1 - SAME))


def _label(value: float) -> str:
    """A round value: short counts as they are, large ones by their power of ten."""
    return f"{value:g}" if value < 1e4 else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
