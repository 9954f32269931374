"""`method=staged` as a fit's result: parameters, intervals, the stages, flags and checklist."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapelaw.config import BootstrapOptions, StagedOptions
from shapelaw.errors import UserError
from shapelaw.fitting import checklist
from shapelaw.fitting.general import GeneralNewton
from shapelaw.fitting.holdout import Holdout, evaluate
from shapelaw.fitting.objective import Problem
from shapelaw.fitting.options import FitData, FitOptions
from shapelaw.fitting.residuals import residual_structure
from shapelaw.fitting.result import FitResult, plain
from shapelaw.laws import Law
from shapelaw.runs.table import RunsTable
from shapelaw.step_batch import report
from shapelaw.step_batch.flags import warnings
from shapelaw.step_batch.pipeline import Estimate, StagedData, estimate
from shapelaw.step_batch.spread import resample

Array = NDArray[np.float64]


def fit_staged(
    runs: RunsTable,
    law: Law,
    options: FitOptions,
    staged: StagedOptions,
    bootstrap: BootstrapOptions | None = None,
    holdouts: Sequence[Holdout] = (),
) -> FitResult:
    """Estimate a law stage by stage (see `shapelaw.fitting.fit.fit`).

    Raises:
        UserError: where a stage has no data.
    """
    whole = FitData.of(runs, law, options)
    data = StagedData.of(whole, staged, options.delta)
    found = estimated(data)
    drawn = resample(data, found, bootstrap, options.seed) if bootstrap else None
    parameters = law.natural(found.theta)
    nothing = tuple(name for name in ("E",) if parameters.get(name) == 0.0)
    intervals = {
        name: drawn.interval(name, bootstrap.level, bootstrap.kind)
        for name in law.parameters
        if drawn and bootstrap and name not in nothing
    }
    stages = report.stages(data, found, intervals)
    if staged.polish:
        stages["polish"] = _polished(whole.rows(found.rows), found, options.delta)
    result = FitResult(
        method="staged",
        law=law.name,
        parameters=parameters,
        units=law.units,
        objective=report.objective(data, found.theta, found.rows),
        compute_optimal_exponent=None,
        intervals=intervals,
        flags=(
            *warnings(data, found),
            *checklist.outside_intervals(parameters, intervals),
            *checklist.table_flags(runs, bootstrap),
        ),
        not_identified=nothing,
        settings=_settings(whole, options, staged, bootstrap),
        search={"solver": "stage by stage", "status": "converged", "n_starts": 1},
        replicates={name: tuple(map(float, values)) for name, values in drawn.draws.items()} if drawn else {},
        stages=plain(stages),
    )
    held_out = [_held_out(runs, law, one, options, staged) for one in holdouts]
    return dataclasses.replace(result, checklist=plain(_checklist(runs, whole, result, options, held_out)))


def estimated(data: StagedData) -> Estimate:
    """All stages on the data themselves.

    Raises:
        UserError: where a stage has no data.
    """
    found = estimate(data)
    if found is None:
        raise UserError(
            "method=staged: the stages find no falling power law: either the runs of each size do not bend towards a "
            "loss (method.converged=last takes their last losses), or the loss does not fall with size"
        )
    return found


def _polished(rows: FitData, found: Estimate, delta: float) -> dict[str, Any]:
    """All parameters at once, from the staged solution: reported beside it."""
    problem = Problem.of(rows.law, rows.columns, rows.loss, delta)
    ends = GeneralNewton(problem).polish(found.theta[None])
    return {
        "parameters": rows.law.natural(ends.thetas[0]),
        "objective": float(ends.objectives[0]),
        "objective_of_the_stages": problem.value(found.theta),
    }


def _held_out(
    runs: RunsTable, law: Law, holdout: Holdout, options: FitOptions, staged: StagedOptions
) -> dict[str, Any]:
    """Errors on what is held out of all stages."""

    def solve(data: FitData) -> Array:
        return estimated(StagedData.of(data, staged, options.delta)).theta

    return evaluate(runs, law, holdout, options, solve=solve).plain()


def _settings(
    data: FitData, options: FitOptions, staged: StagedOptions, bootstrap: BootstrapOptions | None
) -> dict[str, Any]:
    own = {"delta": options.delta, "counting": data.counting, "flops": options.flops, "seed": options.seed}
    return own | {"staged": dataclasses.asdict(staged), "bootstrap": bootstrap and dataclasses.asdict(bootstrap)}


def _checklist(
    runs: RunsTable, data: FitData, result: FitResult, options: FitOptions, held_out: list[dict[str, Any]]
) -> dict[str, Any]:
    residuals = np.log(data.loss) - np.log(data.law.predict(result.parameters, data.columns))
    return checklist.assemble(
        data=checklist.data(runs),
        counting=checklist.counting(runs, data.counting, options.flops),
        ranges=checklist.ranges(runs),
        form=checklist.form(data.law),
        objective={
            "kind": "stage by stage; the value is the sum over stage S's rows of Huber_delta(log measured - log predicted)",
            "value": result.objective,
            "delta": options.delta,
            "delta_unit": "log loss",
            "weights": "one per point",
        },
        search=result.search,
        parameters={
            "values": result.parameters,
            "units": result.units,
            "intervals": result.intervals,
            "interval_settings": result.settings["bootstrap"],
            "covariance": checklist.covariance(result.replicates),
            "profiles": None,
            "not_identified": result.not_identified,
            "flags": result.flags,
        },
        residuals=checklist.residual_points(residual_structure(runs.kept, residuals)),
        held_out=held_out,
        provenance=checklist.provenance(options.seed, runs),
    )
