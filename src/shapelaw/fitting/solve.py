"""Multi-start fits: one call from a law and its data to a solution with its status.

From every start a descent with continuation in delta; then the distinct best ends are polished to rounding, and the
best is left by small random hops as long as that finds a lower one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.descent import BOUND_HIT, CONVERGED, MAX_ITER
from shapelaw.fitting.general import GeneralNewton
from shapelaw.fitting.newton import Newton
from shapelaw.fitting.objective import Problem
from shapelaw.fitting.projection import projected_starts
from shapelaw.fitting.reference import Reference
from shapelaw.fitting.starts import grid_starts, random_starts
from shapelaw.fitting.tally import SAME, Ends, Tally
from shapelaw.laws import Columns, Law, SumLaw

Array = NDArray[np.float64]

SOLVERS = ("newton", "newton_torch", "reference")
STARTS = ("varpro", "grid")
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


class Minimiser(Protocol):
    """A way to minimise one problem from many starts, to rounding."""

    def follow(self, thetas: Array) -> Ends:
        """Descend from every row of thetas."""

    def polish(self, thetas: Array) -> Ends:
        """Descend from near an optimum, to rounding."""

    def hop(self, theta: Array, sigma: float, count: int, rng: np.random.Generator) -> Array:
        """Random neighbours of theta."""


def solve(
    law: Law,
    columns: Columns,
    loss: ArrayLike,
    *,
    delta: float = 1e-4,
    starts: str = "varpro",
    grid_size: int | None = None,
    solver: str = "newton",
    seed: int = 0,
    weights: ArrayLike | None = None,
) -> Solution:
    """Fit a law by minimising sum_i w_i Huber_delta(log L_i - log L_hat_i).

    Args:
        law: any registered law, or one of your own.
        columns: the law's predictors by their canonical names, each (n,).
        loss: measured loss in nats per token, (n,).
        delta: where Huber's function turns linear, in units of log loss.
        starts: `varpro` (variable projection and random starts of the authors' grid) or `grid` (a full grid).
        grid_size: number of random starts (`varpro`; default 64), or size of the grid (`grid`; default the authors'
            own; see `starts.grid_levels` for other sizes).
        solver: `newton` (compiled), `newton_torch` (the same in batches, for a GPU) or `reference` (the authors').
        seed: of the random starts and hops.
        weights: multiplicity of each point, (n,).

    Raises:
        UserError: on input that cannot be fitted (see `Problem.of`), before the first start; or if no start ends with a
            finite objective.
    """
    problem = Problem.of(law, columns, loss, delta, weights)
    if starts not in STARTS:
        raise UserError(f"starts={starts}: allowed are {', '.join(STARTS)}")
    if grid_size is not None and grid_size < 1:
        raise UserError(f"grid_size={grid_size}: allowed are whole numbers from 1, or none for the default")
    rng = np.random.default_rng(seed)
    blocks = grid_starts(law, grid_size) if starts == "grid" else _varpro(problem, grid_size, rng)
    tally = Tally.empty(len(law.parameters), float(problem.weights.sum()))
    if solver == "reference":
        reference = Reference(problem)
        for block in blocks:
            tally = tally.add(reference.follow(block))
        return _solution(law, tally)
    minimiser = _minimiser(problem, solver)
    for block in blocks:
        tally = tally.add(minimiser.follow(block))
    if len(tally.ends.objectives):
        tally = _improve(minimiser, tally, rng)
    return _solution(law, tally)


def _minimiser(problem: Problem, solver: str) -> Minimiser:
    if solver == "newton_torch":
        if not isinstance(problem.law, SumLaw):
            raise UserError(
                f"solver=newton_torch: fits laws that are sums of powers, and law={problem.law.name} is none; give "
                "solver=newton"
            )
        from shapelaw.fitting.newton_torch import NewtonTorch

        return NewtonTorch(problem)
    if solver != "newton":
        raise UserError(f"solver={solver}: allowed are {', '.join(SOLVERS)}")
    return Newton(problem) if isinstance(problem.law, SumLaw) else GeneralNewton(problem)


def _varpro(problem: Problem, random: int | None, rng: np.random.Generator) -> Iterator[Array]:
    drawn = random_starts(problem.law, RANDOM_STARTS if random is None else random, rng)
    if isinstance(problem.law, SumLaw):
        drawn = np.concatenate([projected_starts(problem, PROJECTED_STARTS), drawn])
    yield drawn


def _improve(minimiser: Minimiser, tally: Tally, rng: np.random.Generator) -> Tally:
    """Polish the distinct ends, then hop away from the best until a round finds nothing lower."""
    tally = tally.polished(minimiser.polish(tally.ends.thetas))
    for _ in range(HOP_ROUNDS):
        best = tally.ends.objectives[0]
        hops = [minimiser.hop(tally.ends.thetas[0], sigma, HOPS, rng) for sigma in HOP_SIGMAS]
        tally = tally.found(minimiser.polish(np.concatenate(hops)))
        if not tally.ends.objectives[0] < best * (1 - SAME) - tally.floor:
            break
    return tally


def _solution(law: Law, tally: Tally) -> Solution:
    ends = tally.ends
    if not len(ends.objectives):
        raise UserError(
            f"none of {tally.n_starts} starts of law {law.name} ended with a finite objective; look for outliers in "
            "the data, take another delta or more starts (grid_size)"
        )
    return Solution(
        theta=ends.thetas[0],
        objective=float(ends.objectives[0]),
        status=STATUSES[int(ends.statuses[0])],
        n_starts=tally.n_starts,
        share_at_best=tally.share_at_best,
        next_basin=tally.next_basin,
        basins=ends.thetas,
    )
