"""Further axes of a law, such as experts: which ones a question needs, and how far its values lie from the fitted rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.laws import Law
from shapelaw.prescribe.domain import outside_of
from shapelaw.prescribe.world import Points
from shapelaw.runs.columns import column_of
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]

COMBINATIONS = 3
"""Values, or combinations of values, of further axes to try at each size."""
FOLLOWS = 0.01
"""Relative difference up to which an axis counts as a product of powers of the size."""


def remarks_of_axes(given: Mapping[str, float], law: Law, runs: RunsTable) -> tuple[str, ...]:
    """Notes on the given values of a law's further axes.

    Args:
        given: axis -> value.
        law: law of the fit.
        runs: its runs.

    Raises:
        UserError: if an axis of the law is missing or not positive, or if an axis is given that the law does not read.
    """
    ranges = {name: _range(runs, name) for name in law.axes}
    for name, (low, high) in ranges.items():
        if name not in given:
            raise UserError(
                f"law={law.name}: reads {name} too, {low:g} to {high:g} in the fitted runs; give the value for which "
                f"you want the answer, as 'axes={{{name}: NUMBER}}'"
            )
    for name, value in given.items():
        if name not in ranges:
            known = f"allowed names are {', '.join(ranges)}" if ranges else "leave axes out"
            raise UserError(f"axes.{name}={value:g}: law={law.name} does not read it; {known}")
        if not value > 0:
            raise UserError(f"axes.{name}={value:g}: allowed values are positive numbers; give one")
    outside = outside_of(ranges, given)
    return tuple(_remark(name, value, *ranges[name], outside.get(name)) for name, value in given.items())


def _remark(name: str, value: float, low: float, high: float, outside: float | None) -> str:
    if outside is None:
        return f"holds at {name}={value:g}; the fitted runs have {low:g} to {high:g}"
    return f"holds at {name}={value:g}, {outside:.3g} times outside the fitted {low:g} to {high:g}: extrapolated"


def usual_axes(law: Law, runs: RunsTable) -> dict[str, float]:
    """The median of each further axis in the fitted runs."""
    return {name: float(np.median(runs.column(column_of(name), "axes"))) for name in law.axes}


def axes_of_sizes(names: Sequence[str], runs: RunsTable, points: Points) -> tuple[NDArray[np.intp], dict[str, Array]]:
    """Sizes, each once or several times, and the axes of each of these.

    If an axis follows from the size in the runs, as heads follow from the width, it does so in new sizes too; for other axes,
    the values of the runs are tried.

    Args:
        names: names of the axes.
        runs: runs of the fit.
        points: sizes, (n,).

    Returns:
        indices of the sizes, (m,), and axis -> its value, (m,).
    """
    values = {name: runs.column(column_of(name), "axes") for name in names}
    follows = {name: found for name, axis in values.items() if (found := _following(axis, runs, points)) is not None}
    free = [name for name in names if name not in follows]
    known = np.unique(np.stack([values[name] for name in free], axis=1), axis=0) if free else np.zeros((1, 0))
    tried = known[np.unique(np.linspace(0, len(known) - 1, COMBINATIONS).round().astype(int))]
    place = np.repeat(np.arange(len(points.params)), len(tried))
    chosen = np.tile(tried, (len(points.params), 1))
    of_runs = {name: chosen[:, j] for j, name in enumerate(free)}
    return place, {name: follows[name][place] if name in follows else of_runs[name] for name in names}


def _following(axis: Array, runs: RunsTable, points: Points) -> Array | None:
    """The axis at new sizes, (n,), if it is a product of powers of the size in the runs; otherwise None."""
    shapes = points.width is not None and points.depth is not None
    names = ("width", "depth") if shapes else ("params",)
    fitted = np.log([runs.kept[name].to_numpy(dtype=np.float64) for name in names]).T
    if len(np.unique(fitted, axis=0)) <= fitted.shape[1] + 1:
        return None  # so few sizes lie on any product of powers
    powers = np.linalg.lstsq(np.column_stack([np.ones(len(axis)), fitted]), np.log(axis), rcond=None)[0]
    if np.max(np.abs(np.exp(powers[0] + fitted @ powers[1:]) / axis - 1)) > FOLLOWS:
        return None
    found: Array = np.exp(powers[0] + np.log([getattr(points, name) for name in names]).T @ powers[1:])
    return np.maximum(np.round(found), 1.0) if (axis == np.round(axis)).all() else found


def _range(runs: RunsTable, axis: str) -> tuple[float, float]:
    values = runs.column(column_of(axis), "axes")
    return float(values.min()), float(values.max())
