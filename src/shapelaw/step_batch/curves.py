"""A run's curve of held-out loss: smoothed, and read at any loss between its first and its last validation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import NDArray

Array = NDArray[np.float64]

FEWEST_POINTS = 5
"""Validations that a smoothing spline needs."""
NOISELESS = 1e-6
"""Median distance of log loss from the smooth curve below which the points are joined directly: it is less than any
measurement's noise, and a smoothing spline would bend at its ends."""
GRID = 512
"""Points at which a curve is searched for its first crossing of a loss."""
HALVINGS = 60


@dataclass(frozen=True)
class Curve:
    """The validations of one run, in order of its steps.

    Args:
        run: its name.
        params: parameters as the law counts them.
        batch: tokens of one step.
        steps: optimizer steps, (n,).
        loss: nats per token, (n,).
    """

    run: str
    params: float
    batch: float
    steps: Array
    loss: Array

    @cached_property
    def smooth(self) -> scipy.interpolate.BSpline:
        """Log loss as a cubic spline of log steps; generalised cross-validation sets how smooth."""
        x, y = np.log(self.steps), np.log(self.loss)
        found = scipy.interpolate.make_smoothing_spline(x, y)
        return scipy.interpolate.make_interp_spline(x, y) if np.median(np.abs(found(x) - y)) < NOISELESS else found

    @property
    def readable(self) -> bool:
        """Whether it has enough points to be read between them."""
        return len(self.steps) >= FEWEST_POINTS

    @property
    def last_loss(self) -> float:
        """Smoothed loss at the last validation, nats per token."""
        return float(np.exp(self.smooth(np.log(self.steps[-1])))) if self.readable else float(self.loss[-1])

    @property
    def last_slope(self) -> float:
        """d ln L / d ln S at the last validation; NaN without enough points."""
        return float(self.smooth.derivative()(np.log(self.steps[-1]))) if self.readable else float("nan")

    @cached_property
    def _falling(self) -> tuple[Array, Array]:
        """A grid of log steps, and the lowest log loss up to each of them."""
        grid = np.linspace(np.log(self.steps[0]), np.log(self.steps[-1]), GRID)
        return grid, np.minimum.accumulate(self.smooth(grid))

    @property
    def log_range(self) -> tuple[float, float]:
        """Lowest and highest log loss that can be read."""
        falling = self._falling[1]
        return float(falling[-1]), float(falling[0])

    def log_steps_at(self, log_losses: Array) -> Array:
        """Log steps at which the curve first falls to each log loss, (levels,); NaN if it does not, or began below it."""
        if not self.readable:
            return np.full(len(log_losses), np.nan)
        grid, falling = self._falling
        right = np.searchsorted(-falling, -np.asarray(log_losses))
        inside = (right > 0) & (right < len(grid))
        right = np.clip(right, 1, len(grid) - 1)
        low, high = grid[right - 1], grid[right]
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = self.smooth(middle) <= log_losses
            low, high = np.where(below, low, middle), np.where(below, middle, high)
        return np.where(inside, high, np.nan)


def curves_of(runs: NDArray[np.str_], params: Array, batch: Array, steps: Array, loss: Array) -> list[Curve]:
    """Curves of a table's rows, one per run, in order of their first appearance."""
    found = []
    for run in dict.fromkeys(runs):
        rows = np.flatnonzero(runs == run)
        rows = rows[np.argsort(steps[rows])]
        found.append(Curve(str(run), float(params[rows[0]]), float(batch[rows[0]]), steps[rows], loss[rows]))
    return found
