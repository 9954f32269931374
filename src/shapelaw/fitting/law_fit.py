"""A fitted law as a result, from any method that fits laws, with its flags and its checklist."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting import checklist, design
from shapelaw.fitting.bootstrap import Bootstrap
from shapelaw.fitting.holdout import evaluate
from shapelaw.fitting.residuals import residual_structure
from shapelaw.fitting.result import FitResult, plain
from shapelaw.fitting.ridge import Ridge
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.laws import EXPONENT, files, reference_of
from shapelaw.laws.base import in_loss_unit
from shapelaw.laws.fixed import FixedLaw, expanded, whole
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LawFit:
    """The result of a method.

    Args:
        theta: the law's vector.
        objective, kind: the value of the objective there, and its name in words.
        search: how the optimum was found.
        flags: what a reader must know, each `code: sentence`.
        not_identified: parameters that are nowhere a noticeable part of the prediction.
        ridge: parameters that the data do not identify; None for a method that does not check this.
        refits: refits of resampled data; None without resampling.
        settings: the method's own settings, beside those of every fit.
        best_settings: laws of the best rate and batch, as plain types.
        new_run: what a new run adds to the law's interval, as plain types.
        profiles, stages, sensitivity: as in `FitResult` and the checklist.
    """

    theta: Array
    objective: float
    kind: str
    search: Mapping[str, Any]
    flags: Sequence[str] = ()
    not_identified: tuple[str, ...] = ()
    ridge: Ridge | None = None
    refits: Bootstrap | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    profiles: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, Any] = field(default_factory=dict)
    sensitivity: Sequence[Mapping[str, Any]] | None = None
    new_run: Mapping[str, Any] = field(default_factory=dict)
    best_settings: tuple[Mapping[str, Any], ...] = ()


def law_result(runs: RunsTable, data: FitData, spec: FitSpec, fit: LawFit) -> FitResult:
    """The result of a method's fit of the spec's law."""
    law, named = data.law, whole(data.law)
    vectors = partial(expanded, law)
    given: dict[str, Any] = {"fixed": law.fixed} if isinstance(law, FixedLaw) else {}
    given |= {name: value for name in ("weights", "speedup") if (value := getattr(spec, name))}
    given |= {"over_cost": spec.over_cost} if spec.over_cost != 1.0 else {}
    zeros = {name: 0.0 for name in fit.not_identified if name == law.irreducible}
    parameters = law.natural(fit.theta) | zeros
    optimum = law.compute_optimal_exponent(parameters)
    intervals, replicates = intervals_of(fit, spec)
    outside = checklist.outside_intervals({**parameters, EXPONENT: optimum}, intervals)
    choices = {"delta": spec.delta, "counting": data.counting, "flops": spec.flops, "seed": spec.seed}
    result = FitResult(
        method=spec.method.name,
        law=reference_of(named),
        parameters=parameters,
        units=in_loss_unit(law.units, runs.loss_unit),
        objective=fit.objective,
        compute_optimal_exponent=optimum,
        intervals=intervals,
        flags=(
            *fit.flags,
            *outside,
            *design.flags(design.Design.of(runs, spec)),
            *checklist.table_flags(runs, spec.bootstrap, law.predictors),
        ),
        not_identified=fit.not_identified,
        ridge=() if fit.ridge is None else fit.ridge.names,
        ridge_vectors=() if fit.ridge is None else tuple(tuple(map(float, row)) for row in vectors(fit.ridge.vectors)),
        settings={**choices, **given, **fit.settings, "bootstrap": spec.resampling},
        search=fit.search,
        replicates={name: tuple(map(float, values)) for name, values in replicates.items()},
        profiles=plain(fit.profiles),
        stages=plain(fit.stages),
        law_sha256=(files.origin(named) or ("", None))[1],
        theta=tuple(map(float, vectors(fit.theta))),
        new_run=fit.new_run,
        best_settings=fit.best_settings,
        refits=() if fit.refits is None else tuple(tuple(map(float, row)) for row in vectors(fit.refits.thetas)),
    )
    return dataclasses.replace(result, checklist=plain(_checklist(runs, data, spec, fit, result)))


def intervals_of(fit: LawFit, spec: FitSpec) -> tuple[dict[str, tuple[float, float]], dict[str, Array]]:
    """(interval, value in each refit) of every parameter and of the compute-optimal exponent; nothing without refits.

    Parameters that are not identified have values, but no interval.
    """
    refits, wanted = fit.refits, spec.bootstrap
    if refits is None or wanted is None:
        return {}, {}
    law = refits.law
    ridge = () if fit.ridge is None else fit.ridge.names
    identified = [name for name in law.parameters if name not in (*fit.not_identified, *ridge)]
    intervals = {name: refits.interval(name, wanted.level, wanted.kind) for name in identified}
    replicates = dict(refits.draws)
    exponents = refits.values(law.compute_optimal_exponent)
    if law.compute_optimal_exponent(law.natural(fit.theta)) is not None and np.isfinite(exponents).any():
        replicates[EXPONENT] = exponents
    if EXPONENT in replicates and EXPONENT not in ridge:
        intervals[EXPONENT] = refits.interval(law.compute_optimal_exponent, wanted.level, wanted.kind)
    return intervals, replicates


def _checklist(runs: RunsTable, data: FitData, spec: FitSpec, fit: LawFit, result: FitResult) -> dict[str, Any]:
    return checklist.assemble(
        data=checklist.data(runs),
        counting=checklist.counting(runs, data.counting, spec.flops),
        ranges=checklist.ranges(runs),
        form=checklist.form(data.law),
        objective={
            "kind": fit.kind,
            "value": result.objective,
            "delta": spec.delta,
            "delta_unit": "log loss",
            "over_cost": spec.over_cost,
            "weights": f"column {spec.weights}, scaled to a mean of 1" if spec.weights else "one per point",
        },
        search=result.search,
        parameters={
            "values": result.parameters,
            "units": result.units,
            "intervals": result.intervals,
            "interval_settings": spec.resampling,
            "covariance": checklist.covariance(result.replicates),
            "profiles": result.profiles or None,
            "not_identified": result.not_identified,
            "ridge": result.ridge,
            "flags": result.flags,
        },
        residuals=checklist.residual_points(residual_structure(runs.kept, data.residuals(fit.theta))),
        held_out=[evaluate(runs, holdout, spec).plain() for holdout in spec.holdouts],
        sensitivity=fit.sensitivity,
        prescriptions={
            "compute_optimal_exponent": result.compute_optimal_exponent,
            "interval": result.intervals.get(EXPONENT),
            "shapes": "by prescribe, from this fit",
        },
        provenance=checklist.provenance(spec.seed, runs),
    )
