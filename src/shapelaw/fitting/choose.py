"""law=auto and law=median3: all candidates get the same fit and hold-out, and the one that predicts best is taken.

Errors are those of the candidate's own hold-out of the largest models, never of the fit: an information criterion judges the
rows at hand, not the sizes that a user asks about. It decides only if nothing can be held out. Predictions are never averaged
linearly, because one bad candidate spoils a mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.residuals import information_criteria
from shapelaw.fitting.result import SEE_CANDIDATES
from shapelaw.fitting.ridge import PRECISION, Ridge, break_ties, find_ridge
from shapelaw.fitting.rolling import DISTINCT, SPARE, cuts, distinct
from shapelaw.fitting.solve import Solution, solve
from shapelaw.fitting.solvers import search_of
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.fitting.splits import PARAMS_FROM_SHARE
from shapelaw.laws import Law, get_law
from shapelaw.laws.choices import CANDIDATES, MEDIAN3, MEMBERS, LawChoice, MedianLaw
from shapelaw.runs.table import RunsTable
from shapelaw.runs.weights import weights_of

Array = NDArray[np.float64]
Masks = list[NDArray[np.bool_]]

UNKNOWN = float("inf")


class HoldOut(NamedTuple):
    """The hold-out by which candidates are judged.

    Args:
        folds: masks of the fitted rows; none if nothing can be held out.
        name: its name in words.
    """

    folds: Masks
    name: str


@dataclass(frozen=True)
class Candidate:
    """A law that was tried.

    Args:
        law: its name.
        rows, solution: the data as it reads them, and its fit, with ties unbroken; None if it cannot be fitted.
        reason: why it was dropped; empty if it was not.
        error: mean of |log measured - log predicted| over the held-out rows, or its information criterion; infinite if there
            is none.
    """

    law: str
    rows: FitData | None = None
    solution: Solution | None = None
    reason: str = ""
    error: float = UNKNOWN

    @property
    def size(self) -> int:
        """Number of its parameters."""
        return 0 if self.rows is None else len(self.rows.law.parameters)

    def rank(self, least: float) -> tuple[float, int]:
        """Place among others: by its error, or by its parameters if errors are equal or all below the least that counts."""
        return max(self.error, least), self.size


@dataclass(frozen=True)
class Choice:
    """The law that the data chose.

    Args:
        spec: spec of the law that was taken.
        solution: its fit; None for a median, whose members are fitted again.
        candidates: the table of `FitResult.candidates`.
        flag: which law was taken, and why.
    """

    spec: FitSpec
    solution: Solution | None
    candidates: tuple[Mapping[str, Any], ...]
    flag: str


def choose(runs: RunsTable, spec: FitSpec) -> Choice:
    """Fit the candidates and take the best.

    Raises:
        UserError: if no candidate can be fitted to the table.
    """
    choice = spec.law
    assert isinstance(choice, LawChoice)
    counting = spec.counting or (choice.default_counting if runs.counts(choice.default_counting) else "total")
    fitted = [_fitted(runs, dataclasses.replace(spec, counting=counting), name) for name in choice.candidates]
    possible = [one for one in fitted if one.rows is not None]
    if not possible:
        raise UserError(
            f"law={choice.name}: no candidate can be fitted to this table ({fitted[0].law}: {fitted[0].reason}, and "
            "the others need at least as much); give law=NAME"
        )
    held_out = hold_out(runs, counting, min(one.size for one in possible) + SPARE, _used(runs, spec))
    least = PRECISION if held_out.folds else -UNKNOWN
    tried = sorted((_judged(one, spec, held_out) for one in fitted), key=lambda one: one.rank(least))
    ranked = _ranked(tried)
    law = _taken(choice, ranked)
    taken = [one.law for one in ranked[: MEMBERS if isinstance(law, MedianLaw) else 1]]
    return Choice(
        dataclasses.replace(spec, law=law, counting=counting),
        None if isinstance(law, MedianLaw) else ranked[0].solution,
        tuple(_row(one, counting, held_out, one.law in taken) for one in tried),
        f"{choice.name}: {law.name} was taken of {len(tried)} candidates {_why(ranked, held_out)}{SEE_CANDIDATES}",
    )


def hold_out(runs: RunsTable, counting: str, needed: int = 0, used: NDArray[np.bool_] | None = None) -> HoldOut:
    """The hold-out: the largest models, else rows of growing token counts; nothing if these leave fewer than three sizes, or
    fewer rows than needed.

    Args:
        used: mask of the rows that count, (n,); None means all.
    """
    rows = np.ones(len(runs), dtype=bool) if used is None else used
    sizes, tokens = runs.params(counting), runs.column("tokens", "law=auto")
    small = rows & (sizes < PARAMS_FROM_SHARE * sizes[rows].max())
    if distinct(np.log(sizes[small])) >= DISTINCT and small.sum() >= needed:
        return HoldOut([small], "the smallest error on its own hold-out of the largest models")
    early = [rows & (tokens <= tokens[rows][fold].max()) for fold in cuts(tokens[rows], max(needed, DISTINCT))]
    if early:
        name = "the smallest error on its own hold-out of the latest tokens (too few sizes to hold any out)"
        return HoldOut(early, name)
    return HoldOut([], "the lowest AICc (too few sizes and token counts to hold any out)")


def _used(runs: RunsTable, spec: FitSpec) -> NDArray[np.bool_] | None:
    """Rows with a weight above 0."""
    return weights_of(runs, spec.weights) > 0 if spec.weights else None


def _why(ranked: Sequence[Candidate], held_out: HoldOut) -> str:
    """Why the first was taken."""
    if len(ranked) == 1:
        return "as the only one that can be compared"
    return f"by {held_out.name}" if ranked[0].error < UNKNOWN else "as the simplest (too few rows to compare them)"


def _fitted(runs: RunsTable, spec: FitSpec, name: str) -> Candidate:
    """A candidate's fit of all rows, or the reason why there is none."""
    try:
        _refuse_other_meaning(spec, name)
        own = dataclasses.replace(spec, law=get_law(name))
        rows = FitData.of(runs, own)
        return Candidate(name, rows, solve(rows, own))
    except UserError as error:
        return Candidate(name, reason=str(error))


def _refuse_other_meaning(spec: FitSpec, name: str) -> None:
    """Refuse fixed parameters whose meaning differs: E means the same in every candidate, others only in the first."""
    first = get_law(CANDIDATES[0])
    others = [given for given in spec.fixed if given != first.irreducible]
    if others and name != first.name:
        raise UserError(f"fixed.{others[0]} is read as the parameter of {first.name}; give law={name} to set its own")


def _judged(one: Candidate, spec: FitSpec, held_out: HoldOut) -> Candidate:
    """The candidate with its error, or with the reason why it has none."""
    if one.rows is None or one.solution is None:
        return one
    own, needed = dataclasses.replace(spec, law=one.rows.law), one.size + SPARE
    if any(fold.sum() < needed for fold in held_out.folds):
        reason = f"fewer than {needed} rows are left to fit when some are held out"
        return dataclasses.replace(one, reason=reason)
    ridge = find_ridge(one.rows, own, one.solution)
    _, solution = break_ties(one.rows, own, one.solution, ridge)
    reason = f"the table does not identify {', '.join(ridge.names)}" if ridge.names else ""
    error = (
        _error(one.rows, own, solution, ridge, held_out.folds)
        if held_out.folds
        else _criterion(one.rows, own, solution)
    )
    return dataclasses.replace(one, reason=reason, error=error)


def _criterion(data: FitData, spec: FitSpec, solution: Solution) -> float:
    """AICc = AIC + 2 k (k + 1)/(n - k - 1) for n rows and k parameters, including the scale of the errors."""
    problem, k = data.problem(spec), len(solution.theta) + 1
    aic, _ = information_criteria(problem.residuals(solution.theta), spec.delta, k - 1, spec.over_cost)
    spare = int((problem.weights > 0).sum()) - k - 1
    return aic + 2 * k * (k + 1) / spare if spare > 0 else UNKNOWN


def _error(data: FitData, spec: FitSpec, solution: Solution, ridge: Ridge, folds: Masks) -> float:
    """Mean error on the held-out rows, with the weights of the rows; all folds count equally."""
    problem = data.problem(spec)
    tied = dataclasses.replace(data, prior=ridge.penalty(data.law)) if data.law.priors else data
    search = search_of(spec.solver, tied.problem(spec))
    refits = [search.refit(solution.basins[:MEMBERS], fold * problem.weights)[0] for fold in folds]
    errors = [
        np.average(np.abs(problem.residuals(theta)[~fold]), weights=problem.weights[~fold])
        for theta, fold in zip(refits, folds, strict=True)
    ]
    return float(np.mean(errors))


def _ranked(tried: Sequence[Candidate]) -> list[Candidate]:
    """Best first; candidates that the table does not identify only if it identifies none."""
    possible = [one for one in tried if one.error < UNKNOWN] or [one for one in tried if one.rows is not None]
    return [one for one in possible if not one.reason] or possible


def _taken(choice: LawChoice, ranked: Sequence[Candidate]) -> Law:
    """The best, or the median of the three best if there are three."""
    if choice is MEDIAN3 and len(ranked) >= MEMBERS:
        return MedianLaw(tuple(get_law(one.law) for one in ranked[:MEMBERS]))
    return get_law(ranked[0].law)


def _row(one: Candidate, counting: str, held_out: HoldOut, chosen: bool) -> dict[str, Any]:
    """A row of the table of candidates."""
    return {
        "law": one.law,
        "counting": counting,
        "held_out": held_out.name,
        "error": None if one.error == UNKNOWN else one.error,
        "chosen": chosen,
        "reason": one.reason,
    }
