"""The three stages in order, at any multiplicities of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shapelaw.config import StagedOptions
from shapelaw.errors import UserError
from shapelaw.fitting.spec import FitData
from shapelaw.laws import Law
from shapelaw.step_batch.adjusted import Adjusted, fit_adjusted
from shapelaw.step_batch.converged import Converged, Floors, Tails, extrapolate, regress
from shapelaw.step_batch.critical import Critical, Readings, fit_critical, read_contours
from shapelaw.step_batch.curves import Curve, curves_of

Array = NDArray[np.float64]

FEWEST_SIZES = 3
"""Sizes that the converged losses need: one more than the power law has parameters."""


@dataclass(frozen=True)
class Estimate:
    """The combined result of the stages.

    Args:
        theta: the law's vector.
        critical, floors, converged, adjusted: each stage's result.
        other: the size law with E if the law has none, and vice versa; None if it could not be fitted.
        furthest: index of the run that stage N takes for each size, (sizes,).
        rows: mask of the rows of stage S, (n,).
    """

    theta: Array
    critical: Critical
    floors: Floors
    converged: Converged
    adjusted: Adjusted
    other: Converged | None
    furthest: NDArray[np.intp]
    rows: NDArray[np.bool_]


@dataclass(frozen=True)
class StagedData:
    """Rows as the stages read them, and the curves' readings, which no resampling of runs changes.

    Args:
        law: the law of the stages.
        options: options of the stages.
        delta: where Huber's function becomes linear, in log loss.
        curves: one curve per run.
        run: index of each row's run, (n,).
        params, batch, steps, loss: values of each row, (n,).
    """

    law: Law
    options: StagedOptions
    delta: float
    curves: Sequence[Curve]
    run: NDArray[np.intp]
    params: Array
    batch: Array
    steps: Array
    loss: Array

    @classmethod
    def of(cls, data: FitData, options: StagedOptions, delta: float) -> StagedData:
        """The stages' data from rows as the law reads them.

        Raises:
            UserError: for too few sizes.
        """
        params, tokens, batch = (data.columns[name] for name in ("params", "tokens", "batch_tokens"))
        curves = curves_of(data.runs, params, batch, tokens / batch, data.loss)
        place = {curve.run: i for i, curve in enumerate(curves)}
        run = np.array([place[name] for name in data.runs], dtype=np.intp)
        sizes = np.unique(params)
        if len(sizes) < FEWEST_SIZES:
            listed = ", ".join(f"{size:,.0f}" for size in sizes)
            raise UserError(
                f"params: the runs have {len(sizes)} sizes ({listed}); the losses that sizes converge to need at least "
                f"{FEWEST_SIZES}, and 5 to 7 for intervals worth reading; train more sizes"
            )
        return cls(data.law, options, delta, curves, run, params, batch, tokens / batch, data.loss)

    @cached_property
    def readings(self) -> Readings:
        """Stage B's contours."""
        return read_contours(self.curves, self.options.levels, self.options.level_count)

    @cached_property
    def sizes(self) -> Array:
        """Sizes, in order."""
        return np.unique(self.params)


def estimate(data: StagedData, weights: Array | None = None, near: Estimate | None = None) -> Estimate | None:
    """All stages at multiplicities of the runs; None if these leave a stage without data.

    Args:
        weights: multiplicity of every run, (runs,); None counts each once.
        near: an estimate to start from.
    """
    counts = np.ones(len(data.curves)) if weights is None else np.asarray(weights, dtype=np.float64)
    critical = fit_critical(data.readings, counts, _known(near))
    if critical is None:
        return None
    log_steps_min = _log_steps_min(data, critical)
    furthest = _furthest(data, counts, log_steps_min)
    drawn = furthest >= 0
    floors = _floors(data, counts, log_steps_min, furthest, near)
    if floors is None:
        return None
    size_weights = np.where(drawn, counts[furthest], 0.0)
    irreducible = data.law.irreducible is not None
    converged = regress(data.sizes, floors.values, size_weights, irreducible=irreducible)
    if converged is None:
        return None
    other = regress(data.sizes, floors.values, size_weights, irreducible=not irreducible) if near is None else None
    rows = (log_steps_min >= _log_first(data)) & (counts[data.run] > 0)
    floor_of_rows = np.exp(converged.log_floor_at(np.log(data.params[rows])))
    start = None if near is None else (near.adjusted.log_s_c, near.adjusted.alpha_s)
    adjusted = fit_adjusted(
        floor_of_rows, log_steps_min[rows], data.loss[rows], counts[data.run[rows]], data.delta, start
    )
    theta = _theta(critical, converged, adjusted, irreducible)
    return Estimate(theta, critical, floors, converged, adjusted, other, furthest, rows)


def _theta(critical: Critical, converged: Converged, adjusted: Adjusted, irreducible: bool) -> Array:
    """The law's vector: ln N_c, alpha_N, ln S_c, alpha_S, ln B_star, alpha_B (and ln E)."""
    parts = [converged.log_n_c, converged.alpha_n, adjusted.log_s_c, adjusted.alpha_s]
    parts += [critical.log_b_star, 1 / critical.steepness]
    return np.array(parts + ([np.log(max(converged.irreducible, 1e-300))] if irreducible else []))


def _known(near: Estimate | None) -> Array | None:
    """Stage B's critical batches to start from; undetermined ones start at the line."""
    if near is None:
        return None
    log_critical = near.critical.log_critical
    return np.where(np.isfinite(log_critical), log_critical, np.nanmedian(log_critical))


def _log_steps_min(data: StagedData, critical: Critical) -> Array:
    """ln S_min of every row, by its measured loss."""
    excess = critical.log_critical_at(np.log(data.loss)) - np.log(data.batch)
    return np.asarray(np.log(data.steps) - np.logaddexp(0.0, excess))


def _log_first(data: StagedData) -> float:
    return float(np.log(data.options.steps_min)) if data.options.steps_min else -np.inf


def _furthest(data: StagedData, counts: Array, log_steps_min: Array) -> NDArray[np.intp]:
    """The drawn run of each size with the most adjusted steps; -1 if none is drawn."""
    last = np.full(len(data.curves), -np.inf)
    np.maximum.at(last, data.run, log_steps_min)
    params = np.array([curve.params for curve in data.curves])
    furthest = []
    for size in data.sizes:
        mine = np.flatnonzero((params == size) & (counts > 0))
        furthest.append(int(mine[np.argmax(last[mine])]) if len(mine) else -1)
    return np.array(furthest, dtype=np.intp)


def _floors(
    data: StagedData, counts: Array, log_steps_min: Array, furthest: NDArray[np.intp], near: Estimate | None
) -> Floors | None:
    """Converged losses of the drawn sizes; those of the others are 1 and do not count."""
    drawn = np.flatnonzero(furthest >= 0)
    values = np.ones(len(furthest))
    if data.options.converged == "last":
        values[drawn] = [data.curves[furthest[k]].last_loss for k in drawn]
        return Floors(values)
    rows = np.isin(data.run, furthest[drawn]) & (log_steps_min >= _log_first(data))
    place = {int(furthest[k]): i for i, k in enumerate(drawn)}
    size = np.array([place[int(run)] for run in data.run[rows]], dtype=np.intp)
    if len(np.unique(size)) < len(drawn) or len(size) < len(drawn) + 2:
        return None
    tails = Tails(
        data.sizes[drawn],
        size,
        log_steps_min[rows],
        np.log(data.loss[rows]),
        counts[data.run[rows]],
        counts[furthest[drawn]],
    )
    start = None if near is None else replace(near.floors, values=near.floors.values[drawn])
    floors = extrapolate(tails, start)
    if floors is None:
        return None
    values[drawn] = floors.values
    return replace(floors, values=values)
