"""Approach 3: a law of the loss fitted to every row, with its intervals, flags and checklist."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapelaw.config import BootstrapOptions
from shapelaw.errors import UserError
from shapelaw.fitting import checklist
from shapelaw.fitting.bootstrap import bootstrap
from shapelaw.fitting.flags import flags
from shapelaw.fitting.holdout import Holdout, evaluate
from shapelaw.fitting.options import FitData, FitOptions
from shapelaw.fitting.profile import profile
from shapelaw.fitting.residuals import residual_structure
from shapelaw.fitting.result import FitResult, plain
from shapelaw.fitting.solve import Solution
from shapelaw.laws import EXPONENT, Law
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]

DEAD = ("irreducible_zero", "dead_term")
"""Flags of parameters that the data do not identify."""
SENSITIVITY_DELTAS = (1e-3, 1e-4, 1e-5)
SENSITIVITY_COUNTINGS = ("total", "no_embedding", "no_embedding_and_head")


@dataclass(frozen=True)
class Extras:
    """What a fit is asked for beside the optimum.

    Args:
        bootstrap: refits of resampled data.
        holdouts: hold-outs for the checklist.
        sensitivity: other deltas and countings, for the checklist.
        profile: profile intervals.
    """

    bootstrap: BootstrapOptions | None = None
    holdouts: Sequence[Holdout] = ()
    sensitivity: bool = False
    profile: bool = False


@dataclass(frozen=True)
class Uncertainty:
    """Intervals and the refits that they rest on."""

    intervals: Mapping[str, tuple[float, float]]
    replicates: Mapping[str, Array]


def fit_parametric(runs: RunsTable, law: Law, options: FitOptions, extras: Extras) -> FitResult:
    """Fit a law to the kept rows (see `shapelaw.fitting.fit.fit`)."""
    data = FitData.of(runs, law, options)
    solution = data.solve(options)
    warnings = flags(law, data.columns, data.loss, solution, delta=options.delta)
    nothing = tuple(flag.parameter for flag in warnings if flag.code in DEAD and flag.parameter)
    parameters = law.natural(solution.theta) | {name: 0.0 for name in nothing if name == law.irreducible}
    optimum = law.compute_optimal_exponent(parameters)
    spread = resample(data, solution, options, extras.bootstrap) if extras.bootstrap else Uncertainty({}, {})
    intervals = {name: ends for name, ends in spread.intervals.items() if name not in nothing}
    result = FitResult(
        method="parametric",
        law=law.name,
        parameters=parameters,
        units=law.units,
        objective=solution.objective,
        compute_optimal_exponent=optimum,
        intervals=intervals,
        flags=(
            *(f"{flag.code}: {flag.message}" for flag in warnings),
            *checklist.outside_intervals({**parameters, EXPONENT: optimum}, intervals),
            *_table_flags(runs, data, options, extras),
        ),
        not_identified=nothing,
        settings=_settings(data, options, extras.bootstrap),
        search=_search(solution, options),
        replicates={name: tuple(map(float, values)) for name, values in spread.replicates.items()},
        profiles=plain(_profiles(data, solution, options, nothing)) if extras.profile else {},
    )
    return dataclasses.replace(result, checklist=plain(_checklist(runs, data, result, options, extras)))


def resample(data: FitData, solution: Solution, options: FitOptions, wanted: BootstrapOptions) -> Uncertainty:
    """Refit resampled runs or rows: intervals of every parameter and of the compute-optimal exponent."""
    law = data.law
    drawn = bootstrap(
        law,
        data.columns,
        data.loss,
        data.runs,
        solution,
        n=wanted.n,
        by=wanted.by,
        delta=options.delta,
        seed=options.seed,
        workers=wanted.workers,
    )

    ends = {name: drawn.interval(name, wanted.level, wanted.kind) for name in law.parameters}
    replicates = dict(drawn.draws)
    exponents = drawn.values(law.compute_optimal_exponent)  # type: ignore[arg-type]
    if law.compute_optimal_exponent(law.natural(solution.theta)) is not None and np.isfinite(exponents).any():
        replicates[EXPONENT] = exponents
        ends[EXPONENT] = drawn.interval(law.compute_optimal_exponent, wanted.level, wanted.kind)  # type: ignore[arg-type]
    return Uncertainty(ends, replicates)


def _table_flags(runs: RunsTable, data: FitData, options: FitOptions, extras: Extras) -> tuple[str, ...]:
    """What the table and the settings ask a reader to know."""
    found = []
    own = data.law.default_counting
    if options.counting is None and data.counting != own and "params" in data.columns:
        found.append(f"counting: params are counted as {data.counting}, as the table lacks what the law's {own} needs")
    if options.solver == "reference" and extras.bootstrap:
        found.append(
            "refits_by_newton: the intervals are of refits by solver=newton, which does not stop early: they are those of "
            "its optimum, not of the point at which solver=reference stopped"
        )
    return (*found, *checklist.table_flags(runs, extras.bootstrap))


def _profiles(data: FitData, solution: Solution, options: FitOptions, nothing: Sequence[str]) -> dict[str, Any]:
    """Profile of every parameter that has one, and of the compute-optimal exponent; runs count as independent points."""
    found: dict[str, Any] = {}
    for name in (*data.law.parameters, EXPONENT):
        if name in nothing:
            continue
        try:
            one = profile(
                data.law,
                data.columns,
                data.loss,
                solution,
                name,
                delta=options.delta,
                effective=len(np.unique(data.runs)),
            )
        except UserError:  # the law holds this one in no linear constraint, or has no such exponent
            continue
        found[name] = dataclasses.asdict(one)
    return found


def _settings(data: FitData, options: FitOptions, bootstrap: BootstrapOptions | None) -> dict[str, Any]:
    """Every value of the fit, the counting as resolved."""
    values = dataclasses.asdict(options) | {"counting": data.counting}
    return values | {"bootstrap": bootstrap and dataclasses.asdict(bootstrap)}


def _search(solution: Solution, options: FitOptions) -> dict[str, Any]:
    """How the optimum was found."""
    return {
        "solver": options.solver,
        "gradient": "forward differences" if options.solver == "reference" else "analytic, with the Hessian",
        "status": solution.status.value,
        "n_starts": solution.n_starts,
        "share_at_best": solution.share_at_best,
        "next_basin": solution.next_basin,
    }


def _checklist(
    runs: RunsTable, data: FitData, result: FitResult, options: FitOptions, extras: Extras
) -> dict[str, Any]:
    residuals = np.log(data.loss) - np.log(data.law.predict(result.parameters, data.columns))
    return checklist.assemble(
        data=checklist.data(runs),
        counting=checklist.counting(runs, data.counting, options.flops),
        ranges=checklist.ranges(runs),
        form=checklist.form(data.law),
        objective={
            "kind": "sum over points of Huber_delta(log measured - log predicted)",
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
            "profiles": result.profiles or None,
            "not_identified": result.not_identified,
            "flags": result.flags,
        },
        residuals=checklist.residual_points(residual_structure(runs.kept, residuals)),
        held_out=[evaluate(runs, data.law, one, options).plain() for one in extras.holdouts],
        sensitivity=_sensitivity(runs, data.law, options) if extras.sensitivity else None,
        prescriptions={
            "compute_optimal_exponent": result.compute_optimal_exponent,
            "interval": result.intervals.get(EXPONENT),
            "shapes": "by prescribe, from this fit",
        },
        provenance=checklist.provenance(options.seed, runs),
    )


def _sensitivity(runs: RunsTable, law: Law, options: FitOptions) -> list[dict[str, Any]]:
    """Point 10: the fit at other deltas, and at other countings."""
    own = FitData.of(runs, law, options).counting
    others = [dataclasses.replace(options, delta=delta, counting=own) for delta in SENSITIVITY_DELTAS]
    if "params" in law.predictors:
        countings = [name for name in SENSITIVITY_COUNTINGS if name != own and runs.counts(name)]
        others += [dataclasses.replace(options, counting=name) for name in countings]
    return [_one_setting(runs, law, one) for one in others]


def _one_setting(runs: RunsTable, law: Law, options: FitOptions) -> dict[str, Any]:
    data = FitData.of(runs, law, options)
    try:
        solution = data.solve(options)
    except UserError as error:
        return {"delta": options.delta, "counting": data.counting, "failed": str(error)}
    parameters = law.natural(solution.theta)
    return {
        "delta": options.delta,
        "counting": data.counting,
        "objective": solution.objective,
        "parameters": parameters,
        "compute_optimal_exponent": law.compute_optimal_exponent(parameters),
    }
