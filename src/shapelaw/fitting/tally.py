"""Ends of a stream of starts in constant memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting.descent import ROUNDING

Array = NDArray[np.float64]

SAME = 1e-7
"""Relative difference of objectives below which two ends are the same optimum."""
AT_BEST = 1e-6
"""Relative difference of objectives up to which a start counts as having reached the best."""
KEPT = 64
"""Distinct ends that are kept."""


@dataclass(frozen=True)
class Ends:
    """Where a batch of starts ended."""

    thetas: Array
    """(S, p)"""
    objectives: Array
    """(S,)"""
    statuses: NDArray[np.int64]
    """(S,): CONVERGED, MAX_ITER or BOUND_HIT."""

    def take(self, rows: ArrayIndex) -> Ends:
        """Some of the ends."""
        return Ends(self.thetas[rows], self.objectives[rows], self.statuses[rows])


ArrayIndex = NDArray[np.int64] | NDArray[np.bool_] | slice


@dataclass(frozen=True)
class Tally:
    """The distinct best ends so far, best first, with the number of starts that ended in each."""

    ends: Ends
    counts: NDArray[np.int64]
    n_starts: int
    floor: float
    """Objective that rounding alone makes: ends below it are all the same."""

    @classmethod
    def empty(cls, parameters: int, points: float) -> Tally:
        """No starts yet, for a law of so many parameters on so many points."""
        none = Ends(np.empty((0, parameters)), np.empty(0), np.empty(0, dtype=np.int64))
        return cls(none, np.empty(0, dtype=np.int64), 0, 1e3 * ROUNDING * points)

    def add(self, ends: Ends) -> Tally:
        """With another block of ends; those without a finite objective only count as starts."""
        merged = self._merged(ends, np.ones(len(ends.objectives), dtype=np.int64))
        return replace(merged, n_starts=self.n_starts + len(ends.objectives))

    def polished(self, ends: Ends) -> Tally:
        """With each kept end replaced by its polished form (same order), counts carried over."""
        none = np.zeros(0, dtype=np.int64)
        return replace(self, ends=self.ends.take(slice(0, 0)), counts=none)._merged(ends, self.counts)

    def found(self, ends: Ends) -> Tally:
        """With ends that no start led to (hops): they count for none."""
        return self._merged(ends, np.zeros(len(ends.objectives), dtype=np.int64))

    def _merged(self, ends: Ends, counts: NDArray[np.int64]) -> Tally:
        values = np.concatenate([self.ends.objectives, ends.objectives])
        order = np.argsort(values, kind="stable")
        order = order[np.isfinite(values[order])]
        if not len(order):
            return self
        every = Ends(
            np.concatenate([self.ends.thetas, ends.thetas]),
            values,
            np.concatenate([self.ends.statuses, ends.statuses]),
        ).take(order)
        sorted_values = every.objectives
        apart = np.diff(sorted_values) > SAME * np.abs(sorted_values[:-1]) + self.floor
        first = np.concatenate([[0], np.flatnonzero(apart) + 1])
        totals = np.add.reduceat(np.concatenate([self.counts, counts])[order], first)
        return replace(self, ends=every.take(first[:KEPT]), counts=totals[:KEPT])

    def near(self, tolerance: float) -> NDArray[np.bool_]:
        """Which kept ends are within a relative tolerance of the best."""
        values = self.ends.objectives
        return np.asarray(values <= values[0] * (1 + tolerance) + self.floor)

    @property
    def share_at_best(self) -> float:
        """Share of the starts that ended within 1e-6 (relative) of the best objective."""
        return float(self.counts[self.near(AT_BEST)].sum() / max(self.n_starts, 1))

    @property
    def next_basin(self) -> float | None:
        """Objective of the best end outside the best optimum, or None."""
        others = self.ends.objectives[~self.near(AT_BEST)]
        return float(others[0]) if len(others) else None
