"""Approaches 1 and 2 as fits of a table: lines, the points behind them, and refits of resampled runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from shapelaw.config import BootstrapOptions, LineMethod
from shapelaw.config.option import option, record
from shapelaw.errors import UserError
from shapelaw.fitting import checklist, design, intervals
from shapelaw.fitting.bootstrap import expanded_level
from shapelaw.fitting.hull import bin_minima, frontier, lower_hull
from shapelaw.fitting.isoflop import bias_note, isoflop_bins, isoflop_lines, token_note
from shapelaw.fitting.lines import LOSS, TARGETS, Array, LineData, PowerLine, Rows, line_data
from shapelaw.fitting.result import FitResult, plain
from shapelaw.fitting.spec import LINE_METHODS, FitSpec, Method
from shapelaw.laws import EXPONENT
from shapelaw.runs.table import RunsTable

FLOOR = "loss_irreducible"
"""The irreducible loss beside the line of the loss."""


@record("method")
class LineOptions(LineMethod):
    """Values of approaches 1 and 2: those of `config.LineMethod` (cost, bins_per_decade, bins, tolerance, curve), the method,
    how params are counted and the convention of FLOPs (see `RunsTable.flops`)."""

    method: str = option("hull, binning or isoflop.", choices=tuple(LINE_METHODS))
    counting: str = option("How params are counted.", default="total")
    flops: str | None = option("Convention of FLOPs.", default=None)


@dataclass(frozen=True)
class LineFit:
    """Lines of every target on the cost.

    Args:
        lines: target -> line.
        points: indices of the kept rows behind the lines; empty for isoflop, whose minima lie between rows.
        squares: sum of squared residuals of log params.
        slopes, intercepts, floors: target -> values of each refit, (n,), NaN if it could not be fitted; empty without
            resampling.
        intervals: target -> interval of the slope; empty without resampling.
        notes: what a reader must know.
    """

    lines: dict[str, PowerLine]
    points: Rows
    squares: float
    slopes: dict[str, Array]
    intervals: dict[str, tuple[float, float]]
    notes: tuple[str, ...] = ()
    intercepts: dict[str, Array] = field(default_factory=dict)
    floors: dict[str, Array] = field(default_factory=dict)


def fit_lines(
    table: RunsTable, options: LineOptions, bootstrap: BootstrapOptions | None = None, seed: int = 0
) -> LineFit:
    """Fit the lines of an approach, with intervals from resampled runs or rows if requested.

    Raises:
        UserError: for a cost that the method does not support, missing columns, data without bins (isoflop), or points
            that do not span two costs.
    """
    if options.method == "isoflop" and options.cost != "flops":
        raise UserError(f"method=isoflop: needs cost=flops, not {options.cost}; use method=hull")
    data, kept_rows = line_data(table, options.counting, options.cost, options.flops)
    if options.method == "isoflop":
        bins = isoflop_bins(data, options.tolerance, options.curve)
        lines, rows, notes = isoflop_lines(bins), np.array([], dtype=np.intp), token_note(bins)
        notes += bias_note(data, options.tolerance) if options.curve == "parabola" else ()
        off = [
            budget.log_params - lines["params"].intercept - lines["params"].slope * budget.log_cost for budget in bins
        ]
    else:
        rows, notes = _optimal(data, options), ()
        lines = {target: data.line(rows, target) for target in (*TARGETS, LOSS)}
        off = (data.log_params - lines["params"].intercept - lines["params"].slope * data.log_cost)[rows].tolist()
    drawn = _resample(data, options, bootstrap, seed) if bootstrap else {}
    slopes, heights, floors = ({target: lines[:, k] for target, lines in drawn.items()} for k in range(3))
    spans = _intervals(data, options, bootstrap, lines, slopes) if bootstrap else {}
    return LineFit(lines, kept_rows[rows], float(np.square(off).sum()), slopes, spans, notes, heights, floors)


def _optimal(data: LineData, options: LineOptions) -> Rows:
    """Rows with the lowest loss at their cost."""
    if options.method == "hull":
        return frontier(data.log_cost, data.log_loss)
    return bin_minima(data.log_cost, data.log_loss, options.bins_per_decade, options.bins)


def _lines(data: LineData, options: LineOptions) -> dict[str, tuple[float, float, float]]:
    """(slope, intercept, floor) of every target, NaN if the data allow none."""
    try:
        if options.method == "isoflop":
            lines = isoflop_lines(isoflop_bins(data, options.tolerance, options.curve))
        else:
            rows = _optimal(data, options)
            lines = {target: data.line(rows, target) for target in (*TARGETS, LOSS)}
    except UserError:
        return dict.fromkeys((*TARGETS, LOSS), (np.nan, np.nan, np.nan))
    return {target: (line.slope, line.intercept, line.floor) for target, line in lines.items()}


def _resample(data: LineData, options: LineOptions, bootstrap: BootstrapOptions, seed: int) -> dict[str, Array]:
    """Slope, intercept and floor of every refit, (n, 3)."""
    rng = np.random.default_rng(seed)
    draw = _drawer(_groups(data, options, bootstrap.by), rng)
    refits = []
    for _ in range(bootstrap.n):
        rows, draws = draw()
        refits.append(_lines(data.take(rows, draws.astype(str)), options))  # each draw is a separate run
    return {target: np.array([lines[target] for lines in refits]) for target in (*TARGETS, LOSS)}


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
    """A function that draws as many groups as there are and returns their rows and each row's draw."""

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
    """Interval of each slope; none if more than half of the refits failed."""
    left_out = _jackknife(data, options, bootstrap.by) if bootstrap.kind == "bca" else {}
    groups = len(np.unique(data.runs)) if bootstrap.by == "runs" else len(data.runs)
    level = expanded_level(bootstrap.level, groups) if bootstrap.kind == "expanded" else bootstrap.level
    spans = {}
    for target, drawn in slopes.items():
        if np.isfinite(drawn).mean() < 0.5:
            continue
        if bootstrap.kind == "bca":
            spans[target] = intervals.bca(drawn, level, lines[target].slope, left_out[target])
        else:
            spans[target] = intervals.percentile(drawn, level)
    return spans


def _jackknife(data: LineData, options: LineOptions, by: str) -> dict[str, Array]:
    """Slopes without each run (or row) in turn."""
    keys: NDArray[np.generic] = data.runs if by == "runs" else np.arange(len(data.runs))
    refits = [_lines(data.take(np.flatnonzero(keys != key)), options) for key in np.unique(keys)]
    return {target: np.array([lines[target][0] for lines in refits]) for target in (*TARGETS, LOSS)}


@dataclass(frozen=True)
class Lines(Method):
    """Approach 1 (`hull`, its baseline `binning`) or 2 (`isoflop`); its options are those of `LineOptions`."""

    name: str
    chosen: LineMethod = field(default_factory=LineMethod)
    fits_law: ClassVar[bool] = False

    @property
    def options(self) -> dict[str, Any]:
        """All options except the name."""
        return dataclasses.asdict(self.chosen)

    def configured(self, options: Mapping[str, Any]) -> Lines:
        """The method with those of the options that lines have."""
        own = {key: options[key] for key in self.options if key in options}
        return Lines(self.name, dataclasses.replace(self.chosen, **own))

    def fit(self, runs: RunsTable, spec: FitSpec) -> FitResult:
        """Fit the lines, with intervals from resampled runs or rows if requested."""
        options = LineOptions(method=self.name, counting=spec.counting or "total", flops=spec.flops, **self.options)
        return _line_result(runs, options, fit_lines(runs, options, spec.bootstrap, spec.seed), spec)


HULL, BINNING, ISOFLOP = Lines("hull"), Lines("binning"), Lines("isoflop")


def _line_result(runs: RunsTable, options: LineOptions, fit: LineFit, spec: FitSpec) -> FitResult:
    """Lines as a fit's result: target = coefficient * cost^exponent."""
    parameters: dict[str, float] = {}
    for target, line in fit.lines.items():
        parameters[f"{target}_exponent"] = line.slope
        parameters[f"{target}_log_coefficient"] = line.intercept
    parameters[FLOOR] = fit.lines[LOSS].floor
    optimum = fit.lines["params"].slope if options.cost == "flops" else None
    replicates = {f"{target}_exponent": tuple(map(float, drawn)) for target, drawn in fit.slopes.items()}
    replicates |= {f"{target}_log_coefficient": tuple(map(float, drawn)) for target, drawn in fit.intercepts.items()}
    replicates |= {FLOOR: tuple(map(float, fit.floors[LOSS]))} if fit.floors else {}
    spans = _spans(options, fit, spec.bootstrap)
    settings = dataclasses.asdict(options) | {"bootstrap": spec.resampling, "seed": spec.seed}
    return FitResult(
        method=options.method,
        law=None,
        parameters=parameters,
        units={
            name: unit
            for target in fit.lines
            for name, unit in (
                (f"{target}_exponent", "1"),
                (f"{target}_log_coefficient", f"natural log of {target.replace('_', ' ')}"),
            )
        }
        | {FLOOR: runs.loss_unit, LOSS: runs.loss_unit},
        objective=fit.squares,
        compute_optimal_exponent=optimum,
        intervals=spans,
        flags=(
            *checklist.outside_intervals({**parameters, EXPONENT: optimum}, spans),
            *design.flags(design.Design.of(runs, spec)),
            *_line_flags(runs, fit, spec.bootstrap),
        ),
        settings=settings,
        search={"points": len(fit.points) or "minima of parabolas", "n_starts": 1, "status": "converged"},
        replicates=replicates,
        checklist=plain(_line_checklist(runs, options, fit, spec.seed)),
    )


def _spans(options: LineOptions, fit: LineFit, bootstrap: BootstrapOptions | None) -> dict[str, tuple[float, float]]:
    """Intervals of the quantities in a result of lines."""
    spans = {f"{target}_exponent": interval for target, interval in fit.intervals.items()}
    if options.cost == "flops" and "params" in fit.intervals:
        spans[EXPONENT] = fit.intervals["params"]
    if bootstrap:
        drawn = {FLOOR: fit.floors[LOSS]} if LOSS in fit.intervals else {}
        drawn |= {
            f"{target}_log_coefficient": fit.intercepts[target] for target in fit.intercepts if target in fit.intervals
        }
        spans |= {
            name: intervals.percentile(values[np.isfinite(values)], bootstrap.level) for name, values in drawn.items()
        }
    return spans


def _line_flags(runs: RunsTable, fit: LineFit, bootstrap: BootstrapOptions | None) -> tuple[str, ...]:
    flags = [*fit.notes, *checklist.table_flags(runs, bootstrap)]
    failed = int(np.isnan(fit.slopes["params"]).sum()) if fit.slopes else 0
    if failed:
        flags.append(f"{failed} of {len(fit.slopes['params'])} refits of resampled data gave no line and are left out")
    return tuple(flags)


def _line_checklist(runs: RunsTable, options: LineOptions, fit: LineFit, seed: int) -> dict[str, Any]:
    return checklist.assemble(
        data=checklist.data(runs),
        counting=checklist.counting(runs, options.counting, options.flops),
        ranges=checklist.ranges(runs),
        form={"formula": f"log target = exponent * log {options.cost} + log_coefficient", "targets": list(fit.lines)},
        objective={"kind": "least squares of log target", "weights": "one per optimal point"},
        search={"solver": "closed form", "points": runs.kept.iloc[fit.points][["run", "tokens", "loss"]]},
        parameters={target: dataclasses.asdict(line) for target, line in fit.lines.items()},
        prescriptions={"compute_optimal_exponents": {t: line.slope for t, line in fit.lines.items()}},
        provenance=checklist.provenance(seed, runs),
    )
