"""Intervals of a statistic out of its refits: percentile, and bias-corrected and accelerated.

Source: Efron 1987, "Better bootstrap confidence intervals", J. Am. Stat. Assoc. 82.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Array = NDArray[np.float64]


def percentile(replicates: Array, level: float) -> tuple[float, float]:
    """The central share `level` of the replicates; those that could not be fitted (NaN) are left out."""
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
    bias = ndtri(np.clip(below, 0.5 / len(known), 1 - 0.5 / len(known)))
    spread = np.nanmean(jackknife) - jackknife[np.isfinite(jackknife)]
    scale = float(np.sum(spread**2)) ** 1.5
    skew = float(np.sum(spread**3)) / (6 * scale) if scale > 0 else 0.0
    normal = bias + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    shifted = ndtr(bias + normal / (1 - skew * normal))
    low, high = np.quantile(known, shifted)
    return float(low), float(high)
