"""The best rate of a shape from a few rates, with its uncertainty, and the distance between the best rates of shapes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike, NDArray

from shapelaw.errors import UserError

Floats = NDArray[np.float64]

REACH = 4.2
"""Rates within this factor of the best are assumed to lie on one parabola: two steps of a factor of two either way."""
LEVEL = 0.9


@dataclass(frozen=True)
class BestRate:
    """Minimum of a parabola in log(rate) through the losses around the lowest.

    Args:
        rate: the rate at the minimum.
        low, high: its interval; NaN if there are only as many points as the parabola has coefficients.
        loss: loss of the parabola there, nats per token.
        curvature: second derivative of the loss by log(rate): a rate wrong by a factor f costs curvature / 2 * log(f)^2.
        points: number of rates behind it.
    """

    rate: float
    low: float
    high: float
    loss: float
    curvature: float
    points: int


def best_rate(rates: ArrayLike, losses: ArrayLike, reach: float = REACH, level: float = LEVEL) -> BestRate:
    """The best rate of one shape.

    The interval is Student's, from the scatter about the parabola, by the delta method. It includes the parabola's own
    misfit, which is part of the scatter.

    Args:
        rates: rates of runs that differ in nothing else; if several runs share a rate, each counts.
        losses: final losses of the runs, nats per token; losses that are not finite are ignored.
        reach: rates within this factor of the one with the lowest loss are used, and its neighbours in any case.
        level: level of the interval.

    Raises:
        UserError: if there are fewer than three rates around the lowest loss, or the minimum is not among them.
    """
    x, y = _finite(rates, losses)
    lowest = x[int(np.argmin(y))]
    x, y = _around(x, y, lowest, math.log(reach))
    if lowest in (x.min(), x.max()):
        where, beyond = ("lowest", "lower") if lowest == x.min() else ("highest", "higher")
        raise UserError(
            f"the lowest loss is at the {where} rate tried ({math.exp(lowest):.4g}): the best one may lie beyond; "
            f"try {beyond} rates"
        )
    a, b, c, covariance = _parabola(x - lowest, y)
    vertex = -b / (2 * a) if a > 0 else math.nan
    if not x.min() - lowest < vertex < x.max() - lowest:
        raise UserError(
            f"the losses around rate {math.exp(lowest):.4g} have no minimum among the rates tried; try rates closer to it"
        )
    error = _vertex_error(a, b, covariance, len(x), level)
    at = lowest + vertex
    bottom = c - b * b / (4 * a)
    return BestRate(math.exp(at), math.exp(at - error), math.exp(at + error), bottom, 2 * a, len(x))


def _around(x: Floats, y: Floats, lowest: float, reach: float) -> tuple[Floats, Floats]:
    """The points within reach of the lowest, and the nearest rate on either side if rates lie further apart."""
    below, above = np.sort(x[x < lowest]), np.sort(x[x > lowest])
    start = min([lowest - reach, *below[-1:]])
    end = max([lowest + reach, *above[:1]])
    near = (start <= x) & (x <= end)
    return x[near], y[near]


def _finite(rates: ArrayLike, losses: ArrayLike) -> tuple[Floats, Floats]:
    rate, loss = np.asarray(rates, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    finite = np.isfinite(loss)
    if (rate <= 0).any():
        raise UserError(f"a rate of {rate.min():g}: allowed values are rates above 0")
    if len(np.unique(rate[finite])) < 3:
        raise UserError(
            f"{len(np.unique(rate[finite]))} rates with a finite loss: a best rate needs at least 3; try more"
        )
    return np.log(rate[finite]), loss[finite]


def _parabola(x: Floats, y: Floats) -> tuple[float, float, float, Floats]:
    """Least squares of a x^2 + b x + c; the covariance of (a, b), NaN without a degree of freedom."""
    design = np.column_stack([x * x, x, np.ones_like(x)])
    coefficients, *_ = np.linalg.lstsq(design, y)
    freedom = len(x) - 3
    scatter = float(np.sum((y - design @ coefficients) ** 2)) / freedom if freedom > 0 else math.nan
    covariance = scatter * np.linalg.pinv(design.T @ design)[:2, :2]
    return float(coefficients[0]), float(coefficients[1]), float(coefficients[2]), covariance


def _vertex_error(a: float, b: float, covariance: Floats, points: int, level: float) -> float:
    """Half the interval of -b / (2 a), in log(rate)."""
    if points <= 3:
        return math.nan
    slope = np.array([b / (2 * a * a), -1 / (2 * a)])
    deviation = math.sqrt(float(slope @ covariance @ slope))
    return float(scipy.special.stdtrit(points - 3, (1 + level) / 2)) * deviation


def best_rates(frame: pd.DataFrame, rate: str, level: float = LEVEL) -> pd.DataFrame:
    """The best rate of every shape, or the reason why there is none.

    Args:
        frame: one row per run: width, depth, loss (at the same tokens for all runs of a shape) and the column of the rate.
        rate: that column: lr_base (which the rule multiplies) or lr_eff (the rate itself).
        level: level of the intervals.

    Returns:
        one row per shape: width, depth, the fields of `BestRate`, and `refused`, the reason or nothing.
    """
    rows = []
    for (width, depth), runs in frame.groupby(["width", "depth"]):
        row = {"width": width, "depth": depth, "refused": ""}
        try:
            rows.append(row | asdict(best_rate(runs[rate], runs["loss"], level=level)))
        except UserError as error:
            rows.append(row | {"refused": str(error)})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Spread:
    """How far the best rates of shapes lie apart.

    Args:
        ratio: largest over smallest.
        deviation: standard deviation of their natural logarithms.
        shapes: number of shapes.
        worst_cost: most nats that a shape loses at the geometric mean of the rates, by its own parabola.
    """

    ratio: float
    deviation: float
    shapes: int
    worst_cost: float


def spread(best: pd.DataFrame) -> Spread:
    """Spread of a table of `best_rates`, without shapes that have no best rate.

    Raises:
        UserError: if fewer than two shapes have one.
    """
    served = best[best["refused"] == ""]
    if len(served) < 2:
        raise UserError(f"{len(served)} shapes have a best rate, and a spread needs two; {'; '.join(best['refused'])}")
    logs = np.log(served["rate"].to_numpy(dtype=np.float64))
    costs = served["curvature"].to_numpy(dtype=np.float64) / 2 * (logs - logs.mean()) ** 2
    return Spread(float(np.exp(np.ptp(logs))), float(logs.std(ddof=1)), len(served), float(costs.max()))
