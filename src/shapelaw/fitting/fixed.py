"""The solvers of sum laws with fixed parameters: in the law's own coordinates, on the plane of the free ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting.multistart import Endpoints
from shapelaw.fitting.newton import Newton
from shapelaw.fitting.objective import Penalty, Problem
from shapelaw.fitting.solver import Search
from shapelaw.laws import Law
from shapelaw.laws.fixed import FixedLaw

Array = NDArray[np.float64]


class FixedSearch(Search):
    """A compiled search on the plane of the free parameters of a `FixedLaw`.

    Args:
        problem: problem of the fixed law.
        kind: the search, `Newton` or a subclass.
    """

    improves = True

    def __init__(self, problem: Problem, kind: type[Newton]) -> None:
        super().__init__(problem)
        self.kind, self.law = kind, _fixed(problem.law)
        inner = kind(whole_problem(problem))
        for row, target in zip(self.law.rows, self.law.targets, strict=True):
            inner = inner.constrained(row, float(target))
        self.inner = inner

    def on(self, problem: Problem) -> Search:
        """The same search on another problem."""
        return FixedSearch(problem, self.kind)

    def follow(self, thetas: Array) -> Endpoints:
        """Descend from every row of free entries."""
        return self._reduced(self.inner.follow(self.law.expand(thetas)))

    def polish(self, thetas: Array) -> Endpoints:
        """Newton at the target delta alone."""
        return self._reduced(self.inner.polish(self.law.expand(thetas)))

    def hop(self, theta: Array, sigma: float, count: int, rng: np.random.Generator) -> Array:
        """Random neighbours in the free entries."""
        return self.law.reduce(self.inner.hop(self.law.expand(theta), sigma, count, rng))

    def refit(self, thetas: Array, weights: Array) -> tuple[Array, float]:
        """Best optimum at other multiplicities."""
        theta, objective = self.inner.refit(self.law.expand(thetas), weights)
        return self.law.reduce(theta), objective

    def refits(self, thetas: Array, weights: Array, priors: Sequence[Penalty | None]) -> tuple[Array, Array]:
        """Many refits in one compiled loop."""
        whole = [whole_problem(self.problem.with_prior(prior)).prior for prior in priors]
        found, objectives = self.inner.refits(self.law.expand(thetas), weights, whole)
        return self.law.reduce(found), objectives

    def held(self, row: Array, target: float, thetas: Array) -> tuple[Array, float]:
        """Best optimum with one more constraint, row @ free entries == target."""
        full = np.zeros(len(self.law.law.parameters))
        full[self.law.free] = row
        held = self.inner.constrained(full, target)
        theta, objective = held.refit(self.law.expand(thetas), self.problem.weights)
        return self.law.reduce(theta), objective

    def _reduced(self, ends: Endpoints) -> Endpoints:
        return replace(ends, thetas=self.law.reduce(ends.thetas))


def whole_problem(problem: Problem) -> Problem:
    """The problem of the law with all parameters free; its priors ignore the fixed ones."""
    law = problem.law
    if not isinstance(law, FixedLaw):
        return problem
    if problem.prior is None:
        return replace(problem, law=law.law)
    centre, precision = np.zeros(len(law.law.parameters)), np.zeros(len(law.law.parameters))
    centre[law.free], precision[law.free] = problem.prior
    return replace(problem, law=law.law, prior=Penalty(centre, precision))


def _fixed(law: Law) -> FixedLaw:
    assert isinstance(law, FixedLaw)
    return law
