"""Flags that a reader must know before trusting a fit: parameters at zero, out of range or hardly identified, weak searches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.objective import Problem
from shapelaw.fitting.profile import constrained_minimum
from shapelaw.fitting.solve import Solution, Status
from shapelaw.fitting.solver import Search
from shapelaw.fitting.solvers import search_of
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.fitting.starts import start_ranges
from shapelaw.laws import EXPONENT, Law

Array = NDArray[np.float64]

DEAD_SHARE = 1e-6
"""A term (or E) that is nowhere more than this share of the loss is dead."""
MOVE, RISE = 0.1, 1e-3
"""A parameter that can move by the first share of itself at a relative rise below the second is hardly identified."""
SINGULAR = 1e-12
"""Smallest eigenvalue of the Jacobian's unit-diagonal Gram matrix below which parameters cannot be separated."""
LOW_SHARE = 0.2
NEXT_BASIN = 1.01
"""A second optimum within this factor of the best gets a flag."""


@dataclass(frozen=True)
class Flag:
    """One warning about a fit."""

    code: str
    """irreducible_zero, dead_term, exponent_range, near_flat, not_identified, second_basin, not_converged, bound_hit or
    low_share."""
    parameter: str | None
    """The parameter that it concerns, if any."""
    message: str
    """A plain sentence."""


def flags(data: FitData, spec: FitSpec, solution: Solution) -> tuple[Flag, ...]:
    """Every warning that applies to a fit, the gravest first.

    Raises:
        UserError: for input that cannot be fitted.
    """
    problem = data.problem(spec)
    dead = tuple(_dead(problem, solution))
    gone = {flag.parameter for flag in dead}
    return (
        *_search(solution),
        *dead,
        *_out_of_range(data.law, solution),
        *_inseparable(problem, solution, gone),
        *_flat(search_of(spec.solver, problem), solution, gone),
    )


def _search(solution: Solution) -> Iterator[Flag]:
    if solution.status is Status.max_iter:
        yield Flag(
            "not_converged", None, "the best start ran out of iterations: a lower optimum may exist; use more starts"
        )
    if solution.status is Status.bound_hit:
        yield Flag("bound_hit", None, "an exponent reached its bound: the data do not identify it")
    if solution.share_at_best < LOW_SHARE:
        yield Flag(
            "low_share",
            None,
            f"only {solution.share_at_best:.0%} of {solution.n_starts} starts reached the best optimum: a better one "
            "may exist; use more starts",
        )
    following = solution.next_basin
    if following is not None and following <= NEXT_BASIN * solution.objective:
        rise = following / solution.objective - 1
        yield Flag("second_basin", None, f"another optimum lies only {rise:.2%} above the best: compare both of them")


def _dead(problem: Problem, solution: Solution) -> Iterator[Flag]:
    """Parameters fitted in their logarithm whose part of the loss is nowhere noticeable."""
    law = problem.law
    shares = np.abs(law.jacobian(np.asarray(solution.theta), problem.columns)).max(axis=0)
    for name, share in zip(law.parameters, shares, strict=True):
        if name not in law.log_parameters or share > DEAD_SHARE:
            continue
        if name == law.irreducible:
            message = f"{name} is at 0: the data do not identify an irreducible loss; do not read it as one"
            yield Flag("irreducible_zero", name, message)
        else:
            message = f"the term of {name} is at 0: the data do not need it; its exponent means nothing"
            yield Flag("dead_term", name, message)


def _out_of_range(law: Law, solution: Solution) -> Iterator[Flag]:
    if not law.exponents:
        return
    parameters, ranges = law.natural(solution.theta), start_ranges(law)
    for name in law.exponents:
        low, high = ranges[name]
        if not low <= parameters[name] <= high:
            message = f"{name} = {parameters[name]:.3g} is outside {low:g} to {high:g}, the range of the starts"
            yield Flag("exponent_range", name, message)


def _inseparable(problem: Problem, solution: Solution, gone: set[str | None]) -> Iterator[Flag]:
    """Directions in which the prediction does not change at all."""
    law = problem.law
    alive = [k for k, name in enumerate(law.parameters) if name not in gone]
    jacobian = law.jacobian(np.asarray(solution.theta), problem.columns)[:, alive] * np.sqrt(problem.weights)[:, None]
    scale = np.linalg.norm(jacobian, axis=0)
    live = scale > 0
    if not live.any():
        return
    values, vectors = np.linalg.eigh((jacobian[:, live] / scale[live]).T @ (jacobian[:, live] / scale[live]))
    if values[0] < SINGULAR * values[-1]:
        names = [law.parameters[k] for k, keep in zip(alive, live, strict=True) if keep]
        parts = np.abs(vectors[:, 0])
        heavy = [name for name, part in zip(names, parts, strict=True) if part > 0.3 * parts.max()]
        yield Flag(
            "not_identified",
            None,
            f"{', '.join(heavy)} cannot be told apart by these data: fix one (fixed.{heavy[0]}=VALUE) or drop a term",
        )


def _flat(search: Search, solution: Solution, gone: set[str | None]) -> Iterator[Flag]:
    """Exponents, E and the compute-optimal exponent that can move by a tenth at no cost."""
    law = search.problem.law
    parameters = law.natural(solution.theta)
    optimum = law.compute_optimal_exponent(parameters)
    watched = {name: parameters[name] for name in (*law.exponents, law.irreducible or "") if name in parameters}
    if optimum is not None:
        watched[EXPONENT] = optimum
    for name, value in watched.items():
        if name in gone:
            continue
        for factor in (1 - MOVE, 1 + MOVE):
            try:
                moved = constrained_minimum(search, solution, name, factor * value)
            except UserError:  # the law has no such constraint in closed form
                break
            if moved <= (1 + RISE) * solution.objective:
                other = f"{name} = {value:.4g} may just as well be {factor * value:.4g}"
                yield Flag("near_flat", name, f"{other}: the objective rises by less than {RISE:.1%}")
                break
