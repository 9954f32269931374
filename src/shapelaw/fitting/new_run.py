"""The interval of the loss of one new run, as opposed to that of the law.

It has three parts: the law under its refits of resampled runs; the remaining variation between runs and between evaluations
(the fit's residuals, each refit with each of them); and, beyond the fitted sizes, tokens or compute, a factor by which such
intervals of the fit's own rolling hold-out should have been wider (`rolling.widening`).

Source of the factor: conformal prediction with errors in units of the predicted width (Lei et al. 2018, J. Am. Stat.
Assoc. 113, section 5.2), here over the folds of a rolling hold-out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError

Array = NDArray[np.float64]

KINDS = ("mean", "new_run")
"""Interval of the law (which the mean of many runs would follow), and of one new run."""
QUANTILES = (np.arange(39) + 0.5) / 39
"""Equally likely quantiles of the residuals."""
SAME = 0.02
"""Difference of logarithms below which two sizes are the same."""


def check_kind(kind: str) -> str:
    """The kind, if there is such an interval.

    Raises:
        UserError: for any other.
    """
    if kind not in KINDS:
        raise UserError(f"kind={kind}: allowed values are mean (interval of the law) and new_run (of one new run)")
    return kind


@dataclass(frozen=True)
class NewRun:
    """The part that a new run adds to the law's own interval.

    Args:
        noise: quantiles of a run's residuals, log measured - log predicted, widened for the parameters' degrees of freedom.
        largest: largest fitted params, tokens and compute (params x tokens).
        widening: factor of the interval beyond any of these.
        factors: for each axis, the factor that its rolling hold-out requires; `widening` is the largest of them and 1.
    """

    noise: tuple[float, ...]
    largest: Mapping[str, float]
    widening: float = 1.0
    factors: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, noise: Sequence[float], largest: Mapping[str, float], factors: Mapping[str, float]) -> NewRun:
        """With the widening that the factors require."""
        return cls(tuple(noise), largest, max([1.0, *factors.values()]), factors)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> NewRun:
        """From `plain`."""
        return cls(tuple(content["noise"]), content["largest"], content["widening"], content.get("factors", {}))

    def plain(self) -> dict[str, Any]:
        """As plain types, for fit.json."""
        kept = {"noise": list(self.noise), "largest": dict(self.largest), "widening": self.widening}
        return kept | ({"factors": dict(self.factors)} if self.factors else {})

    def interval(self, log_loss: Array, refits: Array, sizes: Mapping[str, Array], level: float) -> tuple[Array, Array]:
        """(low, high) of the log loss of a new run at each point, each (n,).

        Beyond the fitted range each end lies `widening` times as far from the log loss of the fit, which lies between them.

        Args:
            log_loss: log loss of the fit, (n,).
            refits: log loss of each refit, (k, n).
            sizes: params and tokens, (n,).
        """
        low, high = with_noise(refits, self.noise, level)
        more = np.where(self.beyond(sizes), self.widening - 1.0, 0.0)
        return low - more * np.maximum(log_loss - low, 0.0), high + more * np.maximum(high - log_loss, 0.0)

    def beyond(self, sizes: Mapping[str, Array]) -> NDArray[np.bool_]:
        """Whether points lie beyond the largest fitted params, tokens or compute, (n,)."""
        own = axes_of(sizes)
        away = [np.log(own[name] / largest) > SAME for name, largest in self.largest.items()]
        return np.asarray(np.any(away, axis=0))


def axes_of(sizes: Mapping[str, Array]) -> dict[str, Array]:
    """The axes of extrapolation: params, tokens, and their product, compute."""
    params, tokens = (np.asarray(sizes[name], dtype=np.float64) for name in ("params", "tokens"))
    return {"params": params, "tokens": tokens, "compute": params * tokens}


def noise_of(residuals: Array, runs: NDArray[np.str_], parameters: int) -> tuple[float, ...]:
    """Quantiles of a fit's residuals, widened for the degrees of freedom that its parameters take from the runs."""
    independent = len(np.unique(runs))
    widened = np.sqrt(independent / max(independent - parameters, 1))
    return tuple(map(float, np.quantile(residuals, QUANTILES) * widened))


def with_noise(refits: Array, noise: Sequence[float], level: float) -> tuple[Array, Array]:
    """(low, high), each (n,), over every refit, (k, n), with every quantile of the noise."""
    drawn = (refits[:, None] + np.array(noise)[:, None]).reshape(-1, refits.shape[-1])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def law_interval(refits: Array, level: float) -> tuple[Array, Array]:
    """(low, high) of the log loss by the law, each (n,), from the log loss of each refit, (k, n)."""
    low, high = np.quantile(refits, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
