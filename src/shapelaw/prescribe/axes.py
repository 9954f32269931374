"""Further axes at which a law is asked, such as experts: which are needed, and how far they lie from the fitted rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from shapelaw.errors import UserError
from shapelaw.laws import Law
from shapelaw.prescribe.domain import outside_of
from shapelaw.runs.columns import column_of
from shapelaw.runs.table import RunsTable


def remarks_of_axes(given: Mapping[str, float], law: Law, runs: RunsTable) -> tuple[str, ...]:
    """What a reader must know of the values at which a law's further axes are asked.

    Args:
        given: axis -> value.
        law: of the fit.
        runs: that it was fitted to.

    Raises:
        UserError: if one that the law reads is missing, is not positive, or another is given.
    """
    ranges = {name: _range(runs, name) for name in law.axes}
    for name, (low, high) in ranges.items():
        if name not in given:
            raise UserError(
                f"law={law.name}: reads {name} too, {low:g} to {high:g} in the fitted runs; give 'axes={{{name}: NUMBER}}', at "
                "which the answer is to hold"
            )
    for name, value in given.items():
        if name not in ranges:
            known = f"allowed are {', '.join(ranges)}" if ranges else "leave axes out"
            raise UserError(f"axes.{name}={value:g}: law={law.name} does not read it; {known}")
        if not value > 0:
            raise UserError(f"axes.{name}={value:g}: allowed are positive numbers; give one")
    outside = outside_of(ranges, given)
    return tuple(_remark(name, value, *ranges[name], outside.get(name)) for name, value in given.items())


def _remark(name: str, value: float, low: float, high: float, outside: float | None) -> str:
    if outside is None:
        return f"holds at {name}={value:g}; the fitted runs have {low:g} to {high:g}"
    return f"holds at {name}={value:g}, {outside:.3g} times outside the fitted {low:g} to {high:g}: extrapolated"


def usual_axes(law: Law, runs: RunsTable) -> dict[str, float]:
    """The median of each further axis in the fitted runs."""
    return {name: float(np.median(runs.column(column_of(name), "axes"))) for name in law.axes}


def _range(runs: RunsTable, axis: str) -> tuple[float, float]:
    values = runs.column(column_of(axis), "axes")
    return float(values.min()), float(values.max())
