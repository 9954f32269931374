"""One door to every fit: `fit(runs, law=..., method=...)`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from shapelaw.config import BootstrapOptions, StagedOptions
from shapelaw.config.fitting import BINS_PER_DECADE, TOLERANCE
from shapelaw.config.option import given_options
from shapelaw.errors import UserError
from shapelaw.fitting import checklist
from shapelaw.fitting.holdout import Holdout
from shapelaw.fitting.line_fit import LINE_METHODS, LineFit, LineOptions, fit_lines
from shapelaw.fitting.options import FitOptions
from shapelaw.fitting.parametric import Extras, fit_parametric
from shapelaw.fitting.result import FitResult, plain
from shapelaw.laws import EXPONENT, Law, check_method, get_law
from shapelaw.runs.table import RunsTable
from shapelaw.step_batch.result import fit_staged

METHODS = ("parametric", "staged", *LINE_METHODS)


def fit(
    runs: RunsTable | pd.DataFrame,
    law: str | Law = "params_tokens",
    delta: float = 1e-4,
    counting: str | None = None,
    method: str = "parametric",
    solver: str = "newton",
    bootstrap: BootstrapOptions | Mapping[str, Any] | None = None,
    seed: int = 0,
    *,
    starts: str = "varpro",
    grid_size: int | None = None,
    flops: str | None = None,
    cost: str = "flops",
    bins_per_decade: int = BINS_PER_DECADE,
    bins: int | None = None,
    tolerance: float = TOLERANCE,
    holdouts: Sequence[Holdout | str] = (),
    sensitivity: bool = False,
    profile: bool = False,
    staged: StagedOptions | Mapping[str, Any] | None = None,
) -> FitResult:
    """Fit a scaling law, or the lines of approaches 1 and 2, to a table of runs.

    Args:
        runs: the table, whose kept rows are fitted; a frame of canonical columns is made one.
        law: name of a law (parametric and staged only).
        delta: where Huber's function of the log residual turns linear.
        counting: how params are counted: `total`, `no_embedding` or `no_embedding_and_head`; None takes the law's own
            (`total` for params_tokens, for lines, and for tables that cannot count the law's own).
        method: `parametric` (approach 3), `staged` (the step-and-batch law), `hull` (approach 1), `binning` (its baseline) or
            `isoflop` (approach 2).
        solver: `newton`, `newton_torch` or `reference` (the authors', which stops early).
        bootstrap: None, or options such as dict(n=1000, by="runs", kind="percentile", level=0.9).
        seed: of random starts and of resampling.
        starts, grid_size: `varpro` or `grid`, and the number of starts.
        flops: convention of FLOPs: `recorded`, `exact`, `6n` or `kaplan`; None takes the first that the table serves.
        cost: `flops` or `device_hours` (hull and binning).
        bins_per_decade, bins: of binning. tolerance: of isoflop.
        holdouts: hold-outs, or their kinds, whose errors the checklist is to hold (parametric, staged).
        sensitivity: whether the checklist is to hold the fit at other deltas and countings (parametric).
        profile: whether profile intervals of the parameters and the exponent are computed (parametric).
        staged: options of the stages, such as dict(converged="last", steps_min=50) (staged).

    Raises:
        UserError: before the first start, for input that cannot be fitted.
    """
    if method not in METHODS:
        raise UserError(f"method={method}: allowed are {', '.join(METHODS)}")
    if seed < 0:
        raise UserError(f"seed={seed}: allowed are whole numbers from 0; give one")
    runs = RunsTable(runs) if isinstance(runs, pd.DataFrame) else runs
    if not len(runs):
        raise UserError(f"runs: the table has no kept rows; excluded are {runs.exclusions or 'none'}")
    resampling, held_out = BootstrapOptions.of(bootstrap), [Holdout.of(one) for one in holdouts]
    if method in ("parametric", "staged"):
        options = FitOptions(delta, counting, flops, solver, starts, grid_size, seed)
        chosen = law if isinstance(law, Law) else get_law(law)
        check_method(chosen, method)
        if method == "staged":
            steps = given_options(StagedOptions, staged, "staged") or StagedOptions()
            return fit_staged(runs, chosen, options, steps, resampling, held_out)
        return fit_parametric(runs, chosen, options, Extras(resampling, held_out, sensitivity, profile))
    lines = LineOptions(
        method=method,
        cost=cost,
        counting=counting or "total",
        flops=flops,
        bins_per_decade=bins_per_decade,
        bins=bins,
        tolerance=tolerance,
    )
    return _line_result(runs, lines, fit_lines(runs, lines, resampling, seed), resampling, seed)


def _line_result(
    runs: RunsTable, options: LineOptions, found: LineFit, bootstrap: BootstrapOptions | None, seed: int
) -> FitResult:
    """Lines as a fit's result: target = coefficient * cost^exponent."""
    parameters: dict[str, float] = {}
    for target, line in found.lines.items():
        parameters[f"{target}_exponent"] = line.slope
        parameters[f"{target}_log_coefficient"] = line.intercept
    ends = {f"{target}_exponent": interval for target, interval in found.ends.items()}
    on_flops = options.cost == "flops"
    if on_flops and "params" in found.ends:
        ends[EXPONENT] = found.ends["params"]
    optimum = found.lines["params"].slope if on_flops else None
    replicates = {f"{target}_exponent": tuple(map(float, drawn)) for target, drawn in found.slopes.items()}
    settings = dataclasses.asdict(options) | {"bootstrap": bootstrap and dataclasses.asdict(bootstrap), "seed": seed}
    return FitResult(
        method=options.method,
        law=None,
        parameters=parameters,
        units={
            name: unit
            for target in found.lines
            for name, unit in (
                (f"{target}_exponent", "1"),
                (f"{target}_log_coefficient", f"natural log of {target.replace('_', ' ')}"),
            )
        },
        objective=found.squares,
        compute_optimal_exponent=optimum,
        intervals=ends,
        flags=(
            *checklist.outside_intervals({**parameters, EXPONENT: optimum}, ends),
            *_line_flags(runs, found, bootstrap),
        ),
        settings=settings,
        search={"points": len(found.points) or "minima of parabolas", "n_starts": 1, "status": "converged"},
        replicates=replicates,
        checklist=plain(_line_checklist(runs, options, found, seed)),
    )


def _line_flags(runs: RunsTable, found: LineFit, bootstrap: BootstrapOptions | None) -> tuple[str, ...]:
    flags = list(checklist.table_flags(runs, bootstrap))
    failed = int(np.isnan(found.slopes["params"]).sum()) if found.slopes else 0
    if failed:
        flags.append(
            f"{failed} of {len(found.slopes['params'])} refits of resampled data gave no line and are left out"
        )
    return tuple(flags)


def _line_checklist(runs: RunsTable, options: LineOptions, found: LineFit, seed: int) -> dict[str, Any]:
    return checklist.assemble(
        data=checklist.data(runs),
        counting=checklist.counting(runs, options.counting, options.flops),
        ranges=checklist.ranges(runs),
        form={"formula": f"log target = exponent * log {options.cost} + log_coefficient", "targets": list(found.lines)},
        objective={"kind": "least squares of log target", "weights": "one per optimal point"},
        search={"solver": "closed form", "points": runs.kept.iloc[found.points][["run", "tokens", "loss"]]},
        parameters={target: dataclasses.asdict(line) for target, line in found.lines.items()},
        prescriptions={"compute_optimal_exponents": {t: line.slope for t, line in found.lines.items()}},
        provenance=checklist.provenance(seed, runs),
    )
