"""Where the loss of one new run will lie, which is not where the law lies.

Three parts: the law under its refits of resampled runs; what is left between runs and between evaluations (the fit's
residuals, each refit with each of them); and, beyond the fitted sizes and tokens, at least the quantile of the fit's own
rolling hold-out at the same distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError

Array = NDArray[np.float64]

KINDS = ("mean", "new_run")
"""Interval of the law (what the mean of many runs would follow), and of one new run."""
QUANTILES = (np.arange(39) + 0.5) / 39
"""Of the residuals, each as likely as the next."""
SAME = 0.02
"""Difference of logarithms below which two values are the same size."""
NEIGHBOURS = 20
"""Fewest rows about a distance whose quantile is taken."""
CENTRES = 20
"""Most distances at which it is."""


def check_kind(kind: str) -> str:
    """The kind, if there is such an interval.

    Raises:
        UserError: for any other.
    """
    if kind not in KINDS:
        raise UserError(f"kind={kind}: allowed are mean (interval of the law) and new_run (of one new run)")
    return kind


@dataclass(frozen=True)
class Rolling:
    """Errors of the rolling hold-out along one axis, by distance.

    Args:
        largest: largest fitted value of the axis, from which distances of predictions count.
        distances, errors: ln(value / cut) and |log measured - log predicted| of each held-out row, ascending in the distance.
        mean: mean error over the folds, each fold's mean counting once; infinite where no fold could be made.
    """

    largest: float
    distances: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()
    mean: float = np.inf

    def least(self, values: Array, level: float) -> Array:
        """Least half-width, in log loss, of an interval at values of the axis, (n,); 0 inside the fitted range.

        The quantile of the errors about the same distance, nowhere smaller than at a shorter one; beyond the farthest
        distance that was held out it grows in proportion.
        """
        away = np.log(np.asarray(values, dtype=np.float64) / self.largest)
        if not self.distances:
            return np.zeros_like(away)
        distances, quantiles = self.curve(level)
        farther = np.maximum(away / distances[-1], 1.0)
        return np.where(away > SAME, np.interp(away, distances, quantiles) * farther, 0.0)

    def curve(self, level: float) -> tuple[Array, Array]:
        """(distance, quantile of the errors of the rows at the nearest distances), ascending in both."""
        distances, errors = np.array(self.distances), np.array(self.errors)
        known = np.unique(np.round(distances, 3))
        centres = known[np.unique(np.linspace(0, len(known) - 1, CENTRES).astype(int))]
        away = np.abs(distances - centres[:, None])
        within = np.sort(away, axis=1)[:, min(NEIGHBOURS, len(errors)) - 1]
        near = [errors[row <= reach + 1e-9] for row, reach in zip(away, within, strict=True)]
        return centres, np.maximum.accumulate([np.quantile(some, level) for some in near])


@dataclass(frozen=True)
class NewRun:
    """What a new run adds to the law's own interval.

    Args:
        noise: quantiles of the residuals of a run, log measured - log predicted, widened by the parameters' degrees of freedom.
        axes: rolling hold-out along params and tokens.
    """

    noise: tuple[float, ...]
    axes: Mapping[str, Rolling]

    @classmethod
    def of(cls, residuals: Array, runs: NDArray[np.str_], parameters: int, axes: Mapping[str, Rolling]) -> NewRun:
        """From the residuals of a fit and its rolling hold-out."""
        independent = len(np.unique(runs))
        widened = np.sqrt(independent / max(independent - parameters, 1))
        return cls(tuple(map(float, np.quantile(residuals, QUANTILES) * widened)), axes)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> NewRun:
        """From `plain`."""
        axes = {
            name: Rolling(axis["largest"], tuple(axis["distances"]), tuple(axis["errors"]))
            for name, axis in content["axes"].items()
        }
        return cls(tuple(content["noise"]), axes)

    def plain(self) -> dict[str, Any]:
        """As plain types, for fit.json."""
        axes = {
            name: {"largest": axis.largest, "distances": list(axis.distances), "errors": list(axis.errors)}
            for name, axis in self.axes.items()
        }
        return {"noise": list(self.noise), "axes": axes}

    def interval(self, log_loss: Array, refits: Array, sizes: Mapping[str, Array], level: float) -> tuple[Array, Array]:
        """(low, high) of the log loss of a new run at each point, each (n,).

        Args:
            log_loss: of the fit, (n,).
            refits: of each refit, (k, n).
            sizes: axis -> values, (n,).
        """
        drawn = (refits[:, None] + np.array(self.noise)[:, None]).reshape(-1, refits.shape[-1])
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
        least = self.least(sizes, level)
        return np.minimum(low, log_loss - least), np.maximum(high, log_loss + least)

    def least(self, sizes: Mapping[str, Array], level: float) -> Array:
        """Least half-width at each point, (n,): the larger of the axes'."""
        return np.asarray(
            np.max([axis.least(np.asarray(sizes[name]), level) for name, axis in self.axes.items()], axis=0)
        )


def law_interval(refits: Array, level: float) -> tuple[Array, Array]:
    """(low, high) of the log loss by the law, each (n,), from the log loss of each refit, (k, n)."""
    low, high = np.quantile(refits, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
