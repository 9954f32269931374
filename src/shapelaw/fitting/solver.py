"""The interface of a solver, and the tasks that any solver can do: refits at other weights, and optima on a hyperplane."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting.multistart import Endpoints
from shapelaw.fitting.objective import Penalty, Problem
from shapelaw.fitting.restricted import RestrictedLaw

Array = NDArray[np.float64]


class Solver(Protocol):
    """A way to minimise the objective of a problem. Your own solver is an object with a name and this one method:

        class NelderMead:
            name = "nelder_mead"

            def minimise(self, problem, starts):
                runs = [scipy.optimize.minimize(problem.value, start, method="Nelder-Mead") for start in starts]
                return Endpoints.of([run.x for run in runs], [run.fun for run in runs], [run.success for run in runs])

        fit(runs, solver=NelderMead(), starts="grid", grid_size=8)

    `problem.value(theta)` is the objective, `problem.residuals(theta)` the log residuals, `problem.law.jacobian(theta,
    problem.columns)` the derivative of the log prediction.
    """

    @property
    def name(self) -> str:
        """Its name in results."""

    def minimise(self, problem: Problem, starts: Array) -> Endpoints:
        """Descend from every row of starts, (S, p)."""


class Search(ABC):
    """A solver at work on one problem: the methods that fits, refits and profiles call.

    Only `follow` has no default; a solver with better ways overrides the others (see `solvers.BuiltIn`).
    """

    improves = False
    """Whether it polishes optima and then leaves them by random hops."""
    refit_note = ""
    """What a reader of its refits must know, as `code: sentence`."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @abstractmethod
    def follow(self, thetas: Array) -> Endpoints:
        """Descend from every row of thetas."""

    def on(self, problem: Problem) -> Search:
        """The same solver at work on another problem."""
        return type(self)(problem)

    def measuring(self, log_loss: Array, prior: Penalty | None) -> Search:
        """The same solver for the same rows with other log losses, (n,), and another prior to break ties."""
        return self.on(replace(self.problem, log_loss=log_loss, prior=prior))

    def polish(self, thetas: Array) -> Endpoints:
        """Descend from near an optimum, to rounding."""
        return self.follow(thetas)

    def hop(self, theta: Array, sigma: float, count: int, rng: np.random.Generator) -> Array:
        """`count` random neighbours of theta; along each direction of the Jacobian a move changes the log loss by at most
        sigma, so that correlated coordinates move together."""
        jacobian = self.problem.law.jacobian(theta, self.problem.columns)
        _, scales, directions = np.linalg.svd(jacobian / np.sqrt(len(jacobian)), full_matrices=False)
        moves = rng.standard_normal((count, len(scales))) * (sigma / np.maximum(scales, 0.1))
        return np.asarray(theta + moves @ directions)

    def refit(self, thetas: Array, weights: Array) -> tuple[Array, float]:
        """Best optimum at other multiplicities of the points, (n,), from every row of thetas: (theta, objective)."""
        return self.on(self.problem.with_weights(np.asarray(weights, dtype=np.float64))).polish(thetas).best

    def refits(self, thetas: Array, weights: Array, priors: Sequence[Penalty | None]) -> tuple[Array, Array]:
        """Best optimum at each row of multiplicities, (R, n), with its prior: (thetas (R, p), objectives (R,))."""
        found = []
        for row, prior in zip(weights, priors, strict=True):
            same = prior is self.problem.prior
            found.append((self if same else self.measuring(self.problem.log_loss, prior)).refit(thetas, row))
        return np.array([theta for theta, _ in found]), np.array([objective for _, objective in found])

    def held(self, row: Array, target: float, thetas: Array) -> tuple[Array, float]:
        """Best optimum with row @ theta == target, from every row of thetas: (theta, objective)."""
        law = RestrictedLaw(self.problem.law, row, target)
        reduced, objective = self.on(replace(self.problem, law=law)).polish(law.reduce(thetas)).best
        return law.expand(reduced), objective


class OwnSearch(Search):
    """A solver that defines only `minimise`, on one problem."""

    def __init__(self, solver: Solver, problem: Problem) -> None:
        super().__init__(problem)
        self.solver = solver

    def on(self, problem: Problem) -> OwnSearch:
        """The same solver on another problem."""
        return OwnSearch(self.solver, problem)

    def follow(self, thetas: Array) -> Endpoints:
        """Its own descent."""
        return self.solver.minimise(self.problem, thetas)
