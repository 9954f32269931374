"""Stage S: the learning curve in adjusted steps, with the converged losses fixed.

L = floor(N) + (S_c/S_min)^alpha_S with S_min = S / (1 + B_crit(L)/B) for every row, by Huber's function of the log residual.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting.general import GeneralNewton
from shapelaw.fitting.objective import Problem
from shapelaw.laws import Columns, Law

Array = NDArray[np.float64]

STARTS = ((3.0, 0.3), (3.0, 0.7), (6.0, 0.3), (6.0, 0.7), (8.0, 1.0))
"""ln S_c and alpha_S if no earlier stage gives them."""


class AdjustedCurve(Law):
    """L = floor + (S_c/steps_min)^alpha_S with a floor known for every row."""

    name = "adjusted_curve"
    formula = "L = floor + (S_c/S_min)^alpha_S"
    source = "Su et al. 2024 (arXiv 2403.06563), section 3"
    predictors = ("floor", "steps_min")
    parameters = ("S_c", "alpha_S")
    log_parameters = frozenset({"S_c"})
    exponents = ("alpha_S",)

    def log_prediction(self, theta: Array, columns: Columns) -> Array:
        """Log of the loss, (n,)."""
        return np.asarray(np.log(np.asarray(columns["floor"]) + self._term(theta, columns)))

    def jacobian(self, theta: Array, columns: Columns) -> Array:
        """Derivative of the log prediction by ln S_c and alpha_S, (n, 2)."""
        term = self._term(theta, columns)
        share = term / (np.asarray(columns["floor"]) + term)
        log_ratio = theta[0] - np.log(np.asarray(columns["steps_min"]))
        return np.stack([share * theta[1], share * log_ratio], axis=1)

    def _term(self, theta: Array, columns: Columns) -> Array:
        return np.asarray(np.exp(theta[1] * (theta[0] - np.log(np.asarray(columns["steps_min"])))))


@dataclass(frozen=True)
class Adjusted:
    """The stage's result: ln S_c, alpha_S and the objective over its rows."""

    log_s_c: float
    alpha_s: float
    objective: float


ADJUSTED_CURVE = AdjustedCurve()


def fit_adjusted(
    floors: Array, log_steps_min: Array, loss: Array, weights: Array, delta: float, start: tuple[float, float] | None
) -> Adjusted:
    """The stage at multiplicities of the rows.

    Args:
        floors: converged loss of each row's size, (n,).
        log_steps_min, loss, weights: values of each row, (n,).
        delta: where Huber's function becomes linear, in log loss.
        start: ln S_c and alpha_S to polish from; None searches.
    """
    columns = {"floor": floors, "steps_min": np.exp(log_steps_min)}
    problem = Problem(ADJUSTED_CURVE, columns, np.log(loss), delta, weights)
    solver = GeneralNewton(problem)
    endpoints = solver.follow(np.array(STARTS)) if start is None else solver.polish(np.array([start]))
    theta, objective = endpoints.best
    return Adjusted(float(theta[0]), float(theta[1]), objective)
