"""Stage B: the critical batch, from runs of one size at several batches.

At equal loss the curves of one size give S(B) = S_min (1 + B_crit/B), the hyperbola (S/S_min - 1)(E/E_min - 1) = 1 with
E = B S and B_crit = E_min/S_min. Then ln B_crit = ln B_star - ln L / alpha_B over the loss levels and sizes, each weighted by
the information of its hyperbola.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.step_batch.curves import Curve

Array = NDArray[np.float64]

FEWEST_BATCHES = 3
"""Fewest batches of one size for a hyperbola; two would determine it without a check."""
BEYOND = 5.0
"""Logarithm by which B_crit may lie beyond the batches before its hyperbola counts as a straight line."""
STEEPNESS_MIN = 1e-3
"""Smallest 1/alpha_B: below it the critical batch does not depend on the loss."""
COARSE, ROUNDS, CLIP = 61, 40, 1.0


@dataclass(frozen=True)
class Readings:
    """Steps read off the curves at equal losses.

    Args:
        params: size of each contour, (contours,).
        log_loss: its level, (contours,).
        log_steps: log steps of every run at the level, NaN for runs of other sizes or short of it, (contours, runs).
        log_batch: log batch of every run, (runs,).
    """

    params: Array
    log_loss: Array
    log_steps: Array
    log_batch: Array


@dataclass(frozen=True)
class Critical:
    """The stage's result.

    Args:
        log_b_star: ln B_star, tokens at a loss of 1 nat.
        steepness: 1/alpha_B.
        log_critical: ln B_crit of every contour, (contours,); NaN if its hyperbola is undetermined.
        information: information of every contour's ln B_crit, (contours,): 0 if it is undetermined.
        log_steps_min: ln S_min of every contour, (contours,).
        flat: whether the critical batch was found not to grow as the loss falls.
    """

    log_b_star: float
    steepness: float
    log_critical: Array
    information: Array
    log_steps_min: Array
    flat: bool

    def log_critical_at(self, log_loss: Array) -> Array:
        """ln B_crit(L)."""
        return np.asarray(self.log_b_star - self.steepness * np.asarray(log_loss))


def read_contours(curves: Sequence[Curve], levels: Sequence[float] | None, count: int) -> Readings:
    """Steps of every run at `count` levels of every size, or at the levels given.

    Raises:
        UserError: if no size has curves of enough batches, or too few reach the given levels.
    """
    sizes = _sizes_with_batches(curves)
    log_batch = np.log([curve.batch for curve in curves])
    params, losses, rows = [], [], []
    for size, members in sizes.items():
        wanted = np.log(levels) if levels else _common_levels([curves[i] for i in members], count)
        table = np.full((len(wanted), len(curves)), np.nan)
        for i in members:
            table[:, i] = curves[i].log_steps_at(wanted)
        enough = np.array([_batches(row, log_batch) >= FEWEST_BATCHES for row in table], dtype=bool)
        params += [size] * int(enough.sum())
        losses += list(wanted[enough])
        rows += list(table[enough])
    if not rows:
        raise UserError(_out_of_reach(curves, sizes, levels))
    return Readings(np.array(params), np.array(losses), np.array(rows), log_batch)


def fit_critical(read: Readings, weights: Array, start: Array | None = None) -> Critical | None:
    """The stage at multiplicities of the runs; None if they leave no hyperbola.

    Args:
        weights: multiplicity of every run, (runs,).
        start: ln B_crit of every contour to start from, (contours,).
    """
    counts = np.where(np.isfinite(read.log_steps), weights, 0.0)
    first = _coarse(read, counts) if start is None else start
    log_critical, information, log_steps_min = _hyperbolas(read, counts, first)
    used = information > 0
    if not used.any():
        return None
    log_b_star, steepness, flat = _line(read.log_loss[used], log_critical[used], information[used])
    decided = np.where(used, log_critical, np.nan)
    return Critical(log_b_star, steepness, decided, np.where(used, information, 0.0), log_steps_min, flat)


def contour_table(read: Readings, fitted: Critical) -> pd.DataFrame:
    """A row per contour: size, loss, B_crit, S_min, E_min, and number of batches."""
    steps_min, critical = np.exp(fitted.log_steps_min), np.exp(fitted.log_critical)
    return pd.DataFrame(
        {
            "params": read.params,
            "loss": np.exp(read.log_loss),
            "b_crit": critical,
            "steps_min": steps_min,
            "tokens_min": critical * steps_min,
            "batches": [_batches(row, read.log_batch) for row in read.log_steps],
            "information": fitted.information,
        }
    )


def reading_table(read: Readings, critical: Critical) -> pd.DataFrame:
    """A row per reading of a determined contour: size, loss, batch, steps, and both costs over their minimum."""
    rows, runs = np.nonzero(np.isfinite(read.log_steps) & (critical.information > 0)[:, None])
    log_steps, log_batch = read.log_steps[rows, runs], read.log_batch[runs]
    ratio = log_steps - critical.log_steps_min[rows]
    return pd.DataFrame(
        {
            "params": read.params[rows],
            "loss": np.exp(read.log_loss[rows]),
            "batch_tokens": np.exp(log_batch),
            "steps": np.exp(log_steps),
            "steps_ratio": np.exp(ratio),
            "tokens_ratio": np.exp(ratio + log_batch - critical.log_critical[rows]),
        }
    )


def _sizes_with_batches(curves: Sequence[Curve]) -> dict[float, list[int]]:
    """Size -> its readable runs, for sizes with enough batches.

    Raises:
        UserError: if there are none.
    """
    sizes: dict[float, list[int]] = {}
    for i, curve in enumerate(curves):
        if curve.readable:
            sizes.setdefault(curve.params, []).append(i)
    enough = {
        size: members for size, members in sizes.items() if len({curves[i].batch for i in members}) >= FEWEST_BATCHES
    }
    if not enough:
        batches = sorted({curve.batch for curve in curves})
        listed = ", ".join(f"{batch:.0f}" for batch in batches[:8])
        raise UserError(
            f"batch_tokens: the runs have {'the single batch' if len(batches) == 1 else 'the batches'} {listed}, and no size "
            f"has {FEWEST_BATCHES} of them with 5 validations each, so no critical batch can be estimated; train one "
            "size at 3 or more batches, a few times below and above the critical one (train.py -m sweeps=step_batch)"
        )
    return enough


def _common_levels(curves: Sequence[Curve], count: int) -> Array:
    """Log losses that the curves of at least FEWEST_BATCHES batches pass through, evenly spaced, without the ends."""
    lows = sorted(min(c.log_range[0] for c in curves if c.batch == b) for b in {c.batch for c in curves})
    highs = sorted(
        (max(c.log_range[1] for c in curves if c.batch == b) for b in {c.batch for c in curves}), reverse=True
    )
    low, high = lows[FEWEST_BATCHES - 1], highs[FEWEST_BATCHES - 1]
    return np.linspace(high, low, count + 2)[1:-1] if low < high else np.empty(0)


def _batches(log_steps: Array, log_batch: Array) -> int:
    return len(np.unique(log_batch[np.isfinite(log_steps)]))


def _out_of_reach(curves: Sequence[Curve], sizes: dict[float, list[int]], levels: Sequence[float] | None) -> str:
    members = [curves[i] for indices in sizes.values() for i in indices]
    shared = [_common_levels([curves[i] for i in indices], 3) for indices in sizes.values()]
    reach = [np.exp(levels_of_size[[0, -1]]) for levels_of_size in shared if len(levels_of_size)]
    wanted = f"levels={[float(level) for level in levels]}" if levels else "levels"
    if not reach:
        spans = ", ".join(f"batch {c.batch:.0f}: {c.loss.min():.4g} to {c.loss.max():.4g}" for c in members[:8])
        return (
            f"{wanted}: no loss is crossed by the curves of {FEWEST_BATCHES} batches of one size ({spans}); train the "
            "runs that stop early for longer, or validate the others earlier"
        )
    low, high = min(span[1] for span in reach), max(span[0] for span in reach)
    return (
        f"{wanted}: no size reaches it at {FEWEST_BATCHES} batches; give losses between {low:.4g} and {high:.4g}, "
        "or leave levels=null"
    )


def _coarse(read: Readings, counts: Array) -> Array:
    """Best of a grid of ln B_crit for every contour."""
    reach = read.log_batch.min() - BEYOND, read.log_batch.max() + BEYOND
    grid = np.linspace(*reach, COARSE)
    squares = [_residuals(read, counts, np.full(len(counts), u))[0] for u in grid]
    return np.asarray(grid[np.argmin([np.sum(counts * r**2, axis=1) for r in squares], axis=0)])


def _residuals(read: Readings, counts: Array, u: Array) -> tuple[Array, Array, Array]:
    """(ln S minus its mean and the hyperbola's, its derivative by u minus its mean, ln S_min), for ln B_crit = u."""
    excess = u[:, None] - read.log_batch
    gap = np.nan_to_num(read.log_steps) - np.logaddexp(0.0, excess)
    total = np.maximum(counts.sum(axis=1), 1e-300)[:, None]
    mean = np.sum(counts * gap, axis=1, keepdims=True) / total
    gate = scipy.special.expit(excess)
    return gap - mean, gate - np.sum(counts * gate, axis=1, keepdims=True) / total, mean[:, 0]


def _hyperbolas(read: Readings, counts: Array, u: Array) -> tuple[Array, Array, Array]:
    """(ln B_crit, its information, ln S_min) of every contour by Gauss-Newton in ln B_crit, with S_min eliminated."""
    low, high = read.log_batch.min() - BEYOND, read.log_batch.max() + BEYOND
    for _ in range(ROUNDS):
        residual, slope, _ = _residuals(read, counts, u)
        curvature = np.sum(counts * slope**2, axis=1)
        step = np.sum(counts * slope * residual, axis=1) / np.maximum(curvature, 1e-12)
        moved = np.clip(u + np.clip(step, -CLIP, CLIP), low, high)
        if np.max(np.abs(moved - u)) < 1e-14 * np.max(np.abs(u)):
            break
        u = moved
    _, slope, log_steps_min = _residuals(read, counts, u)
    batches = np.array([_batches(np.where(row > 0, 0.0, np.nan), read.log_batch) for row in counts])
    decided = (batches > 1) & (u > low) & (u < high)
    return u, np.where(decided, np.sum(counts * slope**2, axis=1), 0.0), log_steps_min


def _line(log_loss: Array, log_critical: Array, weights: Array) -> tuple[float, float, bool]:
    """(ln B_star, 1/alpha_B, whether this was held at its minimum) by weighted least squares."""
    share = weights / weights.sum()
    x, y = share @ log_loss, share @ log_critical
    spread = share @ (log_loss - x) ** 2
    slope = share @ ((log_loss - x) * (log_critical - y)) / spread if spread > 0 else 0.0
    steepness = max(-float(slope), STEEPNESS_MIN)
    return float(y + steepness * x), steepness, -slope < STEEPNESS_MIN
