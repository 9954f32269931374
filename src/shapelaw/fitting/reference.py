"""The authors' way of fitting, kept so that its artefact can be shown beside our results.

scipy's L-BFGS-B with a numerical gradient and default tolerances on the plain objective. The objective shrinks with
delta while the tolerance on the gradient (1e-5) is absolute: at small delta the search stops early and reports success.

Source: described in Gemstones (arXiv 2502.06857), section 4; written from that description.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from shapelaw.fitting.multistart import Endpoints
from shapelaw.fitting.objective import Penalty, Problem
from shapelaw.fitting.solver import Search
from shapelaw.laws import SumLaw

Array = NDArray[np.float64]


class Reference(Search):
    """L-BFGS-B from every start; nothing is polished, and only endpoints that report success count.

    Args:
        problem: the problem to minimise.
        exact: the search that computes its refits and its optima with a fixed statistic.
    """

    refit_note = (
        "refits_by_newton: the intervals come from refits with solver=newton, which does not stop early: they belong "
        "to its optimum, not to the point at which solver=reference stopped"
    )

    def __init__(self, problem: Problem, exact: Search) -> None:
        super().__init__(problem)
        self.exact = exact

    def refit(self, thetas: Array, weights: Array) -> tuple[Array, float]:
        """By the other search."""
        return self.exact.refit(thetas, weights)

    def refits(self, thetas: Array, weights: Array, priors: Sequence[Penalty | None]) -> tuple[Array, Array]:
        """By the other search."""
        return self.exact.refits(thetas, weights, priors)

    def held(self, row: Array, target: float, thetas: Array) -> tuple[Array, float]:
        """By the other search."""
        return self.exact.held(row, target, thetas)

    def value(self, theta: Array) -> float:
        """The objective, computed from the raw columns at every call as in the authors' code (for laws like theirs)."""
        law, problem = self.problem.law, self.problem
        if not isinstance(law, SumLaw) or law.extras or any(len(term.falls) != 1 for term in law.terms):
            return problem.value(theta)
        if any(term.grows or term.fixed for term in law.terms):
            return problem.value(theta)
        k = len(law.terms)
        data = np.stack([problem.columns[name] for term in law.terms for name in term.falls], axis=1)
        parts = theta[:k] - theta[k : 2 * k] * np.log(data)
        if law.irreducible:
            parts = np.concatenate([parts, np.full((len(parts), 1), theta[-1])], axis=1)
        residual = problem.log_loss - scipy.special.logsumexp(parts, axis=-1)
        return float(np.sum(scipy.special.huber(problem.delta, residual) * problem.weights_at(residual)))

    def follow(self, thetas: Array) -> Endpoints:
        """One search per row; an endpoint without success gets an infinite objective, as the authors drop it."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # overflow far from the data is part of what is shown
            runs = [scipy.optimize.minimize(self.value, theta, method="L-BFGS-B") for theta in thetas]
        values = [float(run.fun) if run.success else np.inf for run in runs]
        return Endpoints.of(np.array([run.x for run in runs]), values, [run.success for run in runs])
