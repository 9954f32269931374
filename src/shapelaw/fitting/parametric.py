"""Approach 3: a law of the loss, with all its parameters fitted at once to all rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.bootstrap import bootstrap
from shapelaw.fitting.checklist import FEW_RUNS
from shapelaw.fitting.choose import choose
from shapelaw.fitting.flags import Flag, flags
from shapelaw.fitting.law_fit import LawFit, law_result
from shapelaw.fitting.new_run import NewRun, axes_of, noise_of
from shapelaw.fitting.profile import profile
from shapelaw.fitting.result import FitResult
from shapelaw.fitting.ridge import Ridge, break_ties, find_ridge
from shapelaw.fitting.rolling import factors
from shapelaw.fitting.settings import setting_laws, told
from shapelaw.fitting.solve import Solution, solve
from shapelaw.fitting.solvers import search_of
from shapelaw.fitting.spec import FitData, FitSpec, Method
from shapelaw.laws import EXPONENT
from shapelaw.laws.choices import LawChoice
from shapelaw.laws.fixed import sum_of
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]

QUOTING = ("near_flat", "exponent_range")
"""Flags that quote the number of a parameter."""
DEAD = ("irreducible_zero", "dead_term")
"""Flags of parameters that the data do not identify."""
SENSITIVITY_DELTAS = (1e-3, 1e-4, 1e-5)
SENSITIVITY_COUNTINGS = ("total", "no_embedding", "no_embedding_and_head")


@dataclass(frozen=True)
class Parametric(Method):
    """Approach 3."""

    name: str = "parametric"
    does: str = "a free fit of all its parameters at once"
    takes_solution: ClassVar[bool] = True

    def fit(self, runs: RunsTable, spec: FitSpec) -> FitResult:
        """Fit the law to the kept rows (see `shapelaw.fitting.fit.fit`)."""
        if isinstance(spec.law, LawChoice):
            choice = choose(runs, spec)
            result = self._fit(runs, choice.spec, choice.solution)
            return dataclasses.replace(result, candidates=choice.candidates, flags=(choice.flag, *result.flags))
        return self._fit(runs, spec)

    def _fit(self, runs: RunsTable, spec: FitSpec, solved: Solution | None = None) -> FitResult:
        """The fit of one law, from its solution if known."""
        rows = FitData.of(runs, spec)
        found = solved or solve(rows, spec)
        ridge = find_ridge(rows, spec, found)
        data, solution = break_ties(rows, spec, found, ridge)
        warnings = _warnings(flags(rows, spec, solution), ridge, data.law.exponents)
        nothing = tuple(flag.parameter for flag in warnings if flag.code in DEAD and flag.parameter)
        settings, why = setting_laws(runs, rows.counting, spec.bootstrap, spec.seed)
        fit = LawFit(
            theta=solution.theta,
            objective=solution.objective,
            kind=_kind(spec),
            search=_searched(solution, spec),
            flags=(
                *(f"{flag.code}: {flag.message}" for flag in warnings),
                *_notes(data, spec),
                *told(settings, why, spec.bootstrap),
            ),
            not_identified=nothing,
            ridge=ridge,
            refits=bootstrap(_resampled(data, ridge), spec, solution) if spec.bootstrap else None,
            new_run=_new_run(runs, rows, spec, solution, ridge) if spec.bootstrap else {},
            best_settings=tuple(law.plain() for law in settings),
            settings={
                "solver": spec.solver.name,
                "starts": spec.starts,
                "grid_size": spec.grid_size,
                "ties": spec.ties,
            },
            profiles=_profiles(rows, spec, found, nothing) if spec.profile else {},
            sensitivity=_sensitivity(runs, data, spec) if spec.sensitivity else None,
        )
        return law_result(runs, data, spec, fit)

    def theta(self, data: FitData, spec: FitSpec, solution: Solution | None = None) -> Array:
        """The optimum over some of the rows, with ties broken as in a fit; `solution` is the result of `solve` on them."""
        found = solution or solve(data, spec)
        return break_ties(data, spec, found, find_ridge(data, spec, found))[1].theta


PARAMETRIC = Parametric()


def _kind(spec: FitSpec) -> str:
    """The objective in words."""
    cost = f", times {spec.over_cost:g} where predicted > measured" if spec.over_cost != 1.0 else ""
    return f"sum over points of Huber_delta(log measured - log predicted){cost}"


def _resampled(data: FitData, ridge: Ridge) -> FitData:
    """The rows for refits, with ties broken if runs are so few that a resampled set may have only one or two sizes."""
    few = len(np.unique(data.runs)) < FEW_RUNS and sum_of(data.law) is not None
    return dataclasses.replace(data, prior=ridge.penalty(data.law)) if few else data


def _new_run(runs: RunsTable, data: FitData, spec: FitSpec, solution: Solution, ridge: Ridge) -> dict[str, Any]:
    """The part that a new run adds to the law's interval."""
    sizes = {"params": data.columns.get("params", runs.params()), "tokens": runs.column("tokens", "rolling hold-out")}
    axes = axes_of(sizes)
    noise = noise_of(data.residuals(solution.theta), data.runs, len(solution.theta))
    largest = {name: float(values.max()) for name, values in axes.items()}
    return NewRun.of(noise, largest, factors(data, spec, solution, ridge, axes)).plain()


def _warnings(raised: Sequence[Flag], ridge: Ridge, exponents: Sequence[str]) -> list[Flag]:
    """Flags without the numbers of parameters on a ridge, which are named instead."""
    kept = [flag for flag in raised if flag.code not in QUOTING or flag.parameter not in ridge.names]
    if not ridge.names:
        return kept
    first = next((name for name in (*exponents, *ridge.names) if name in ridge.names), EXPONENT)
    given = "" if first == EXPONENT else f", or give one with fixed.{first}=VALUE"
    named = (
        f"{', '.join(ridge.names)}: not identified, because laws that fit these rows equally well differ in them; do "
        f"not quote their values (train other sizes, tokens or shapes{given}; docs/laws.md)"
    )
    return [Flag("ridge", None, named), *kept]


def _notes(data: FitData, spec: FitSpec) -> list[str]:
    """Notes on the counting and the solver."""
    notes, usual = [], data.law.default_counting
    if spec.counting is None and data.counting != usual and "params" in data.columns:
        notes.append(
            f"counting: params are counted as {data.counting}, because the table lacks what the law's {usual} needs"
        )
    if spec.bootstrap:
        notes.append(search_of(spec.solver, data.problem(spec)).refit_note)
    return [note for note in notes if note]


def _profiles(data: FitData, spec: FitSpec, solution: Solution, nothing: Sequence[str]) -> dict[str, Any]:
    """Profile of every parameter that has one and of the compute-optimal exponent, with runs as independent points."""
    profiles: dict[str, Any] = {}
    for name in (*data.law.parameters, EXPONENT):
        if name in nothing:
            continue
        try:
            traced = profile(data, spec, name, solution, effective=len(np.unique(data.runs)))
        except UserError:  # the law has no linear constraint for this one, or no such exponent
            continue
        profiles[name] = dataclasses.asdict(traced)
    return profiles


def _searched(solution: Solution, spec: FitSpec) -> dict[str, Any]:
    """How the optimum was found."""
    return {
        "solver": spec.solver.name,
        "gradient": getattr(spec.solver, "gradient", "the solver's own"),
        "status": solution.status.value,
        "n_starts": solution.n_starts,
        "share_at_best": solution.share_at_best,
        "next_basin": solution.next_basin,
    }


def _sensitivity(runs: RunsTable, data: FitData, spec: FitSpec) -> list[dict[str, Any]]:
    """Point 10: the fit at other deltas, and at other countings."""
    others = [dataclasses.replace(spec, delta=delta, counting=data.counting) for delta in SENSITIVITY_DELTAS]
    if "params" in data.law.predictors:
        countings = [name for name in SENSITIVITY_COUNTINGS if name != data.counting and runs.counts(name)]
        others += [dataclasses.replace(spec, counting=name) for name in countings]
    return [_one_setting(runs, other) for other in others]


def _one_setting(runs: RunsTable, spec: FitSpec) -> dict[str, Any]:
    data = FitData.of(runs, spec)
    setting = {"delta": spec.delta, "counting": data.counting}
    try:
        solution = solve(data, spec)
    except UserError as error:
        return {**setting, "failed": str(error)}
    parameters = data.law.natural(solution.theta)
    optimum = data.law.compute_optimal_exponent(parameters)
    return {
        **setting,
        "objective": solution.objective,
        "parameters": parameters,
        "compute_optimal_exponent": optimum,
    }
