"""Approach 1: the points with the lowest loss at their cost, by convex hull or by bins of the cost.

Source: Gemstones (arXiv 2502.06857), section 4.1; the bins are those of Hoffmann et al. 2022 (arXiv 2203.15556),
section 3.1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from shapelaw.config.fitting import BINS_PER_DECADE
from shapelaw.errors import UserError
from shapelaw.fitting.lines import Array, Rows

_LN10 = math.log(10.0)


def lower_hull(x: ArrayLike, y: ArrayLike) -> Rows:
    """Vertices of the lower convex hull of points, from left to right (Andrew's monotone chain).

    Args:
        x, y: coordinates, each (n,).

    Returns:
        indices of the vertices, without points on an edge.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    order = np.lexsort((ys, xs))
    points = list(zip(order.tolist(), xs[order].tolist(), ys[order].tolist(), strict=True))
    hull: list[tuple[int, float, float]] = []
    for point in points:
        if hull and hull[-1][1] == point[1]:
            continue  # above a point of the same cost
        while len(hull) > 1 and not _turns_left(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return np.array([index for index, _, _ in hull], dtype=np.intp)


def _turns_left(a: tuple[int, float, float], b: tuple[int, float, float], c: tuple[int, float, float]) -> bool:
    """Whether the path a, b, c turns left at b."""
    return (b[1] - a[1]) * (c[2] - a[2]) - (b[2] - a[2]) * (c[1] - a[1]) > 0


def frontier(log_cost: Array, log_loss: Array) -> Rows:
    """Vertices of the lower hull of (log cost, log loss) whose loss is below that of every cheaper vertex."""
    vertices = lower_hull(log_cost, log_loss)
    losses = log_loss[vertices]
    lowest_before = np.concatenate(([np.inf], np.minimum.accumulate(losses)[:-1]))
    return vertices[losses < lowest_before]


def bin_minima(
    log_cost: Array, log_loss: Array, bins_per_decade: int | None = BINS_PER_DECADE, bins: int | None = None
) -> Rows:
    """The point of lowest loss in each filled bin of the cost; bins are even in log cost over the data's range.

    Args:
        bins_per_decade: bins per factor of ten.
        bins: number of bins over the whole range, instead.

    Raises:
        UserError: unless the number of bins is at least 1.
    """
    low, high = float(np.min(log_cost, initial=np.inf)), float(np.max(log_cost, initial=-np.inf))
    if high <= low:
        raise UserError("binning: the points do not span two costs; give more runs or validations")
    count = bins if bins is not None else math.ceil((bins_per_decade or 0) * (high - low) / _LN10)
    if count < 1:
        raise UserError(f"bins={bins}, bins_per_decade={bins_per_decade}: give at least one bin")
    place = np.minimum(((log_cost - low) / (high - low) * count).astype(np.int64), count - 1)
    order = np.lexsort((log_loss, place))
    first = np.concatenate(([True], np.diff(place[order]) > 0))
    return order[first]
