"""Whether a table's sizes and token counts can give an answer at all; judged before the first start, without any loss.

An exponent follows from how losses change along one axis (params, tokens, width, ...) while the others stay fixed. If all runs
lie on one line, such as 20 tokens per parameter, every split of the change between the axes fits equally well.

Source: on token counts tied to sizes, arXiv 2605.08541.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.laws.fixed import whole
from shapelaw.runs.table import RunsTable
from shapelaw.wording import counted

Array = NDArray[np.float64]

CONDITION_MOST = 100.0
"""Condition number above which axes cannot be separated: the second of two axes has 0.04% of its variance to itself. The
published tables have 1 to 4."""
CONDITION_HIGH = 10.0
"""Condition number above which a flag warns of this: 4% of the variance."""
DECADES_LEAST = 0.5
"""Range of an axis below which its exponent is flagged: a factor of 3.2."""
LEVELS_LEAST = 3
"""Values of an axis below which its exponent is flagged: a coefficient, an exponent and a constant need three."""
MEND_FACTOR = 8.0
"""How far off the line a suggested run lies that would mend a design."""
MOST_MENDING = 3
"""Runs that a message suggests."""
LINE_AXES = ("params", "tokens")
"""The axes that approaches 1 and 2 separate."""
FREED = ("tokens", "batch_tokens", "depth", "width", "params")
"""Axes, those that a run changes most easily first."""
HEAVY = 0.3
"""Share of the largest part by which an axis takes part in a direction."""


@dataclass(frozen=True)
class Design:
    """Where the rows of a fit lie.

    Args:
        axes: names of the axes that the fit separates.
        logs: base-10 logarithms, (rows, axes).
    """

    axes: tuple[str, ...]
    logs: Array

    @classmethod
    def of(cls, table: RunsTable, spec: FitSpec) -> Design:
        """The design of a fit: the predictors of a law (width and depth take precedence over params); params and tokens for
        lines.

        Raises:
            UserError: if the table lacks a column.
        """
        if spec.method.fits_law:
            columns = dict(FitData.of(table, spec).columns)
            if {"width", "depth"} <= set(columns):
                columns.pop("params", None)
        else:
            columns = {"params": table.params(spec.counting or "total"), "tokens": table.column("tokens", "method")}
        free = spec.law.free_predictors if spec.method.fits_law else ()
        positive = {
            name: values
            for name, values in columns.items()
            if (values > 0).all() and not (name in free and np.ptp(values) == 0)
        }
        return cls(tuple(positive), np.log10(np.stack(list(positive.values()), axis=1)))

    @cached_property
    def decades(self) -> dict[str, float]:
        """Axis -> its range in decades."""
        return dict(zip(self.axes, map(float, np.ptp(self.logs, axis=0)), strict=True))

    @cached_property
    def levels(self) -> dict[str, int]:
        """Axis -> number of its different values."""
        return {name: len(np.unique(self.logs[:, i].round(9))) for i, name in enumerate(self.axes)}

    @property
    def condition(self) -> float:
        """Condition number of the standardised logarithms: largest over smallest singular value; 1 if no axis correlates with
        another, infinite if one follows from the others."""
        return self._directions[0]

    @property
    def tied(self) -> tuple[str, ...]:
        """The axes that are correlated most."""
        parts = np.abs(self._directions[1])
        return tuple(name for name, part in zip(self.axes, parts, strict=True) if part > HEAVY * parts.max())

    @cached_property
    def _directions(self) -> tuple[float, Array]:
        """The condition number, and the direction that varies least."""
        spread = self.logs.std(axis=0)
        varied = spread > 0
        if varied.sum() < 2:
            return 1.0, np.ones(len(self.axes))
        scaled = (self.logs - self.logs.mean(axis=0))[:, varied] / spread[varied]
        _, sizes, directions = np.linalg.svd(scaled, full_matrices=len(scaled) < varied.sum())
        direction = np.zeros(len(self.axes))
        direction[varied] = directions[-1]
        least = sizes[-1] if len(sizes) == varied.sum() else 0.0
        rounding = len(scaled) * np.finfo(float).eps * sizes[0]
        return (float(sizes[0] / least) if least > rounding else np.inf), direction

    def with_row(self, row: Array) -> Design:
        """The design with one more row."""
        return Design(self.axes, np.vstack([self.logs, row]))

    def mending(self) -> list[dict[str, float]]:
        """Runs that would separate the tied axes, the cheapest first: each 8 times off the line in the axis that is easiest
        to change. If so few can, all of them together bring the condition number below the one that is flagged."""
        free = self.axes.index(next((name for name in FREED if name in self.tied), self.tied[0]))
        others = [i for i in range(len(self.axes)) if i != free]
        runs: list[dict[str, float]] = []
        design = self
        for row in self.logs[np.lexsort((-self.logs[:, free], self.logs[:, others].sum(axis=1)))]:
            moved = row.copy()
            moved[free] += np.log10(MEND_FACTOR)
            if len(runs) == MOST_MENDING or design.condition <= CONDITION_HIGH:
                break
            design = design.with_row(moved)
            runs.append(dict(zip(self.axes, map(float, 10**moved), strict=True)))
        return runs


def refuse(design: Design, spec: FitSpec) -> None:
    """Refuse a design that has no answer: tokens that follow from the sizes, and lines over one size.

    Sizes that follow from each other, such as shapes of one ratio, are only flagged: their fit is valid for such shapes.

    Raises:
        UserError: with the measure, and a run that would mend the design.
    """
    if not spec.method.fits_law:
        _refuse_constant(design, spec)
    if len(design.logs) < _needed(spec) or design.condition <= CONDITION_MOST or "tokens" not in design.tied:
        return
    if set(spec.fixed) & set(whole(spec.law).exponents):  # one slope along the line remains to be fitted
        return
    raise UserError(
        f"runs: {_tied(design)}, at most {CONDITION_MOST:g}), so no fit can separate their effects; {_advice(design)}"
    )


def flags(design: Design) -> tuple[str, ...]:
    """Flags of a design that has an answer."""
    found = []
    if design.condition > CONDITION_HIGH:
        found.append(f"collinear_design: {_tied(design)}, above {CONDITION_HIGH:g}); {_advice(design)}")
    for name, decades in design.decades.items():
        if design.levels[name] < LEVELS_LEAST:
            found.append(
                f"few_levels: the rows have {counted(design.levels[name], 'value')} of {name}; an exponent beside a "
                f"constant needs {LEVELS_LEAST}: train another value"
            )
        elif decades < DECADES_LEAST:
            found.append(
                f"short_range: {name} spans {decades:.2g} decades, below {DECADES_LEAST:g}; its exponent depends on a "
                f"short piece of a curve: {_longer(design, name)}"
            )
    return tuple(found)


def _needed(spec: FitSpec) -> int:
    """With fewer rows, a law is refused for their number alone."""
    return max(len(spec.law.parameters), LEVELS_LEAST) if spec.method.fits_law else LEVELS_LEAST


def _refuse_constant(design: Design, spec: FitSpec) -> None:
    constant = [name for name, count in design.levels.items() if count < 2]
    if constant:
        name = constant[0]
        value = 10 ** float(design.logs[0, design.axes.index(name)])
        raise UserError(
            f"method={spec.method.name}: all {len(design.logs)} rows have {name}={value:.4g}, so there is no line of "
            f"the best {name}; train other values, such as {name}={value / 3:.2g} and {name}={value * 3:.2g}"
        )


def _tied(design: Design) -> str:
    condition = "infinite" if np.isinf(design.condition) else f"{design.condition:.3g}"
    return f"{' and '.join(design.tied)} vary together over the {len(design.logs)} rows (condition number {condition}"


def _advice(design: Design) -> str:
    runs = [" ".join(f"{name}={value:.3g}" for name, value in run.items()) for run in design.mending()]
    return f"train a run off that line, such as {', or '.join(runs)}"


def _longer(design: Design, name: str) -> str:
    """A value that makes an axis long enough."""
    low = float(design.logs[:, design.axes.index(name)].min())
    return f"a run at {name}={10 ** (low + DECADES_LEAST):.2g} or beyond extends the range"
