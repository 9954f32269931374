"""The same damped Newton for any law that gives its log prediction and its Jacobian.

The second derivatives of the log prediction enter only through sum psi_i d2 log L_hat_i, which is the derivative of
J' psi at fixed psi: one more Jacobian per coordinate and iteration. They are expensive, so only the end of a search computes
them. Until then the curvature is that of Gauss-Newton, the starts descend on a sample of a long table, and starts that end in
the same basin continue as one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy
from numpy.typing import NDArray

from shapelaw.fitting.descent import propose
from shapelaw.fitting.multistart import CONVERGED, MAX_ITER, ROUNDING, Endpoints
from shapelaw.fitting.newton import (
    DOWN_COEFFICIENT,
    EXPONENT_BOUND,
    ITERATIONS,
    ITERATIONS_STAGE,
    POLISHED,
    STEP_EXPONENT,
    UP_COEFFICIENT,
    schedule,
)
from shapelaw.fitting.objective import Problem
from shapelaw.fitting.solver import Search
from shapelaw.laws import LOG_FLOOR, Law

Array = NDArray[np.float64]

DIFFERENCE = 1e-5
"""Step of the differences of the Jacobian."""
LINEAR = 1e-9
"""Relative difference of a prediction from the sum of its parts that counts as rounding."""
ALIVE = 1e-3
"""Least share that a coefficient starts with, because no multiplicative step can raise one that is zero."""
STEP_LOGARITHM = 5.0
"""Largest step of a coefficient's logarithm before the end, when it and an exponent move together along a term."""
FORWARD = 1e-7
"""Step of the differences that replace a Jacobian before the end."""
SAMPLE = 128
"""Rows of the sample on which starts descend first, if the table has at least twice as many."""
ON_THE_WAY = 1e-6
"""Relative decrease at which a descent that will be continued counts as converged."""
ONE_BASIN = 0.05
"""Two descents ended in one basin if their predictions differ by at most this, over the root mean square residual."""
MOST = 5
"""Number of the lowest basins that are continued and polished."""


class GeneralNewton(Search):
    """Search of a problem whose law is known only through its prediction and its Jacobian."""

    improves = True

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        law = problem.law
        self.stacks: bool | None = None
        self.linear = np.array([name in law.log_parameters for name in law.parameters])
        self.low = np.where(self.linear, LOG_FLOOR, -10 * EXPONENT_BOUND)
        self.high = np.where(self.linear, -2 * LOG_FLOOR, 10 * EXPONENT_BOUND)
        self.up = np.where(self.linear, UP_COEFFICIENT, STEP_EXPONENT)
        self.down = np.where(self.linear, DOWN_COEFFICIENT, STEP_EXPONENT)
        self.along = np.where(self.linear, STEP_LOGARITHM, STEP_EXPONENT)

    def follow(self, thetas: Array) -> Endpoints:
        """Continuation in delta from every basin that the starts find by least squares.

        Only the best few of them are continued.
        """
        stages = schedule(self.problem.delta)
        sampled = self._sampled()
        found = sampled._descended(sampled._projected(thetas), float(stages[0, 0]), ITERATIONS_STAGE)
        basins = [basin for basin in sampled._basins(found) if np.isfinite(found.objectives[basin[0]])]
        ends = Endpoints(found.thetas, np.full(len(thetas), np.inf), np.full(len(thetas), MAX_ITER))
        best = np.array([basin[0] for basin in basins[:MOST]], dtype=np.int64)
        after = stages[1:] if len(stages) > 1 else stages
        reached = self._ended(self._continued(found.thetas[best], after), float(stages[-1, 1]))
        for place, basin in enumerate(basins[:MOST]):
            ends.thetas[basin], ends.objectives[basin] = reached.thetas[place], reached.objectives[place]
            ends.statuses[basin] = reached.statuses[place]
        for basin in basins[MOST:]:
            theta = found.thetas[basin[0]]
            ends.thetas[basin], ends.objectives[basin] = theta, self._value(theta, self.problem)
        return ends

    def polish(self, thetas: Array) -> Endpoints:
        """Descend to the target delta, then by Newton to rounding in the best few basins."""
        return self._ended(self._descended(thetas, self.problem.delta, ITERATIONS), POLISHED)

    def _continued(self, thetas: Array, stages: Array) -> Endpoints:
        """Down the schedule, whose last row is at the target delta."""
        for delta, _, most in stages:
            ends = self._descended(thetas, float(delta), int(most))
            thetas = ends.thetas
        return ends

    def _ended(self, ends: Endpoints, tol: float) -> Endpoints:
        """Newton at the target delta in the best few basins."""
        for basin in self._basins(ends)[:MOST]:
            with np.errstate(all="ignore"):
                end = self._descend(ends.thetas[basin[0]], self.problem.delta, tol, ITERATIONS)
            ends.thetas[basin], ends.objectives[basin], ends.statuses[basin] = end
        return Endpoints(ends.thetas, np.where(np.isfinite(ends.objectives), ends.objectives, np.inf), ends.statuses)

    def _descended(self, thetas: Array, delta: float, most: int) -> Endpoints:
        """The endpoints of Gauss-Newton from every row."""
        moved = np.array(thetas, dtype=np.float64)
        values, statuses = np.empty(len(moved)), np.empty(len(moved), np.int64)
        with np.errstate(all="ignore"):
            for i in range(len(moved)):
                moved[i], values[i], statuses[i] = self._descend(moved[i], delta, ON_THE_WAY, most, gauss_newton=True)
        return Endpoints(moved, np.where(np.isfinite(values), values, np.inf), statuses)

    def _basins(self, ends: Endpoints) -> list[list[int]]:
        """Indices of the rows in each basin, best first; the best basin comes first."""
        basins: list[list[int]] = []
        predicted: list[Array] = []
        weights = self.problem.weights / self.problem.weights.sum()
        for place in np.argsort(ends.objectives, kind="stable").tolist():
            with np.errstate(all="ignore"):
                residual = self.problem.residuals(ends.thetas[place])
            scale = ONE_BASIN * np.sqrt(weights @ residual**2) + 1e-12
            same = (k for k, other in enumerate(predicted) if np.sqrt(weights @ (residual - other) ** 2) <= scale)
            k = next(same, None)
            if k is None:
                basins.append([place])
                predicted.append(residual)
            else:
                basins[k].append(place)
        return basins

    def _projected(self, thetas: Array) -> Array:
        """The starts with the best coefficients for their exponents, if the prediction is linear in all of them."""
        with np.errstate(all="ignore"):
            return np.array([self._with_best_coefficients(theta) for theta in thetas])

    def _with_best_coefficients(self, theta: Array) -> Array:
        places = np.flatnonzero(self.linear)
        parts = np.array([self._alone(theta, int(place)) for place in places]).reshape(len(places), -1)
        predicted = np.exp(self.problem.law.log_prediction(theta, self.problem.columns))
        total = np.exp(theta[places]) @ parts
        if not len(places) or not np.isfinite(parts).all() or not np.allclose(total, predicted, rtol=LINEAR, atol=0.0):
            return theta
        shares = (parts / self.problem.loss * np.sqrt(self.problem.weights)).T
        sizes = np.maximum(np.linalg.norm(shares, axis=0), 1e-300)
        best, _ = scipy.optimize.nnls(shares / sizes, np.sqrt(self.problem.weights))
        alive = np.maximum(best, ALIVE * np.linalg.norm(best)) / sizes
        moved = np.array(theta)
        moved[places] = np.log(np.maximum(alive, 1e-300))
        return moved

    def _alone(self, theta: Array, place: int) -> Array:
        """The prediction of one coefficient of 1 alone."""
        alone = np.where(self.linear, LOG_FLOOR, theta)
        alone[place] = 0.0
        return np.asarray(np.exp(self.problem.law.log_prediction(alone, self.problem.columns)))

    def _sampled(self) -> GeneralNewton:
        """The same search on a sample of a long table."""
        used = np.flatnonzero(self.problem.weights > 0)
        if len(used) < 2 * SAMPLE:
            return self
        rows = np.sort(np.random.default_rng(0).choice(used, SAMPLE, replace=False))
        columns = {name: np.asarray(values)[rows] for name, values in self.problem.columns.items()}
        problem = replace(
            self.problem, columns=columns, log_loss=self.problem.log_loss[rows], weights=self.problem.weights[rows]
        )
        return GeneralNewton(problem)

    @staticmethod
    def _value(theta: Array, problem: Problem) -> float:
        value = problem.value(theta)
        return value if np.isfinite(value) else np.inf

    def _slopes(self, theta: Array, residual: Array) -> Array:
        """Jacobian of the log prediction, by forward differences if the law defines none."""
        law, columns = self.problem.law, self.problem.columns
        if type(law).jacobian is not Law.jacobian:
            return law.jacobian(theta, columns)
        steps = FORWARD * np.maximum(1.0, np.abs(theta))
        return ((self._predictions(theta + np.diag(steps)) - (self.problem.log_loss - residual)) / steps[:, None]).T

    def _predictions(self, thetas: Array) -> Array:
        """Log predictions of several vectors, (t, n), in one call if the law's formula takes entries of shape (t, 1).

        Whether it does is found out once, by comparing with one call per vector; an exception means that it does not.
        """
        law, columns = self.problem.law, self.problem.columns
        if self.stacks is None:
            each = law.log_predictions(thetas, columns)
            try:
                self.stacks = np.allclose(
                    law.log_prediction(thetas.T[:, :, None], columns), each, rtol=LINEAR, atol=0.0
                )
            except Exception:
                self.stacks = False
            return each
        if self.stacks:
            return law.log_prediction(thetas.T[:, :, None], columns)
        return law.log_predictions(thetas, columns)

    def _derivatives(self, theta: Array, problem: Problem, gauss_newton: bool = False) -> tuple[Array, Array, Array]:
        """Gradient, Hessian (linear coordinates without their gradient) and the damping matrix, which is the Gauss-Newton
        Hessian."""
        law, columns = problem.law, problem.columns
        residual = problem.residuals(theta)
        jacobian = self._slopes(theta, residual) if gauss_newton else law.jacobian(theta, columns)
        psi = problem.slopes(residual)
        g = -jacobian.T @ psi
        gauss = (jacobian * problem.damping(residual)[:, None]).T @ jacobian
        if gauss_newton:
            return g, gauss, gauss
        hessian = (
            jacobian * (problem.weights_at(residual) * (np.abs(residual) <= problem.delta))[:, None]
        ).T @ jacobian
        for k in range(len(theta)):
            step = np.zeros_like(theta)
            step[k] = DIFFERENCE
            hessian[k] -= (law.jacobian(theta + step, columns) - jacobian).T @ psi / DIFFERENCE
        hessian = (hessian + hessian.T) / 2 - np.diag(np.where(self.linear, g, 0.0))
        return g, hessian, gauss

    def _descend(
        self, theta: Array, delta: float, tol: float, most: int, gauss_newton: bool = False
    ) -> tuple[Array, float, int]:
        """The rules of `descent.descend`; a step to a point where the law is not finite counts as no progress."""
        problem = self.problem.at(delta)
        value = self._value(theta, problem)
        if not np.isfinite(value):
            return theta, np.inf, MAX_ITER
        floor = ROUNDING * problem.weights.sum()
        lam, grow, small = 1e-2, 2.0, 0
        size = len(theta)
        g, hessian, gauss = self._derivatives(theta, problem, gauss_newton)
        step, scratch = np.empty(size), np.empty((2 * size + 3, size))
        for _ in range(most):
            if value <= floor:
                return theta, value, CONVERGED
            if not np.isfinite(hessian).all():
                return theta, value, MAX_ITER
            most_up, most_down = (self.along, self.along) if gauss_newton else (self.up, self.down)
            up, down = np.where(theta < self.high, most_up, 0.0), np.where(theta > self.low, most_down, 0.0)
            clipped, modified = propose(g, hessian, gauss, lam, up, down, scratch, step)
            linear = self.linear & (not gauss_newton)
            change = np.where(linear, np.log1p(np.maximum(step, -0.999)), step)
            moved = np.clip(theta + change, self.low, self.high)
            trial = self._value(moved, problem)
            if trial < value:
                promised = -(g @ step + 0.5 * step @ hessian @ step)
                gain = (value - trial) / promised if promised > 0 else 0.0
                small = small + 1 if (value - trial) / value <= tol else 0
                sure = lam < 1e-3 and not clipped and not modified
                lam, grow = lam / 5 if gain > 0.75 else lam * 2 if gain < 0.25 else lam / 2.5, 2.0
                theta, value = moved, trial
                if (small and sure) or small >= 3:
                    return theta, value, CONVERGED
                g, hessian, gauss = self._derivatives(theta, problem, gauss_newton)
            elif abs(g @ step) <= 1e-15 * value or lam > 1e15:
                return theta, value, CONVERGED
            else:
                lam, grow = max(grow * lam, 1e-3), grow * 2
        return theta, value, MAX_ITER
