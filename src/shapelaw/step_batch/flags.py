"""Flags that a reader of a staged fit must know before using its numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from shapelaw.step_batch.pipeline import Estimate, StagedData

Array = NDArray[np.float64]

STRADDLE = 2.0
"""B_crit counts as straddled if batches include at most half and at least twice of it."""
FAR = 0.05
"""Predicted remaining drop, as a share of the loss, from which on a run counts as far from convergence."""
UNKNOWN = 0.5
"""The same for most sizes, from which on extrapolated floors are unknown: no run came within a factor of two of its own."""
UNKNOWN_FLOORS = "unknown_floors"
"""Code of the flag for unknown floors."""
SIZES, RUNS, CONTOURS = 5, 10, 4
"""With fewer sizes, runs or contours, a stage has too few."""


def warnings(data: StagedData, estimated: Estimate) -> tuple[str, ...]:
    """Every warning, each `code: sentence`."""
    return (
        *_straddling(data, estimated),
        *_convergence(data, estimated),
        *_unknown(data, estimated),
        *_few(data, estimated),
        *_parameters(data, estimated),
    )


def remaining_drops(data: StagedData, estimated: Estimate) -> Array:
    """The further drop of each size's longest run, as a share of its last loss, (sizes,)."""
    last = np.array([data.curves[i].last_loss for i in estimated.furthest])
    floors = np.exp(estimated.converged.log_floor_at(np.log(data.sizes)))
    floors = estimated.floors.values if np.isfinite(estimated.floors.log_s_c) else floors
    return np.asarray(1 - floors / last)


def floors_unknown(data: StagedData, estimated: Estimate) -> bool:
    """Whether the floors were extrapolated so far that they, and the size law through them, mean nothing."""
    return bool(np.isfinite(estimated.floors.log_s_c) and np.median(remaining_drops(data, estimated)) > UNKNOWN)


def _straddling(data: StagedData, estimated: Estimate) -> Iterator[str]:
    batches = np.array([curve.batch for curve in data.curves])
    critical = np.exp(estimated.critical.log_critical)
    low, high = float(np.nanmin(critical)), float(np.nanmax(critical))
    undecided = int(np.isnan(critical).sum())
    trained = f"batches of {batches.min():,.0f} to {batches.max():,.0f} tokens"
    span = f"critical batches of {low:,.0f} to {high:,.0f}"
    if batches.min() > low / STRADDLE:
        yield f"not_straddled: {trained} do not reach well below {span}: B_star is badly determined; add smaller batches"
    if batches.max() < high * STRADDLE:
        yield f"not_straddled: {trained} do not reach well above {span}: B_star is badly determined; add larger batches"
    if undecided:
        yield (
            f"undecided_contours: {undecided} of {len(critical)} contours do not determine a critical batch (their "
            "batches are on one side of it) and are left out"
        )


def _convergence(data: StagedData, estimated: Estimate) -> Iterator[str]:
    drops = remaining_drops(data, estimated)
    far = [
        f"{size:,.0f} parameters: {drop:.1%} (slope d ln L/d ln S {data.curves[i].last_slope:.3f})"
        for size, drop, i in zip(data.sizes, drops, estimated.furthest, strict=True)
        if drop > FAR
    ]
    if far:
        how = "are extrapolated" if np.isfinite(estimated.floors.log_s_c) else "count as converged nevertheless"
        yield (
            f"not_converged: {len(far)} of {len(drops)} sizes end above the loss that they converge to, by a predicted "
            f"{'; '.join(far)}; their floors {how}; train them for longer"
        )


def _unknown(data: StagedData, estimated: Estimate) -> Iterator[str]:
    if floors_unknown(data, estimated):
        yield (
            f"{UNKNOWN_FLOORS}: most sizes end at more than twice what they are extrapolated to: their lowest losses, N_c and "
            "alpha_N are not identified; predictions within the trained steps depend on the learning curve"
        )


def _few(data: StagedData, estimated: Estimate) -> Iterator[str]:
    if len(data.sizes) < SIZES:
        yield f"few_sizes: stage N has {len(data.sizes)} sizes; {SIZES} to 7 are usual"
    if len(data.curves) < RUNS:
        yield f"few_runs: {len(data.curves)} runs are few to resample: intervals are rough"
    decided = int((estimated.critical.information > 0).sum())
    if decided < CONTOURS:
        yield f"few_contours: stage B has {decided} contours; validate more often, or add batches"
    unread = [curve.run for curve in data.curves if not curve.readable]
    if unread:
        yield f"unread_curves: {len(unread)} runs have fewer than 5 validations and are not used in stage B"


def _parameters(data: StagedData, estimated: Estimate) -> Iterator[str]:
    if estimated.critical.flat:
        yield (
            "flat_critical_batch: no growth of the critical batch was found as the loss falls; alpha_B is at its bound "
            "and means nothing"
        )
    if data.law.irreducible and estimated.converged.irreducible == 0:
        yield "irreducible_zero: the floors do not need E: it is 0 and not identified"
