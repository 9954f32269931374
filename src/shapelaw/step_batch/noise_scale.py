"""The gradient noise scale of tracked runs at given losses, beside the critical batch from contours of equal loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError

Floats = NDArray[np.float64]
AVERAGE = 20
"""Measurements of a running mean."""


def noise_at_losses(measured: pd.DataFrame, losses: Sequence[float], average: int = AVERAGE) -> pd.DataFrame:
    """B_simple = tr(Sigma) / |G|^2 of every run where it passes a loss, in tokens.

    |G|^2 and tr(Sigma) are averaged separately over `average` measurements around each; a mean of their ratios would be
    biased.

    Args:
        measured: one row per measurement, as `shapelaw.tracking.read_noise` gives: run, tokens, loss (nats per token),
            grad_sq, trace.
        losses: levels, nats per token.
        average: measurements of the running mean.

    Returns:
        run, loss, noise_tokens, and what the measurements say of the run (width, depth, batch_tokens); a level that a run
        does not pass, or where |G|^2 is not above 0, is left out.

    Raises:
        UserError: if no run passes any of the levels, with the reachable range.
    """
    rows = [row for run, one in measured.groupby("run") for row in _of_run(str(run), one, losses, average)]
    if not rows:
        low, high = measured["loss"].min(), measured["loss"].max()
        raise UserError(
            f"no run's noise scale is measured at these losses; they are measured from {low:.4g} to {high:.4g}"
        )
    fixed = [name for name in ("width", "depth", "batch_tokens") if name in measured]
    return pd.DataFrame(rows).merge(measured.groupby("run", as_index=False)[fixed].first(), on="run")


def _of_run(run: str, one: pd.DataFrame, losses: Sequence[float], average: int) -> list[dict[str, float | str]]:
    one = one.sort_values("tokens")
    means = one[["grad_sq", "trace"]].rolling(average, min_periods=1, center=True).mean()
    loss = np.minimum.accumulate(one["loss"].to_numpy(dtype=np.float64))  # the first time that a loss is reached
    kept = (means["grad_sq"] > 0).to_numpy() & (means["trace"] > 0).to_numpy()
    if kept.sum() < 2:
        return []
    x, y = loss[kept][::-1], np.log((means["trace"] / means["grad_sq"]).to_numpy()[kept])[::-1]
    return [
        {"run": run, "loss": level, "noise_tokens": float(np.exp(np.interp(level, x, y)))}
        for level in losses
        if x[0] <= level <= x[-1]
    ]


def beside_critical(noise: pd.DataFrame, critical: Callable[[Floats], Floats]) -> pd.DataFrame:
    """The noise scale over the critical batch at the same losses.

    Args:
        noise: of `noise_at_losses`.
        critical: loss -> B_crit in tokens, such as a fitted step-and-batch law's.

    Returns:
        the table with critical_tokens and ratio. A ratio that is the same at all losses says that both follow one course.
    """
    tokens = np.asarray(critical(noise["loss"].to_numpy(dtype=np.float64)), dtype=np.float64)
    return noise.assign(critical_tokens=tokens, ratio=noise["noise_tokens"] / tokens)
