"""The solvers by name: `newton`, `newton_torch`, `reference`; and the choice of a solver for a problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from shapelaw.errors import UserError
from shapelaw.fitting.fixed import FixedSearch
from shapelaw.fitting.general import GeneralNewton
from shapelaw.fitting.multistart import Endpoints
from shapelaw.fitting.newton import Newton
from shapelaw.fitting.newton_torch import NewtonTorch
from shapelaw.fitting.objective import Problem
from shapelaw.fitting.reference import Reference
from shapelaw.fitting.solver import Array, OwnSearch, Search, Solver
from shapelaw.laws import Law
from shapelaw.laws.choices import MedianLaw
from shapelaw.laws.fixed import FixedLaw, sum_of


@dataclass(frozen=True)
class BuiltIn:
    """A solver with its own ways to polish, to refit and to hold a statistic.

    Args:
        name: its name in results.
        gradient: how it computes the gradient, for the record.
        search: problem -> the solver at work on it.
    """

    name: str
    gradient: str
    search: Callable[[Problem], Search]

    def minimise(self, problem: Problem, starts: Array) -> Endpoints:
        """Descend from every row of starts."""
        return self.search(problem).follow(starts)


def newton(problem: Problem) -> Search:
    """Damped Newton: compiled for laws that are sums of powers, in numpy for all others."""
    if sum_of(problem.law) is None:
        return GeneralNewton(problem)
    return FixedSearch(problem, Newton) if isinstance(problem.law, FixedLaw) else Newton(problem)


def _newton_torch(problem: Problem) -> Search:
    if sum_of(problem.law) is None:
        raise UserError(
            f"solver=newton_torch: fits only laws that are sums of powers, and law={problem.law.name} is not; give "
            "solver=newton"
        )
    return FixedSearch(problem, NewtonTorch) if isinstance(problem.law, FixedLaw) else NewtonTorch(problem)


def _reference(problem: Problem) -> Search:
    return Reference(problem, newton(problem))


ANALYTIC = "analytic, with the Hessian"
SOLVERS: dict[str, Solver] = {
    "newton": BuiltIn("newton", ANALYTIC, newton),
    "newton_torch": BuiltIn("newton_torch", ANALYTIC, _newton_torch),
    "reference": BuiltIn("reference", "forward differences", _reference),
}
"""Every solver that has a name; add your own here to select it by name."""


def get_solver(solver: str | Solver) -> Solver:
    """A solver by its name; an object is returned unchanged.

    Raises:
        UserError: for an unknown name, or an object without `name` and `minimise`.
    """
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise UserError(f"solver={solver}: allowed values are {', '.join(SOLVERS)}")
        return SOLVERS[solver]
    if not callable(getattr(solver, "minimise", None)) or not isinstance(getattr(solver, "name", None), str):
        raise UserError(
            f"solver={solver!r}: your own solver must be an object with a name and minimise(problem, starts); allowed "
            f"names are {', '.join(SOLVERS)}"
        )
    return solver


class MedianSearch(Search):
    """A median of laws. Each member is searched alone: the goal is the median of good fits, not the best-fitting median."""

    improves = True

    def __init__(self, solver: Solver, problem: Problem) -> None:
        super().__init__(problem)
        assert isinstance(problem.law, MedianLaw)
        self.members = [
            search_of(solver, replace(problem, law=law, columns=_read(law, problem))) for law in problem.law.laws
        ]

    def follow(self, thetas: Array) -> Endpoints:
        """Each member from its own part of every row."""
        return self._joined(
            [member.follow(part) for member, part in zip(self.members, self._parts(thetas), strict=True)]
        )

    def polish(self, thetas: Array) -> Endpoints:
        """Each member's own optimum, polished."""
        return self._joined(
            [member.polish(part) for member, part in zip(self.members, self._parts(thetas), strict=True)]
        )

    def refit(self, thetas: Array, weights: Array) -> tuple[Array, float]:
        """Each member's own refit at other multiplicities; the objective is that of the median."""
        parts = zip(self.members, self._parts(thetas), strict=True)
        theta = np.concatenate([member.refit(part, weights)[0] for member, part in parts])
        return theta, self.problem.with_weights(weights).value(theta)

    def _parts(self, thetas: Array) -> list[Array]:
        assert isinstance(self.problem.law, MedianLaw)
        return self.problem.law.parts(thetas)

    def _joined(self, ends: list[Endpoints]) -> Endpoints:
        thetas = np.concatenate([one.thetas for one in ends], axis=1)
        statuses = np.max([one.statuses for one in ends], axis=0)
        return Endpoints(thetas, np.array([self.problem.value(theta) for theta in thetas]), statuses)


def _read(law: Law, problem: Problem) -> dict[str, Array]:
    return {name: problem.columns[name] for name in law.predictors}


def search_of(solver: Solver, problem: Problem) -> Search:
    """The solver at work on a problem."""
    if isinstance(problem.law, MedianLaw):
        return MedianSearch(solver, problem)
    return solver.search(problem) if isinstance(solver, BuiltIn) else OwnSearch(solver, problem)
