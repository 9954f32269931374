"""The goals that a search minimises: the loss for a budget, the cost of a loss, the loss for a token count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shapelaw.prescribe.price import Cost
from shapelaw.prescribe.surface import LOG_TOKENS_MAX, Bound
from shapelaw.prescribe.world import Points

Array = NDArray[np.float64]
Rows = slice | NDArray[np.intp]
"""Which parameter vectors."""
LEASTS = ("cost", "tokens")


class Goal(Protocol):
    """The goal of a search: a value to minimise, and the tokens of every point."""

    def __call__(self, bound: Bound, points: Points, cost: Cost, coefficients: Array | None) -> tuple[Array, Array]:
        """(value, log tokens), each (vectors, points); infinite where a point is impossible."""

    def rows(self, rows: Rows) -> Goal:
        """The goal of some of the parameter vectors."""


@dataclass(frozen=True)
class SpendBudget:
    """The lowest loss for a budget: tokens follow from it."""

    budget: float

    def __call__(self, bound: Bound, points: Points, cost: Cost, coefficients: Array | None) -> tuple[Array, Array]:
        """Loss, and the log of the tokens that the budget buys."""
        tokens = cost.tokens(points, self.budget, coefficients)
        affordable = tokens >= 1.0
        log_tokens = np.log(np.where(affordable, tokens, 1.0))
        loss = bound.loss(log_tokens)
        return np.where(affordable, loss, np.inf), np.broadcast_to(log_tokens, loss.shape)

    def rows(self, rows: Rows) -> SpendBudget:
        """The same for all."""
        return self


@dataclass(frozen=True)
class ReachLoss:
    """The least cost, or the fewest tokens, that reach a loss.

    Args:
        loss: one value, or (vectors, 1) of them.
        least: `cost` or `tokens`.
    """

    loss: float | Array
    least: str = "cost"

    def __call__(self, bound: Bound, points: Points, cost: Cost, coefficients: Array | None) -> tuple[Array, Array]:
        """Cost or tokens, and the log of the tokens at which each point reaches the loss."""
        loss = np.asarray(self.loss)
        log_tokens = bound.log_tokens_for(points.beside(loss)[0] if loss.ndim else loss)
        tokens = np.exp(np.minimum(log_tokens, LOG_TOKENS_MAX))
        value = tokens if self.least == "tokens" else cost.total(points, tokens, coefficients)
        return np.where(np.isfinite(log_tokens), value, np.inf), log_tokens

    def rows(self, rows: Rows) -> ReachLoss:
        """The losses of some of the vectors."""
        return self if np.ndim(self.loss) == 0 else ReachLoss(np.asarray(self.loss)[rows], self.least)


@dataclass(frozen=True)
class AtTokens:
    """The lowest loss at a token count, whatever its cost; points with NaN are impossible."""

    tokens: float

    def __call__(self, bound: Bound, points: Points, cost: Cost, coefficients: Array | None) -> tuple[Array, Array]:
        """Loss, and the log of the tokens."""
        loss = bound.loss(np.array(np.log(self.tokens)))
        return np.where(np.isnan(loss), np.inf, loss), np.full_like(loss, np.log(self.tokens))

    def rows(self, rows: Rows) -> AtTokens:
        """The same for all."""
        return self
