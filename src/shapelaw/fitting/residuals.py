"""Residuals of a law by run, shape and token range, and the likelihood behind the objective.

Residual: log measured - log predicted; positive if the measured loss is higher.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from shapelaw.fitting.objective import costs, huber

Array = NDArray[np.float64]

TOKEN_RANGES = 4


@dataclass(frozen=True)
class ResidualStructure:
    """Summary of the residuals of a fit, in log loss.

    Args:
        between_run_share: share of the sum of squares that lies between the means of runs; None where no run has two
            points.
        between_run_sd, within_run_sd: standard deviations of the runs' means, and about them.
        by_run, by_shape, by_tokens: rows of mean, sd and number of points; by_shape is empty without shapes, and
            by_tokens has equally many points in each of its ranges.
    """

    between_run_share: float | None
    between_run_sd: float
    within_run_sd: float
    by_run: pd.DataFrame
    by_shape: pd.DataFrame
    by_tokens: pd.DataFrame


def residual_structure(rows: pd.DataFrame, residuals: Array) -> ResidualStructure:
    """Summarise residuals of the kept rows."""
    frame = rows.assign(residual=residuals)
    means = frame.groupby("run")["residual"].transform("mean")
    between = float(((means - residuals.mean()) ** 2).sum())
    within = float(((frame["residual"] - means) ** 2).sum())
    repeated = bool(frame.duplicated("run").any())
    share = between / (between + within) if repeated and between + within > 0 else None
    shapes = ["width", "depth"] if {"width", "depth"} <= set(rows) else []
    ranges = pd.qcut(frame["tokens"], TOKEN_RANGES, duplicates="drop").astype(str).rename("tokens_range")
    return ResidualStructure(
        share,
        math.sqrt(between / len(frame)),
        math.sqrt(within / len(frame)),
        _summary(frame, ["run"]),
        _summary(frame, shapes) if shapes else pd.DataFrame(),
        _summary(frame.assign(tokens_range=ranges), ["tokens_range"]),
    )


def _summary(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Mean, standard deviation and number of the residuals of each group, in the table's order."""
    grouped = frame.assign(square=frame["residual"] ** 2).groupby(keys, sort=False)
    out = grouped.agg(mean=("residual", "mean"), square=("square", "mean"), points=("residual", "size")).reset_index()
    sd = np.sqrt(np.maximum(out["square"] - out["mean"] ** 2, 0.0))
    return out.assign(sd=sd)[[*keys, "mean", "sd", "points"]]


def huber_log_likelihood(residuals: Array, delta: float, over_cost: float = 1.0) -> float:
    """Largest log likelihood of independent errors whose density falls as the objective's function, over their scale s.

    f(r) = exp(-c(r) Huber_delta(r) / s) / Z,  Z = (z(s) + z(s / over_cost)) / 2
    z(s) = sqrt(2 pi s) erf(delta / sqrt(2 s)) + (2 s / delta) exp(-delta^2 / (2 s))

    The fit that minimises the summed Huber function maximises this likelihood for every s. The density lies between
    Gaussian (large delta) and Laplace errors (small delta). Errors are in log loss. Points of one run are not really
    independent, so differences between laws are overstated if runs have many points.
    """
    total, n = float(np.sum(huber(residuals, delta) * costs(residuals, over_cost))), len(residuals)
    if total <= 0:
        return math.inf

    def negative(log_scale: float) -> float:
        return total * math.exp(-log_scale) + n * _log_normaliser(log_scale, delta, over_cost)

    guess = math.log(total / n)
    best = scipy.optimize.minimize_scalar(
        negative, bounds=(guess - 8.0, guess + 8.0), method="bounded", options={"xatol": 1e-10}
    )
    return -float(best.fun)


def _log_normaliser(log_scale: float, delta: float, over_cost: float = 1.0) -> float:
    """Log of Z, the mean of both sides, which differ only in their scale."""
    under = _log_sides(log_scale, delta)
    if over_cost == 1.0:
        return under
    return float(np.logaddexp(under, _log_sides(log_scale - math.log(over_cost), delta))) - math.log(2.0)


def _log_sides(log_scale: float, delta: float) -> float:
    """Log of z; its two parts are added as logs so that neither underflows."""
    scale = math.exp(log_scale)
    tail = math.log(2.0 * scale / delta) - 0.5 * delta**2 / scale
    inside = 0.5 * math.log(2.0 * math.pi * scale) + math.log(math.erf(delta / math.sqrt(2.0 * scale)))
    return float(np.logaddexp(tail, inside))


def information_criteria(
    residuals: Array, delta: float, n_parameters: int, over_cost: float = 1.0
) -> tuple[float, float]:
    """(AIC, BIC) by `huber_log_likelihood`, whose scale counts as one more parameter.

    AIC = 2 k - 2 log likelihood, BIC = k log n - 2 log likelihood.
    """
    likelihood, k = huber_log_likelihood(residuals, delta, over_cost), n_parameters + 1
    return 2 * k - 2 * likelihood, k * math.log(len(residuals)) - 2 * likelihood
