"""Intervals of a statistic from its refits: percentile, and bias-corrected and accelerated.

Source: Efron 1987, "Better bootstrap confidence intervals", J. Am. Stat. Assoc. 82.
"""

from __future__ import annotations

import math

import numpy as np
import scipy
from numpy.typing import NDArray

Array = NDArray[np.float64]


def percentile(replicates: Array, level: float) -> tuple[float, float]:
    """The central share `level` of the replicates, without those that could not be fitted (NaN)."""
    low, high = np.nanquantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bca(replicates: Array, level: float, estimate: float, jackknife: Array) -> tuple[float, float]:
    """Percentiles shifted for the median bias of the replicates and the skew of the statistic.

    Args:
        replicates: statistic of each refit, (n,).
        estimate: statistic of the fit.
        jackknife: statistic without each group in turn, (groups,).
    """
    known = replicates[np.isfinite(replicates)]
    below = (np.sum(known < estimate) + 0.5 * np.sum(known == estimate)) / len(known)
    bias = scipy.special.ndtri(np.clip(below, 0.5 / len(known), 1 - 0.5 / len(known)))
    skew = _acceleration(jackknife[np.isfinite(jackknife)])
    normal = bias + scipy.special.ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    shifted = scipy.special.ndtr(bias + normal / np.maximum(1 - skew * normal, 1e-6))
    low, high = np.quantile(known, shifted)
    return float(low), float(high)


def _acceleration(jackknife: Array) -> float:
    """Skew of the statistic: sum of cubes over 6 (sum of squares)^1.5 of the jackknife's deviations."""
    largest = float(np.max(np.abs(jackknife), initial=0.0))
    if largest == 0:
        return 0.0
    scaled = jackknife / largest  # the ratio is scale-free; coefficients may lie near the largest float
    spread = scaled.mean() - scaled
    reach = float(np.max(np.abs(spread)))
    if reach < 1e-12:
        return 0.0
    spread = spread / reach
    squares: float = float(np.sum(spread**2))
    return float(np.sum(spread**3)) / (6 * math.pow(squares, 1.5))
