"""Searching sizes: exactly over whole shapes, or relaxed by zooming in; for every parameter vector at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shapelaw.prescribe.price import Cost
from shapelaw.prescribe.surface import LOG_TOKENS_MAX, Bound, Surface
from shapelaw.prescribe.world import Points

Array = NDArray[np.float64]
CHUNK = 2_000_000
"""Values of one piece of work: a few arrays of 16 MB."""
ZOOM_CELLS = {1: 64, 2: 16}
ZOOM_LEVELS = {1: 12, 2: 24}
ZOOM_SHRINK = {1: 0.125, 2: 0.375}
"""Box of the next level over this one's: a few cells about the best."""


class Goal(Protocol):
    """What is asked: a value to make small, and the tokens that go with every point."""

    def __call__(self, bound: Bound, points: Points, cost: Cost, coefficients: Array | None) -> tuple[Array, Array]:
        """(value, log tokens), each (vectors, points); infinite where the point cannot serve."""

    def rows(self, rows: slice) -> Goal:
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

    def rows(self, rows: slice) -> SpendBudget:
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
        log_tokens = bound.log_tokens_for(np.asarray(self.loss))
        tokens = np.exp(np.minimum(log_tokens, LOG_TOKENS_MAX))
        value = tokens if self.least == "tokens" else cost.total(points, tokens, coefficients)
        return np.where(np.isfinite(log_tokens), value, np.inf), log_tokens

    def rows(self, rows: slice) -> ReachLoss:
        """The losses of some of the vectors."""
        return self if np.ndim(self.loss) == 0 else ReachLoss(np.asarray(self.loss)[rows], self.least)


@dataclass(frozen=True)
class AtTokens:
    """The lowest loss at a token count, whatever it costs; points that are not a number cannot serve."""

    tokens: float

    def __call__(self, bound: Bound, points: Points, cost: Cost, coefficients: Array | None) -> tuple[Array, Array]:
        """Loss, and the log of the tokens."""
        loss = bound.loss(np.array(np.log(self.tokens)))
        return np.where(np.isnan(loss), np.inf, loss), np.full_like(loss, np.log(self.tokens))

    def rows(self, rows: slice) -> AtTokens:
        """The same for all."""
        return self


@dataclass(frozen=True)
class Found:
    """The best point of every parameter vector, each array (vectors,).

    Args:
        points: where.
        log_tokens: natural log of its training tokens.
        value: of the goal; infinite where no point serves.
        index: place among whole shapes; None for a relaxed search.
    """

    points: Points
    log_tokens: Array
    value: Array
    index: NDArray[np.intp] | None = None


@dataclass(frozen=True)
class Question:
    """A law under parameter vectors, a price and a goal.

    Args:
        coefficients: of the throughput, a row per parameter vector; None for one rate.
    """

    surface: Surface
    cost: Cost
    goal: Goal
    coefficients: Array | None = None

    def ask(self, points: Points, rows: slice = slice(None)) -> tuple[Array, Array]:
        """(value, log tokens) of some parameter vectors at points, each (vectors, points)."""
        surface = Surface(self.surface.law, self.surface.thetas[rows])
        chosen = None if self.coefficients is None else self.coefficients[rows]
        return self.goal.rows(rows)(surface.at(points), points, self.cost, chosen)


def exact(question: Question, shapes: Points) -> Found:
    """The best of whole shapes for every parameter vector."""
    n, size = len(question.surface), len(shapes.params)
    step = max(1, CHUNK // size)
    index = np.empty(n, dtype=np.intp)
    value, log_tokens = np.empty(n), np.empty(n)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        values, logs = question.ask(shapes, rows)
        best = np.argmin(values, axis=1)
        each = np.arange(len(best))
        index[rows], value[rows], log_tokens[rows] = best, values[each, best], logs[each, best]
    return Found(shapes.take(index), log_tokens, value, index)


def zoom(
    question: Question,
    build: Callable[[Array], Points],
    low: Array,
    high: Array,
    clip: Callable[[Array], Array] = np.asarray,
) -> Found:
    """The best real-valued size in a box, for every parameter vector, by grids that shrink about their best point.

    Args:
        build: coordinates (vectors, points, dimensions) -> points.
        low, high: the box, each (dimensions,); one dimension or two.
        clip: coordinates in the box -> the nearest allowed ones, so that a grid has points on every limit.

    A grid whose best point lies at its edge moves without shrinking, unless what is allowed ends there. The last grid is finer
    than rounding errors of the values can tell apart (1e-8 in the logarithm of a size).
    """
    dims, n = len(low), len(question.surface)
    cells = ZOOM_CELLS[dims]
    unit = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, cells + 1)] * dims, indexing="ij"), axis=-1).reshape(-1, dims)
    centre, span = np.tile((low + high) / 2, (n, 1)), np.tile(high - low, (n, 1))
    for level in range(ZOOM_LEVELS[dims]):
        free = centre[:, None] + span[:, None] * unit
        grid = clip(np.clip(free, low, high))
        values = _in_pieces(question, build, grid)
        best = np.argmin(values, axis=1)
        centre = grid[np.arange(n), best]
        beyond = (np.abs(unit[best]) == 0.5) & (centre == free[np.arange(n), best]) & (level > 0)
        span = np.where(beyond.any(axis=1)[:, None], span, span * ZOOM_SHRINK[dims])
    points = build(centre[:, None])
    values, log_tokens = question.ask(points)
    return Found(points.map(lambda column: column[:, 0]), log_tokens[:, 0], values[:, 0])


def _in_pieces(question: Question, build: Callable[[Array], Points], grid: Array) -> Array:
    step = max(1, CHUNK // grid.shape[1])
    pieces = [slice(start, start + step) for start in range(0, len(grid), step)]
    return np.concatenate([question.ask(build(grid[rows]), rows)[0] for rows in pieces])
