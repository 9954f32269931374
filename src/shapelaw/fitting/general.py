"""The same damped Newton for any law that gives its log prediction and its Jacobian.

The second derivatives of the log prediction enter only through sum psi_i d2 log L_hat_i, which is the derivative of
J' psi at fixed psi: one more Jacobian per coordinate and iteration.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting.descent import propose
from shapelaw.fitting.multistart import CONVERGED, MAX_ITER, ROUNDING, Endpoints
from shapelaw.fitting.newton import (
    DOWN_COEFFICIENT,
    EXPONENT_BOUND,
    ITERATIONS,
    POLISHED,
    STEP_EXPONENT,
    UP_COEFFICIENT,
    schedule,
)
from shapelaw.fitting.objective import Problem, huber
from shapelaw.fitting.solver import Search
from shapelaw.laws import LOG_FLOOR

Array = NDArray[np.float64]

DIFFERENCE = 1e-5
"""Step of the differences of the Jacobian."""


class GeneralNewton(Search):
    """Search of a problem whose law is known only through its prediction and its Jacobian."""

    improves = True

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        law = problem.law
        self.linear = np.array([name in law.log_parameters for name in law.parameters])
        self.low = np.where(self.linear, LOG_FLOOR, -10 * EXPONENT_BOUND)
        self.high = np.where(self.linear, -2 * LOG_FLOOR, 10 * EXPONENT_BOUND)
        self.up = np.where(self.linear, UP_COEFFICIENT, STEP_EXPONENT)
        self.down = np.where(self.linear, DOWN_COEFFICIENT, STEP_EXPONENT)

    def follow(self, thetas: Array) -> Endpoints:
        """Continuation in delta from every row."""
        return self._run(thetas, schedule(self.problem.delta))

    def polish(self, thetas: Array) -> Endpoints:
        """Newton at the target delta alone, to rounding."""
        return self._run(thetas, np.array([[self.problem.delta, POLISHED, ITERATIONS]]))

    def _run(self, thetas: Array, stages: Array) -> Endpoints:
        moved = np.array(thetas, dtype=np.float64)
        values, statuses = np.empty(len(moved)), np.empty(len(moved), np.int64)
        with np.errstate(all="ignore"):
            for i in range(len(moved)):
                for delta, tol, most in stages:
                    moved[i], values[i], statuses[i] = self._descend(moved[i], delta, tol, int(most))
        return Endpoints(moved, np.where(np.isfinite(values), values, np.inf), statuses)

    def _value(self, theta: Array, delta: float) -> float:
        value = float(np.sum(huber(self.problem.residuals(theta), delta) * self.problem.weights))
        return value if np.isfinite(value) else np.inf

    def _derivatives(self, theta: Array, delta: float) -> tuple[Array, Array, Array]:
        """Gradient, Hessian (linear coordinates without their gradient) and the damping matrix."""
        law, columns, weights = self.problem.law, self.problem.columns, self.problem.weights
        residual = self.problem.residuals(theta)
        jacobian = law.jacobian(theta, columns)
        psi = np.clip(residual, -delta, delta) * weights
        size = np.maximum(np.abs(residual), 1e-300)
        g = -jacobian.T @ psi
        hessian = (jacobian * (weights * (size <= delta))[:, None]).T @ jacobian
        for k in range(len(theta)):
            step = np.zeros_like(theta)
            step[k] = DIFFERENCE
            hessian[k] -= (law.jacobian(theta + step, columns) - jacobian).T @ psi / DIFFERENCE
        hessian = (hessian + hessian.T) / 2 - np.diag(np.where(self.linear, g, 0.0))
        gauss = (jacobian * (weights * np.minimum(1.0, delta / size))[:, None]).T @ jacobian
        return g, hessian, gauss

    def _descend(self, theta: Array, delta: float, tol: float, most: int) -> tuple[Array, float, int]:
        """The rules of `descent.descend`; a step to where the law is not finite counts as no progress."""
        value = self._value(theta, delta)
        if not np.isfinite(value):
            return theta, np.inf, MAX_ITER
        floor = ROUNDING * self.problem.weights.sum()
        lam, grow, small = 1e-2, 2.0, 0
        size = len(theta)
        g, hessian, gauss = self._derivatives(theta, delta)
        step, scratch = np.empty(size), np.empty((2 * size + 3, size))
        for _ in range(most):
            if value <= floor:
                return theta, value, CONVERGED
            if not np.isfinite(hessian).all():
                return theta, value, MAX_ITER
            up, down = np.where(theta < self.high, self.up, 0.0), np.where(theta > self.low, self.down, 0.0)
            clipped, modified = propose(g, hessian, gauss, lam, up, down, scratch, step)
            change = np.where(self.linear, np.log1p(np.maximum(step, -0.999)), step)
            moved = np.clip(theta + change, self.low, self.high)
            trial = self._value(moved, delta)
            if trial < value:
                promised = -(g @ step + 0.5 * step @ hessian @ step)
                gain = (value - trial) / promised if promised > 0 else 0.0
                small = small + 1 if (value - trial) / value <= tol else 0
                sure = lam < 1e-3 and not clipped and not modified
                lam, grow = lam / 5 if gain > 0.75 else lam * 2 if gain < 0.25 else lam / 2.5, 2.0
                theta, value = moved, trial
                if (small and sure) or small >= 3:
                    return theta, value, CONVERGED
                g, hessian, gauss = self._derivatives(theta, delta)
            elif abs(g @ step) <= 1e-15 * value or lam > 1e15:
                return theta, value, CONVERGED
            else:
                lam, grow = max(grow * lam, 1e-3), grow * 2
        return theta, value, MAX_ITER
