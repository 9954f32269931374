"""The ends of a search's starts, and the best distinct ones of a stream of endpoints in constant memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shapelaw.errors import UserError

Array = NDArray[np.float64]

CONVERGED, MAX_ITER, BOUND_HIT = 0, 1, 2
"""Statuses of an endpoint."""
ROUNDING = 1e-29
"""Objective per point below which residuals are rounding errors (4e-15 of log loss)."""
SAME = 1e-7
"""Relative difference of objectives below which two endpoints are the same optimum."""
AT_BEST = 1e-6
"""Relative difference of objectives up to which a start counts as at the best optimum."""
MOST_DISTINCT = 64
"""Most distinct endpoints that are kept."""


@dataclass(frozen=True)
class Endpoints:
    """Where a batch of S starts ended.

    Args:
        thetas: (S, p).
        objectives: (S,); infinite if a start failed.
        statuses: (S,): CONVERGED, MAX_ITER or BOUND_HIT.
    """

    thetas: Array
    objectives: Array
    statuses: NDArray[np.int64]

    @classmethod
    def of(cls, thetas: ArrayLike, objectives: ArrayLike, converged: ArrayLike | None = None) -> Endpoints:
        """Endpoints of a solver, all of them converged unless it tells which are.

        Raises:
            UserError: unless there is one objective for each theta.
        """
        rows, values = np.atleast_2d(np.asarray(thetas, dtype=np.float64)), np.asarray(objectives, dtype=np.float64)
        if values.shape != rows.shape[:1]:
            raise UserError(
                f"solver: returned thetas of shape {rows.shape} and objectives of shape {values.shape}; expected are "
                "(S, p) and (S,)"
            )
        done = np.ones(len(values), dtype=bool) if converged is None else np.asarray(converged, dtype=bool)
        return cls(rows, np.where(np.isfinite(values), values, np.inf), np.where(done, CONVERGED, MAX_ITER))

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Endpoints:
        """Some of the endpoints."""
        return Endpoints(self.thetas[rows], self.objectives[rows], self.statuses[rows])

    @property
    def best(self) -> tuple[Array, float]:
        """(theta, objective) of the lowest."""
        lowest = int(np.argmin(self.objectives))
        return self.thetas[lowest], float(self.objectives[lowest])


@dataclass(frozen=True)
class Multistart:
    """The distinct best endpoints so far, best first, with the number of starts that ended in each."""

    endpoints: Endpoints
    counts: NDArray[np.int64]
    n_starts: int
    floor: float
    """Objective that rounding alone causes; endpoints below it are all the same."""

    @classmethod
    def empty(cls, parameters: int, points: float) -> Multistart:
        """No starts yet, for a law with this number of parameters on this number of points."""
        none = Endpoints(np.empty((0, parameters)), np.empty(0), np.empty(0, dtype=np.int64))
        return cls(none, np.empty(0, dtype=np.int64), 0, 1e3 * ROUNDING * points)

    def add(self, endpoints: Endpoints) -> Multistart:
        """With another block of endpoints; those without a finite objective only count as starts."""
        merged = self._merged(endpoints, np.ones(len(endpoints.objectives), dtype=np.int64))
        return replace(merged, n_starts=self.n_starts + len(endpoints.objectives))

    def polished(self, endpoints: Endpoints) -> Multistart:
        """With each endpoint replaced by its polished form (same order), counts carried over."""
        none = np.zeros(0, dtype=np.int64)
        return replace(self, endpoints=self.endpoints.take(slice(0, 0)), counts=none)._merged(endpoints, self.counts)

    def hopped(self, endpoints: Endpoints) -> Multistart:
        """With endpoints from hops, which count as no starts."""
        return self._merged(endpoints, np.zeros(len(endpoints.objectives), dtype=np.int64))

    def _merged(self, endpoints: Endpoints, counts: NDArray[np.int64]) -> Multistart:
        values = np.concatenate([self.endpoints.objectives, endpoints.objectives])
        order = np.argsort(values, kind="stable")
        order = order[np.isfinite(values[order])]
        if not len(order):
            return self
        every = Endpoints(
            np.concatenate([self.endpoints.thetas, endpoints.thetas]),
            values,
            np.concatenate([self.endpoints.statuses, endpoints.statuses]),
        ).take(order)
        apart = np.diff(every.objectives) > SAME * np.abs(every.objectives[:-1]) + self.floor
        first = np.concatenate([[0], np.flatnonzero(apart) + 1])
        totals = np.add.reduceat(np.concatenate([self.counts, counts])[order], first)
        return replace(self, endpoints=every.take(first[:MOST_DISTINCT]), counts=totals[:MOST_DISTINCT])

    @property
    def _at_best(self) -> NDArray[np.bool_]:
        """Which endpoints are at the best optimum."""
        values = self.endpoints.objectives
        return np.asarray(values <= values[0] * (1 + AT_BEST) + self.floor)

    @property
    def share_at_best(self) -> float:
        """Share of the starts that ended within 1e-6 (relative) of the best objective."""
        return float(self.counts[self._at_best].sum() / max(self.n_starts, 1))

    @property
    def next_basin(self) -> float | None:
        """Objective of the best endpoint outside the best optimum, or None."""
        others = self.endpoints.objectives[~self._at_best]
        return float(others[0]) if len(others) else None
