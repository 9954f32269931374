"""The authors' way of fitting, kept so that its artefact can be shown beside ours.

scipy's L-BFGS-B with a numerical gradient and default tolerances on the plain objective. The objective shrinks with
delta while the tolerance on the gradient (1e-5) is absolute: at small delta the search stops early and says success.

Source: described in Gemstones (arXiv 2502.06857), section 4; written from that description.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import huber, logsumexp

from shapelaw.fitting.descent import CONVERGED, MAX_ITER
from shapelaw.fitting.objective import Problem
from shapelaw.fitting.tally import Ends
from shapelaw.laws import SumLaw

Array = NDArray[np.float64]


class Reference:
    """L-BFGS-B from every start; nothing is polished, and only ends that report success count."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def value(self, theta: Array) -> float:
        """The objective, computed from the raw columns at every call as the authors do (laws of their kind)."""
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
        residual = problem.log_loss - logsumexp(parts, axis=-1)
        return float(np.sum(huber(problem.delta, residual) * problem.weights))

    def follow(self, thetas: Array) -> Ends:
        """One search per row; an end without success gets an infinite objective, as the authors leave it out."""
        found = []
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # overflow far from the data is part of what is shown
            found = [minimize(self.value, theta, method="L-BFGS-B") for theta in thetas]
        ends = np.array([run.x for run in found]).reshape(len(thetas), -1)
        values = np.array([float(run.fun) if run.success else np.inf for run in found])
        return Ends(ends, values, np.array([CONVERGED if run.success else MAX_ITER for run in found], dtype=np.int64))
