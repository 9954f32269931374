"""Multi-start fits: from data and a spec to a solution with its status.

The solver descends from every start. If it can improve optima, it then polishes the best distinct ones to rounding, and hops
away from the best one by small random steps as long as that finds a lower one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.fixed import whole_problem
from shapelaw.fitting.multistart import BOUND_HIT, CONVERGED, MAX_ITER, SAME, Multistart
from shapelaw.fitting.objective import Problem
from shapelaw.fitting.projection import projected_starts
from shapelaw.fitting.solver import Search
from shapelaw.fitting.solvers import search_of
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.fitting.starts import grid_starts, random_starts
from shapelaw.laws import Law
from shapelaw.laws.choices import MedianLaw
from shapelaw.laws.fixed import FixedLaw, sum_of

Array = NDArray[np.float64]

RANDOM_STARTS = 64
"""Random starts beside the projected ones unless grid_size says otherwise."""
PROJECTED_STARTS = 16
HOPS, HOP_SIGMAS, HOP_ROUNDS = 8, (0.05, 0.3), 4
"""Hops per sigma and round, their standard deviations in centred coordinates, and the most rounds."""


class Status(Enum):
    """How the best start ended."""

    converged = "converged"
    max_iter = "max_iter"
    bound_hit = "bound_hit"


STATUSES = {CONVERGED: Status.converged, MAX_ITER: Status.max_iter, BOUND_HIT: Status.bound_hit}


@dataclass(frozen=True)
class Solution:
    """The best optimum found and how it was found."""

    theta: Array
    """The law's vector; `law.natural(theta)` gives the parameters in natural units."""
    objective: float
    """Sum of Huber_delta over the points."""
    status: Status
    n_starts: int
    share_at_best: float
    """Share of the starts that ended within 1e-6 (relative) of the best objective."""
    next_basin: float | None
    """Objective of the next best optimum that was found, or None if there was none."""
    basins: Array
    """Distinct optima, best first, (k, p): where the bootstrap's refits start."""


def solve(data: FitData, spec: FitSpec, weights: ArrayLike | None = None) -> Solution:
    """Fit a law to data by the sum of Huber_delta(log L - log L_hat).

    Args:
        data: rows as the law reads them.
        spec: delta, starts, grid_size, solver and seed are read.
        weights: multiplicity of each row, (n,).

    Raises:
        UserError: for input that cannot be fitted (see `Problem.of`), before the first start; or if no start ends with a
            finite objective.
    """
    if isinstance(data.law, MedianLaw):
        return _solve_members(data, data.law, spec, weights)
    problem = data.problem(spec, weights)
    search, rng = search_of(spec.solver, problem), np.random.default_rng(spec.seed)
    blocks = grid_starts(data.law, spec.grid_size) if spec.starts == "grid" else _varpro(problem, spec.grid_size, rng)
    reached = Multistart.empty(len(data.law.parameters), float(problem.weights.sum()))
    for block in blocks:
        reached = reached.add(search.follow(block))
    if search.improves and len(reached.endpoints.objectives):
        reached = _improve(search, reached, rng)
    return _solution(data.law, reached)


def _solve_members(data: FitData, law: MedianLaw, spec: FitSpec, weights: ArrayLike | None) -> Solution:
    """Each member's own fit; the search is as good as the worst member's, and the objective is that of the median."""
    columns = [{name: data.columns[name] for name in member.predictors} for member in law.laws]
    found = [
        solve(replace(data, law=member, columns=own), replace(spec, law=member), weights)
        for member, own in zip(law.laws, columns, strict=True)
    ]
    theta = np.concatenate([one.theta for one in found])
    return Solution(
        theta=theta,
        objective=data.problem(spec, weights).value(theta),
        status=max((one.status for one in found), key=list(Status).index),
        n_starts=sum(one.n_starts for one in found),
        share_at_best=min(one.share_at_best for one in found),
        next_basin=None,
        basins=theta[None],
    )


def _varpro(problem: Problem, random: int | None, rng: np.random.Generator) -> Iterator[Array]:
    drawn = random_starts(problem.law, RANDOM_STARTS if random is None else random, rng)
    if sum_of(problem.law):
        projected = projected_starts(whole_problem(problem), PROJECTED_STARTS)
        own = problem.law.reduce(projected) if isinstance(problem.law, FixedLaw) else projected
        drawn = np.concatenate([own, drawn])
    yield drawn


def _improve(search: Search, reached: Multistart, rng: np.random.Generator) -> Multistart:
    """Polish the distinct endpoints, then hop away from the best until a round finds nothing lower."""
    reached = reached.polished(search.polish(reached.endpoints.thetas))
    for _ in range(HOP_ROUNDS):
        theta, best = reached.endpoints.thetas[0], reached.endpoints.objectives[0]
        hops = [search.hop(theta, sigma, HOPS, rng) for sigma in HOP_SIGMAS]
        reached = reached.hopped(search.polish(np.concatenate(hops)))
        if not reached.endpoints.objectives[0] < best * (1 - SAME) - reached.floor:
            break
    return reached


def _solution(law: Law, reached: Multistart) -> Solution:
    endpoints = reached.endpoints
    if not len(endpoints.objectives):
        raise UserError(
            f"none of {reached.n_starts} starts of law {law.name} ended with a finite objective; look for outliers in "
            "the data, or give another delta or more starts (grid_size)"
        )
    return Solution(
        theta=endpoints.thetas[0],
        objective=float(endpoints.objectives[0]),
        status=STATUSES[int(endpoints.statuses[0])],
        n_starts=reached.n_starts,
        share_at_best=reached.share_at_best,
        next_basin=reached.next_basin,
        basins=endpoints.thetas,
    )
