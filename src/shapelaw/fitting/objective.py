"""The objective of every parametric fit and the checks of its input.

    f(theta) = sum_i w_i c(r_i) Huber_delta(r_i),   r_i = log L_i - log L_hat(x_i; theta)

    Huber_delta(r) = r^2/2 for |r| <= delta, delta * (|r| - delta/2) beyond
    c(r) = over_cost for r < 0, where the law predicts too high a loss; 1 elsewhere

The two sides meet at r = 0 in value and slope, so the first derivative of f is continuous for every over_cost.

Source: Hoffmann et al. 2022 (arXiv 2203.15556), section 3.3; Gemstones (arXiv 2502.06857), section 4. It is a sum, not
a mean, so objectives of data sets of different sizes cannot be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shapelaw.config import FitConfig
from shapelaw.config.option import check_option
from shapelaw.errors import UserError
from shapelaw.laws import Columns, Law

Array = NDArray[np.float64]


def check_delta(delta: float) -> float:
    """`delta`, if it is valid for Huber's function.

    Raises:
        UserError: if it is not finite, or below the rounding of losses.
    """
    return check_option(FitConfig, "delta", delta)


def check_over_cost(over_cost: float) -> float:
    """`over_cost`, if it is valid as the cost of an overestimate.

    Raises:
        UserError: if it is out of range.
    """
    return check_option(FitConfig, "over_cost", over_cost)


def huber(residual: ArrayLike, delta: float) -> Array:
    """Huber's function of a residual in units of log loss: quadratic up to delta, linear beyond."""
    size = np.abs(np.asarray(residual, dtype=np.float64))
    return np.asarray(np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta)))


def costs(residual: Array, over_cost: float) -> Array:
    """c(r): over_cost where the law predicts too high a loss, 1 elsewhere."""
    return np.where(residual < 0, over_cost, 1.0)


def objective(
    law: Law,
    theta: ArrayLike,
    columns: Columns,
    loss: ArrayLike,
    delta: float = 1e-4,
    weights: ArrayLike | None = None,
    over_cost: float = 1.0,
) -> float:
    """Sum of c Huber_delta(log L - log L_hat) over the points, optionally weighted.

    Args:
        theta: the law's vector (`law.theta(parameters)`).
        columns: canonical column name -> values, shape (n,).
        loss: measured loss in nats per token, shape (n,).
        delta: where Huber's function becomes linear, in units of log loss.
        weights: multiplicity of each point, shape (n,).
        over_cost: cost of an overestimate; that of an underestimate is 1.
    """
    residual = np.log(np.asarray(loss, dtype=np.float64)) - law.log_prediction(np.asarray(theta, np.float64), columns)
    each = huber(residual, delta) * costs(residual, over_cost)
    return float(np.sum(each if weights is None else each * np.asarray(weights, dtype=np.float64)))


class Penalty(NamedTuple):
    """sum over the entries of theta of precision * (theta - centre)^2 / 2, added to the objective that a search minimises."""

    centre: Array
    """(p,)"""
    precision: Array
    """(p,), in units of the objective; 0 without a prior."""


@dataclass(frozen=True)
class Problem:
    """A checked fit: a law, its data and the objective's constants."""

    law: Law
    columns: Mapping[str, Array]
    """The law's predictors, each (n,)."""
    log_loss: Array
    delta: float
    weights: Array
    """Multiplicity of each point, (n,)."""
    prior: Penalty | None = None
    """The prior that breaks ties between parameters that fit equally well; None if none is needed."""
    over_cost: float = 1.0
    """Cost of an overestimate; that of an underestimate is 1."""

    @classmethod
    def of(
        cls,
        law: Law,
        columns: Columns,
        loss: ArrayLike,
        delta: float = 1e-4,
        weights: ArrayLike | None = None,
        over_cost: float = 1.0,
    ) -> Problem:
        """Check everything that would otherwise fail, or mislead, during the fit.

        Raises:
            UserError: for a delta or over_cost out of range, missing columns, values that are not positive and finite, fewer
                points than parameters, or a predictor with a single distinct value.
        """
        check_delta(delta)
        check_over_cost(over_cost)
        missing = [name for name in law.predictors if name not in columns]
        if missing:
            raise UserError(f"law {law.name} reads the columns {', '.join(law.predictors)}; missing: {missing}")
        losses = _positive(law.target, loss)
        predictors = {
            name: np.asarray(columns[name], dtype=np.float64)
            if name in law.histories
            else _positive(name, columns[name], name in law.free_predictors)
            for name in law.predictors
        }
        lengths = {name: len(values) for name, values in predictors.items()} | {"measured": len(losses)}
        if len(set(lengths.values())) > 1:
            raise UserError(f"columns of different lengths: {lengths}; give one value per point in each")
        weighed = _weights(weights, len(losses))
        problem = cls(law, predictors, np.log(losses), float(delta), weighed, over_cost=float(over_cost))
        problem._check_size()
        return problem

    def _check_size(self) -> None:
        used = self.weights > 0
        points, needed = int(used.sum()), len(self.law.parameters)
        if points < needed:
            raise UserError(
                f"{points} points for the {needed} parameters of law {self.law.name}; give at least {needed} points, "
                "or choose a law with fewer parameters"
            )
        for name, values in self.columns.items():
            if name not in self.law.free_predictors | self.law.histories and len(np.unique(values[used])) < 2:
                raise UserError(
                    f"column {name} has the single value {values[0]:g}, so the term of {name} in law {self.law.name} "
                    f"cannot be told from the constant; add points with another {name}, or choose a law without it"
                )

    @property
    def loss(self) -> Array:
        """Measured loss in nats per token."""
        return np.exp(self.log_loss)

    def with_prior(self, prior: Penalty | None) -> Problem:
        """The same data with another prior."""
        return replace(self, prior=prior)

    def with_weights(self, weights: Array) -> Problem:
        """The same data with other weights (not checked again)."""
        return replace(self, weights=weights)

    def residuals(self, theta: ArrayLike) -> Array:
        """log L - log L_hat, shape (n,)."""
        return self.log_loss - self.law.log_prediction(np.asarray(theta, dtype=np.float64), self.columns)

    def value(self, theta: ArrayLike) -> float:
        """The objective at theta."""
        residual = self.residuals(theta)
        return float(np.sum(huber(residual, self.delta) * self.weights_at(residual)))

    def weights_at(self, residual: Array) -> Array:
        """How much each row counts at these residuals, (n,): its weight times its cost."""
        return self.weights if self.over_cost == 1.0 else self.weights * costs(residual, self.over_cost)

    def slopes(self, residual: Array) -> Array:
        """Derivative of each row's part of the objective by its residual, (n,)."""
        return self.weights_at(residual) * np.clip(residual, -self.delta, self.delta)

    def damping(self, residual: Array) -> Array:
        """How much each row counts in the Gauss-Newton curvature, (n,): less where Huber's function is linear."""
        return self.weights_at(residual) * np.minimum(1.0, self.delta / np.maximum(np.abs(residual), 1e-300))

    def at(self, delta: float) -> Problem:
        """The same problem with another delta."""
        return replace(self, delta=delta)


def _positive(name: str, values: ArrayLike, zero: bool = False) -> Array:
    try:
        array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"column {name} contains something that is not a number ({error}); give positive numbers"
        ) from error
    if array.ndim != 1:
        raise UserError(f"column {name} has shape {array.shape}; give one value per point")
    bad = np.flatnonzero(~(np.isfinite(array) & ((array >= 0) if zero else (array > 0))))
    if len(bad):
        raise UserError(
            f"column {name} has {len(bad)} values that are not positive and finite (first: {array[bad[0]]} at row "
            f"{bad[0]}); exclude or correct these rows"
        )
    return array


def _weights(weights: ArrayLike | None, n: int) -> Array:
    if weights is None:
        return np.ones(n)
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (n,) or not np.all(np.isfinite(array) & (array >= 0)) or array.sum() <= 0:
        raise UserError(f"weights must be {n} finite values from 0, not all of them 0; got an array of {array.shape}")
    return array
