"""The best point for every parameter vector at once: exact over whole shapes, or by zooming in over real-valued sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapelaw.prescribe.goals import Goal, Rows
from shapelaw.prescribe.price import Cost
from shapelaw.prescribe.surface import Surface
from shapelaw.prescribe.world import Points

Array = NDArray[np.float64]
CHUNK = 2_000_000
"""Values of one piece of work: a few arrays of 16 MB."""
ZOOM_CELLS = {1: 64, 2: 16}
ZOOM_LEVELS = {1: 12, 2: 24}
ZOOM_SHRINK = {1: 0.125, 2: 0.375}
"""Size of the next level's box relative to this one's: a few cells around the best."""
ZOOM_SMOOTH = {1: 3, 2: 5}
"""Level after which a parabola through a few points around the best finds the optimum."""
STENCIL = 1e-4
"""Distance of the last parabola's points in the logarithm of a size: rounding and the third order move it by some 1e-9."""
ROUND = 1e-4
"""Least determinant of a parabola over the product of its curvatures; for flatter ones the grids go on."""


@dataclass(frozen=True)
class Optimum:
    """The best point of every parameter vector, each array (vectors,).

    Args:
        points: the best points.
        log_tokens: natural log of their training tokens.
        value: value of the goal; infinite if no point is possible.
    """

    points: Points
    log_tokens: Array
    value: Array

    def size(self) -> dict[str, float]:
        """The size under the fit's own parameters: tokens, params, width and depth if it has them, tokens_per_param."""
        points, tokens = self.points, math.exp(self.log_tokens[0])
        sizes = {"tokens": tokens, "params": points.params[0]}
        if points.width is not None and points.depth is not None:
            sizes |= {"width": points.width[0], "depth": points.depth[0]}
        return {name: float(value) for name, value in sizes.items()} | {
            "tokens_per_param": tokens / float(points.params[0])
        }


@dataclass(frozen=True)
class Objective:
    """A law under parameter vectors, a price and a goal.

    Args:
        coefficients: coefficients of the throughput, a row per parameter vector; None for one rate.
    """

    surface: Surface
    cost: Cost
    goal: Goal
    coefficients: Array | None = None

    def values(self, points: Points, rows: Rows = slice(None)) -> tuple[Array, Array]:
        """(value, log tokens) of some parameter vectors at points, each (vectors, points)."""
        surface = Surface(self.surface.law, self.surface.thetas[rows])
        chosen = None if self.coefficients is None else self.coefficients[rows]
        return self.goal.rows(rows)(surface.at(points), points, self.cost, chosen)


def exact(objective: Objective, shapes: Points) -> Optimum:
    """The best of whole shapes for every parameter vector."""
    n, step = len(objective.surface), max(1, CHUNK // len(shapes.params))
    pieces = [slice(start, min(start + step, n)) for start in range(0, n, step)]
    places, logs, values = zip(*(_lowest(*objective.values(shapes, rows)) for rows in pieces), strict=True)
    return Optimum(shapes.take(np.concatenate(places)), np.concatenate(logs), np.concatenate(values))


def exact_each(surface: Surface, cost: Cost, goals: Sequence[Goal], shapes: Points) -> list[Optimum]:
    """`exact` for several goals and few parameter vectors; the law is bound to the shapes only once."""
    bound = surface.at(shapes)
    found = (_lowest(*goal(bound, shapes, cost, None)) for goal in goals)
    return [Optimum(shapes.take(place), log_tokens, value) for place, log_tokens, value in found]


def _lowest(values: Array, log_tokens: Array) -> tuple[NDArray[np.intp], Array, Array]:
    """Index, log tokens and value of the lowest value of every row."""
    best = np.argmin(values, axis=1)
    each = np.arange(len(best))
    return best, log_tokens[each, best], values[each, best]


def zoom(
    objective: Objective,
    build: Callable[[Array], Points],
    low: Array,
    high: Array,
    clip: Callable[[Array], Array] | None = None,
    build_grid: Callable[[Array], Points] | None = None,
) -> Optimum:
    """The best real-valued size in a box, for every parameter vector, by grids that shrink around their best point.

    Args:
        build: coordinates (vectors, points, dimensions) -> points.
        low, high: the box, each (dimensions,); one dimension or two.
        clip: coordinates in the box -> the nearest allowed ones, so that a grid has points on every limit; None if all are
            allowed.
        build_grid: the coordinates of a grid's axes, (vectors, cells, 2) -> all its points, (vectors, cells, cells), if none
            is clipped: the same points, many times faster.

    A grid whose best point lies at its edge moves without shrinking, unless the allowed region ends there. If the values are
    smooth around a grid's best point, the vertex of a parabola gives the optimum; otherwise the last grid is finer than
    rounding errors of the values can resolve (1e-8 in the logarithm of a size).
    """
    dims, n = len(low), len(objective.surface)
    unit = np.linspace(-0.5, 0.5, ZOOM_CELLS[dims] + 1)
    every, rows = np.arange(dims), np.arange(n)
    centre, span = np.tile((low + high) / 2, (n, 1)), np.tile(high - low, (n, 1))
    for level in range(ZOOM_LEVELS[dims]):
        free = centre[rows, None] + span[rows, None] * unit[:, None]
        axes = np.clip(free, low, high)
        grid = axes if build_grid else _product(axes)
        grid = clip(grid) if clip else grid
        best = np.argmin(_in_pieces(objective, build_grid or build, grid, rows), axis=1)
        each = np.arange(len(rows))
        places = np.stack(np.unravel_index(best, (len(unit),) * dims), axis=-1)
        found = axes[each[:, None], places, every] if build_grid else grid[each, best]
        beyond = (np.abs(unit[places]) == 0.5) & (found == free[each[:, None], places, every]) & (level > 0)
        centre[rows], step = found, span[rows] / ZOOM_CELLS[dims]
        span[rows] *= np.where(beyond.any(axis=1)[:, None], 1.0, ZOOM_SHRINK[dims])
        if level >= ZOOM_SMOOTH[dims] and not clip:
            rows = rows[~_settle(objective, build, centre, step, rows, low, high)]
        if not len(rows):
            break
    points = build(centre[:, None])
    values, log_tokens = objective.values(points)
    return Optimum(points.map(lambda column: column[:, 0]), log_tokens[:, 0], values[:, 0])


def _settle(
    objective: Objective,
    build: Callable[[Array], Points],
    centre: Array,
    step: Array,
    rows: NDArray[np.intp],
    low: Array,
    high: Array,
) -> NDArray[np.bool_]:
    """Move the centres of some vectors to the vertex of a parabola, twice; mask of those that have one within a step of them.

    Args:
        centre: changed in place, (vectors, dimensions).
        step: distance of the first parabola's points, (rows, dimensions).
        rows: indices of the vectors.
    """
    settled, at = np.ones(len(rows), dtype=bool), centre[rows]
    for apart in (step, np.full_like(at, STENCIL)):
        points = at[:, None] + apart[:, None] * _corners(at.shape[1])
        away, has = _vertex(objective.values(build(points), rows)[0])
        settled &= has & ((points >= low) & (points <= high)).all(axis=(1, 2))
        at = np.where(settled[:, None], at + away * apart, at)
    centre[rows[settled]] = at[settled]
    return settled


def _corners(dims: int) -> Array:
    """A point and its neighbours on a grid, (3^dims, dims); the point itself in the middle."""
    return np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * dims, indexing="ij"), axis=-1).reshape(-1, dims)


def _vertex(values: Array) -> tuple[Array, NDArray[np.bool_]]:
    """The minima of parabolas through values at `_corners`, (vectors, 3^dims), and a mask of those within a step."""
    dims = 1 if values.shape[1] == 3 else 2
    corners = _corners(dims)
    pairs = [(i, j) for i in range(dims) for j in range(i, dims)]
    terms = np.stack([*corners.T, *(corners[:, i] * corners[:, j] for i, j in pairs)], axis=1)
    with np.errstate(invalid="ignore"):
        found = (values - values[:, [len(corners) // 2]]) @ np.linalg.pinv(terms - terms.mean(axis=0)).T
    slope, bend = found[:, :dims], np.empty((len(values), dims, dims))
    for (i, j), value in zip(pairs, found[:, dims:].T, strict=True):
        bend[:, i, j] = bend[:, j, i] = value * (2 if i == j else 1)
    has = np.isfinite(found).all(axis=1)
    has &= np.all(np.diagonal(bend, axis1=1, axis2=2) > 0, axis=1)
    bend, slope = np.where(has[:, None, None], bend, np.eye(dims)), np.where(has[:, None], slope, 0.0)
    has &= np.asarray(np.linalg.det(bend)) > ROUND * np.diagonal(bend, axis1=1, axis2=2).prod(axis=1)
    away = np.linalg.solve(np.where(has[:, None, None], bend, np.eye(dims)), -slope[..., None])[..., 0]
    return np.asarray(away), np.asarray(has & np.all(np.abs(away) <= 1, axis=1))


def _product(axes: Array) -> Array:
    """All points of the grids of some axes, (vectors, cells, dimensions) -> (vectors, cells^dimensions, dimensions)."""
    if axes.shape[-1] == 1:
        return axes
    x, y = np.broadcast_arrays(axes[:, :, None, 0], axes[:, None, :, 1])
    return np.stack([x, y], axis=-1).reshape(len(axes), -1, 2)


def _in_pieces(objective: Objective, build: Callable[[Array], Points], grid: Array, rows: NDArray[np.intp]) -> Array:
    step = max(1, CHUNK // grid.shape[1])
    pieces = [slice(start, start + step) for start in range(0, len(grid), step)]
    values = [objective.values(build(grid[piece]), rows[piece])[0] for piece in pieces]
    return np.concatenate([some.reshape(len(some), -1) for some in values])
