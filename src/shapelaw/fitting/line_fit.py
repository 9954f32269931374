"""Approaches 1 and 2 as fits of a table: lines, the points they rest on, and refits of resampled runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapelaw.config import BootstrapOptions, LineMethod
from shapelaw.config.option import option, record
from shapelaw.errors import UserError
from shapelaw.fitting import intervals
from shapelaw.fitting.bootstrap import expanded_level
from shapelaw.fitting.hull import bin_minima, frontier, lower_hull
from shapelaw.fitting.isoflop import isoflop_bins, isoflop_lines
from shapelaw.fitting.lines import TARGETS, Array, LineData, PowerLine, Rows, line_data
from shapelaw.runs.table import RunsTable

LINE_METHODS = ("hull", "binning", "isoflop")


@record("method")
class LineOptions(LineMethod):
    """Values of approaches 1 and 2: those of `config.LineMethod` (cost, bins_per_decade, bins, tolerance), and the method, how
    params are counted and the convention of FLOPs (see `RunsTable.flops`)."""

    method: str = option("hull, binning or isoflop.", choices=LINE_METHODS)
    counting: str = option("How params are counted.", default="total")
    flops: str | None = option("Convention of FLOPs.", default=None)


@dataclass(frozen=True)
class LineFit:
    """Lines of every target on the cost.

    Args:
        lines: target -> line.
        points: rows of the table's kept rows that the lines rest on; empty for isoflop, whose minima lie between rows.
        squares: sum of squared residuals of log params.
        slopes: target -> slope of each refit, (n,), NaN where it could not be fitted; empty without resampling.
        ends: target -> interval of the slope; empty without resampling.
    """

    lines: dict[str, PowerLine]
    points: Rows
    squares: float
    slopes: dict[str, Array]
    ends: dict[str, tuple[float, float]]


def fit_lines(
    table: RunsTable, options: LineOptions, bootstrap: BootstrapOptions | None = None, seed: int = 0
) -> LineFit:
    """Fit the lines of an approach, with intervals from resampled runs or rows if asked.

    Raises:
        UserError: for a cost the method cannot take, missing columns, data without bins (isoflop), or points that span
            no two costs.
    """
    if options.method == "isoflop" and options.cost != "flops":
        raise UserError(f"method=isoflop: works on cost=flops, not {options.cost}; use method=hull")
    data, kept_rows = line_data(table, options.counting, options.cost, options.flops)
    if options.method == "isoflop":
        bins = isoflop_bins(data, options.tolerance)
        lines, rows = isoflop_lines(bins), np.array([], dtype=np.intp)
        off = [one.log_params - lines["params"].intercept - lines["params"].slope * one.log_cost for one in bins]
    else:
        rows = _optimal(data, options)
        lines = {target: data.line(rows, target) for target in TARGETS}
        off = (data.log_params - lines["params"].intercept - lines["params"].slope * data.log_cost)[rows].tolist()
    slopes = _resample(data, options, bootstrap, seed) if bootstrap else {}
    ends = _intervals(data, options, bootstrap, lines, slopes) if bootstrap else {}
    return LineFit(lines, kept_rows[rows], float(np.square(off).sum()), slopes, ends)


def _optimal(data: LineData, options: LineOptions) -> Rows:
    """Rows that no other beats at their cost."""
    if options.method == "hull":
        return frontier(data.log_cost, data.log_loss)
    return bin_minima(data.log_cost, data.log_loss, options.bins_per_decade, options.bins)


def _slopes(data: LineData, options: LineOptions) -> dict[str, float]:
    """Slope of every target, NaN where the data allow none."""
    try:
        if options.method == "isoflop":
            lines = isoflop_lines(isoflop_bins(data, options.tolerance))
        else:
            rows = _optimal(data, options)
            lines = {target: data.line(rows, target) for target in TARGETS}
    except UserError:
        return dict.fromkeys(TARGETS, np.nan)
    return {target: line.slope for target, line in lines.items()}


def _resample(data: LineData, options: LineOptions, bootstrap: BootstrapOptions, seed: int) -> dict[str, Array]:
    """Slopes of every refit."""
    rng = np.random.default_rng(seed)
    draw = _drawer(_groups(data, options, bootstrap.by), rng)
    found = []
    for _ in range(bootstrap.n):
        rows, draws = draw()
        found.append(_slopes(data.take(rows, draws.astype(str)), options))  # each draw is a run of its own
    return {target: np.array([one[target] for one in found]) for target in TARGETS}


def _groups(data: LineData, options: LineOptions, by: str) -> list[Rows]:
    """Rows that are drawn together.

    For the hull only the vertices of each run's own hull are kept: the hull of a union has no others.
    """
    if by == "rows":
        return [np.array([row], dtype=np.intp) for row in range(len(data.runs))]
    groups = [np.flatnonzero(data.runs == run) for run in np.unique(data.runs)]
    if options.method != "hull":
        return groups
    return [rows[lower_hull(data.log_cost[rows], data.log_loss[rows])] for rows in groups]


def _drawer(groups: list[Rows], rng: np.random.Generator) -> Callable[[], tuple[Rows, Rows]]:
    """A function that draws as many groups as there are, giving their rows and the draw that each row came by."""

    def draw() -> tuple[Rows, Rows]:
        chosen = [groups[i] for i in rng.integers(len(groups), size=len(groups))]
        return np.concatenate(chosen), np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])

    return draw


def _intervals(
    data: LineData,
    options: LineOptions,
    bootstrap: BootstrapOptions,
    lines: dict[str, PowerLine],
    slopes: dict[str, Array],
) -> dict[str, tuple[float, float]]:
    """Interval of each slope; none where fewer than half of the refits could be made."""
    left_out = _jackknife(data, options, bootstrap.by) if bootstrap.kind == "bca" else {}
    groups = len(np.unique(data.runs)) if bootstrap.by == "runs" else len(data.runs)
    level = expanded_level(bootstrap.level, groups) if bootstrap.kind == "expanded" else bootstrap.level
    ends = {}
    for target, drawn in slopes.items():
        if np.isfinite(drawn).mean() < 0.5:
            continue
        if bootstrap.kind == "bca":
            ends[target] = intervals.bca(drawn, level, lines[target].slope, left_out[target])
        else:
            ends[target] = intervals.percentile(drawn, level)
    return ends


def _jackknife(data: LineData, options: LineOptions, by: str) -> dict[str, Array]:
    """Slopes without each run (or row) in turn."""
    keys: NDArray[np.generic] = data.runs if by == "runs" else np.arange(len(data.runs))
    found = [_slopes(data.take(np.flatnonzero(keys != key)), options) for key in np.unique(keys)]
    return {target: np.array([one[target] for one in found]) for target in TARGETS}
