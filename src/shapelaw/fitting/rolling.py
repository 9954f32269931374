"""The fit's own rolling hold-out: refits up to a cut in size, tokens or compute, and their errors beyond it.

Refits of resampled runs share one form and one range, so they cannot show how far the form is off beyond the runs. The folds
show by how much their intervals are too narrow: an error in units of the interval's half-width needs no other scale, at any
distance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from shapelaw.config import BootstrapOptions
from shapelaw.errors import UserError
from shapelaw.fitting.bootstrap import drawn_priors, groups_of, resamples
from shapelaw.fitting.checklist import FEW_RUNS
from shapelaw.fitting.new_run import SAME, noise_of, with_noise
from shapelaw.fitting.ridge import PRECISION, Ridge
from shapelaw.fitting.solve import Solution
from shapelaw.fitting.solver import Search
from shapelaw.fitting.solvers import search_of
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.laws.fixed import sum_of

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

CUTS = 6
"""Cuts, even in the logarithm from the middle of the range to below its end."""
DISTINCT = 3
"""Fewest sizes (or token counts) below a cut."""
SPARE = 2
"""Rows beyond one per parameter that a fold needs."""
KEPT = 400
"""Most held-out rows of a fold that are used, spread over all."""
REFITS = 40
"""Most refits of a fold's resampled runs."""


def factors(
    data: FitData, spec: FitSpec, solution: Solution, ridge: Ridge, axes: Mapping[str, Array]
) -> dict[str, float]:
    """For each axis that can be held out, the factor by which the interval of a new run should have been wider.

    In every fold, it is the quantile (at the level of the intervals) of |log measured - log predicted| over the half-width of
    the fold's own interval of a new run; then the median over the folds of an axis.

    Args:
        solution: the fit, from whose optima the folds' refits start. They use the law's priors, as a fold has fewer sizes
            than the fit.
        axes: values of the rows along each axis of extrapolation, each (n,).
    """
    wanted = spec.bootstrap or BootstrapOptions()
    tied = dataclasses.replace(data, prior=ridge.penalty(data.law)) if data.law.priors else data
    search, known = search_of(spec.solver, tied.problem(spec)), {}
    out = {}
    for axis, values in axes.items():
        found = []
        for fitted in cuts(values, len(data.law.parameters) + SPARE):
            fold = fitted.tobytes()  # axes that grow together share folds
            if fold not in known:
                known[fold] = _misses(data, spec, wanted, search, solution, fitted)
            found.append(np.quantile(known[fold], wanted.level) if len(known[fold]) else np.nan)
        if np.isfinite(found).any():
            out[axis] = float(np.nanmedian(found))
    return out


def _misses(
    data: FitData, spec: FitSpec, wanted: BootstrapOptions, search: Search, solution: Solution, fitted: Mask
) -> Array:
    """Errors of a fold at its held-out rows, in units of its interval's half-width; none if it has no interval."""
    weights = search.problem.weights
    own, held_out = data.rows(fitted), np.flatnonzero(~fitted & (weights > 0))
    held_out = held_out[np.unique(np.linspace(0, len(held_out) - 1, KEPT).astype(int))] if len(held_out) else held_out
    try:
        labels = groups_of(own, wanted)
    except UserError:  # a single run
        return np.empty(0)
    if not len(held_out):
        return np.empty(0)
    theta, _ = search.refit(solution.basins[:3], fitted * weights)
    drawn = np.zeros((min(wanted.n, REFITS), len(fitted)))
    rng = np.random.default_rng(spec.seed)
    drawn[:, fitted] = list(resamples(labels, len(drawn), len(theta), rng))
    prior = search.problem.prior
    few = len(np.unique(own.runs)) < FEW_RUNS and sum_of(data.law) is not None and prior is not None
    priors = drawn_priors(data.law, prior, len(drawn), rng) if few and prior else [prior] * len(drawn)
    thetas, _ = search.refits(theta[None], drawn * weights, priors)
    noise = noise_of(own.residuals(theta), own.runs, len(theta))
    test = data.rows(np.isin(np.arange(len(fitted)), held_out))
    error = test.residuals(theta)
    low, high = with_noise(-test.residuals(thetas), noise, wanted.level)
    return np.abs(error) / np.maximum((high - low) / 2, PRECISION)


def cuts(values: Array, needed: int) -> list[Mask]:
    """Masks of the fitted rows: all rows up to a cut, for every cut that leaves enough to fit and something to predict."""
    logs = np.log(values)
    masks: list[Mask] = []
    for cut in np.linspace((logs.min() + logs.max()) / 2, logs.max(), CUTS, endpoint=False):
        mask = logs <= cut + 1e-9
        fresh = not masks or mask.sum() != masks[-1].sum()
        if fresh and mask.sum() >= needed and distinct(logs[mask]) >= DISTINCT and not mask.all():
            masks.append(mask)
    return masks


def distinct(logs: Array) -> int:
    """Number of different sizes."""
    return int(len(logs) > 0) + int((np.diff(np.sort(logs)) > SAME).sum())
