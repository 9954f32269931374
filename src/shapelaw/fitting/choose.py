"""law=auto and law=median3: candidates are fitted and held out alike, and the one that predicts best is taken.

Errors are those of the candidate's own hold-out of the largest models, never of the fit: an information criterion sees the
rows that are there, not those that are asked about. Predictions are never averaged linearly: one bad candidate spoils a mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.residuals import information_criteria
from shapelaw.fitting.ridge import Ridge, break_ties, find_ridge
from shapelaw.fitting.rolling import DISTINCT, SPARE, cuts, distinct
from shapelaw.fitting.solve import Solution, solve
from shapelaw.fitting.solvers import search_of
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.fitting.splits import PARAMS_FROM_SHARE
from shapelaw.laws import Law, get_law
from shapelaw.laws.choices import MEDIAN3, MEMBERS, LawChoice, MedianLaw
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]
Masks = list[NDArray[np.bool_]]

UNKNOWN = float("inf")


@dataclass(frozen=True)
class Candidate:
    """A law that was tried.

    Args:
        law: its name.
        spec: how it is fitted.
        error: mean of |log measured - log predicted| over its own hold-out; infinite where it was left out.
        reason: why it was left out; empty where it was not.
    """

    law: str
    spec: FitSpec
    error: float = UNKNOWN
    reason: str = ""


def chosen_spec(runs: RunsTable, spec: FitSpec) -> tuple[FitSpec, list[dict[str, Any]], str]:
    """What a law that the data choose becomes: (spec of the chosen law, table of the candidates, flag).

    Raises:
        UserError: if no candidate can be fitted to the table.
    """
    choice = spec.law
    assert isinstance(choice, LawChoice)
    counting = spec.counting or (choice.default_counting if runs.counts(choice.default_counting) else "total")
    folds, held_out = hold_out(runs, counting)
    tried = [
        _tried(runs, dataclasses.replace(spec, law=get_law(name), counting=counting), folds)
        for name in choice.candidates
    ]
    ranked = _ranked(tried)
    law = _taken(choice, ranked)
    taken = {one.law for one in ranked[: MEMBERS if isinstance(law, MedianLaw) else 1]}
    table = [
        {
            "law": one.law,
            "counting": counting,
            "held_out": held_out,
            "error": None if one.error == UNKNOWN else one.error,
            "chosen": one.law in taken,
            "reason": one.reason,
        }
        for one in sorted(tried, key=lambda one: one.error)
    ]
    flag = f"{choice.name}: {law.name} was taken of {len(tried)} candidates by {held_out} (see candidates)"
    return dataclasses.replace(spec, law=law, counting=counting), table, flag


def hold_out(runs: RunsTable, counting: str) -> tuple[Masks, str]:
    """(masks of what is fitted, in words).

    All but the largest models are fitted; in a table of too few sizes, rows up to growing token counts.
    """
    sizes = runs.params(counting)
    small = sizes < PARAMS_FROM_SHARE * sizes.max()
    if distinct(np.log(sizes[small])) >= DISTINCT:
        return [small], "the smallest error on its own hold-out of the largest models"
    tokens = runs.column("tokens", "law=auto")
    folds = cuts(tokens, DISTINCT)
    if folds:
        return (
            folds,
            "the smallest error on its own hold-out of the latest tokens (too few sizes to hold any out)",
        )
    return [], "the lowest AIC (too few sizes and token counts to hold any out)"


def _tried(runs: RunsTable, spec: FitSpec, folds: Masks) -> Candidate:
    try:
        rows = FitData.of(runs, spec)
        found = solve(rows, spec)
        needed = len(rows.law.parameters) + SPARE
        if any(fold.sum() < needed for fold in folds):
            raise UserError(f"fewer than {needed} rows are left to fit when some are held out")
    except UserError as error:
        return Candidate(spec.law.name, spec, reason=str(error))
    ridge = find_ridge(rows, spec, found)
    _, solution = break_ties(rows, spec, found, ridge)
    reason = f"the table does not identify {', '.join(ridge.names)}" if ridge.names else ""
    return Candidate(spec.law.name, spec, _error(rows, spec, solution, ridge, folds), reason)


def _error(data: FitData, spec: FitSpec, solution: Solution, ridge: Ridge, folds: Masks) -> float:
    """Mean error on what is held out, folds counting alike; the AIC where nothing is."""
    problem = data.problem(spec)
    if not folds:
        return information_criteria(problem.residuals(solution.theta), spec.delta, len(solution.theta))[0]
    tied = dataclasses.replace(data, prior=ridge.penalty(data.law)) if data.law.priors else data
    search = search_of(spec.solver, tied.problem(spec))
    refits = [search.refit(solution.basins[:MEMBERS], fold * problem.weights)[0] for fold in folds]
    errors = [np.abs(problem.residuals(theta)[~fold]).mean() for theta, fold in zip(refits, folds, strict=True)]
    return float(np.mean(errors))


def _ranked(tried: Sequence[Candidate]) -> list[Candidate]:
    """Best first; those that the table does not identify only where it identifies none."""
    possible = [one for one in tried if one.error < UNKNOWN]
    if not possible:
        reasons = "; ".join(f"{one.law}: {one.reason}" for one in tried)
        raise UserError(f"law=auto: no candidate can be fitted to this table ({reasons}); give law=NAME")
    identified = [one for one in possible if not one.reason]
    return sorted(identified or possible, key=lambda one: one.error)


def _taken(choice: LawChoice, ranked: Sequence[Candidate]) -> Law:
    """The best, or the median of the three best where there are so many."""
    if choice is MEDIAN3 and len(ranked) >= MEMBERS:
        return MedianLaw(tuple(get_law(one.law) for one in ranked[:MEMBERS]))
    return get_law(ranked[0].law)
