"""Multi-start fits: one call from a law and its data to a solution with its status."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from shapelaw.errors import UserError
from shapelaw.fitting.objective import Problem
from shapelaw.fitting.reference import reference_minimise
from shapelaw.fitting.starts import grid_starts, random_starts
from shapelaw.laws import Columns, Law

Array = NDArray[np.float64]

SOLVERS = ("newton", "newton_torch", "reference")
STARTS = ("varpro", "grid")


class Status(Enum):
    """How the best start ended."""

    converged = "converged"
    max_iter = "max_iter"
    bound_hit = "bound_hit"


@dataclass(frozen=True)
class Solution:
    """The best optimum found and how it was found."""

    theta: Array
    objective: float
    """Sum of Huber_delta over the points."""
    status: Status
    n_starts: int
    share_at_best: float
    """Share of the starts that ended within 1e-6 (relative) of the best objective."""
    next_basin: float | None
    """Objective of the next best optimum, or None if no start ended in another."""
    basins: Array
    """Distinct optima, best first, (k, p): where the bootstrap refits start."""


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
    """Fit a law."""
    problem = Problem.of(law, columns, loss, delta, weights)
    if solver not in SOLVERS:
        raise UserError(f"solver={solver}: allowed are {', '.join(SOLVERS)}")
    if starts not in STARTS:
        raise UserError(f"starts={starts}: allowed are {', '.join(STARTS)}")
    blocks = _blocks(law, starts, grid_size, seed)
    ends = [_minimise(problem, start, solver) for block in blocks for start in block]
    thetas, values = np.array([t for t, _ in ends]), np.array([v for _, v in ends])
    order = np.argsort(values)
    best = values[order[0]]
    near = values <= best * (1 + 1e-6)
    other = values[values > best * (1 + 1e-3)]
    following = float(other.min()) if len(other) else None
    return Solution(
        thetas[order[0]], float(best), Status.converged, len(values), float(near.mean()), following, thetas[order[:3]]
    )


def _blocks(law: Law, starts: str, grid_size: int | None, seed: int) -> Iterator[Array]:
    if starts == "grid":
        yield from grid_starts(law, grid_size)
    else:
        yield random_starts(law, grid_size or 64, np.random.default_rng(seed))


def _minimise(problem: Problem, start: Array, solver: str) -> tuple[Array, float]:
    if solver == "reference":
        run = reference_minimise(problem, start)
        return run.theta, run.objective
    theta = start
    for delta in (1.0, 1e-2, 1e-3, problem.delta):
        stage = Problem(problem.law, problem.columns, problem.log_loss, max(delta, problem.delta), problem.weights)

        def scaled(t: Array, stage: Problem = stage) -> tuple[float, Array]:
            residual = stage.residuals(t)
            slope = -stage.law.jacobian(t, stage.columns).T @ (
                np.clip(residual, -stage.delta, stage.delta) * stage.weights
            )
            return stage.value(t) / stage.delta, slope / stage.delta

        with np.errstate(all="ignore"):
            theta = minimize(scaled, theta, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-14}).x
    return theta, problem.value(theta)
