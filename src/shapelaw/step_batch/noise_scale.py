"""The gradient noise scale of tracked runs at given losses, beside the critical batch from contours of equal loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.result import FitResult
from shapelaw.laws import get_law
from shapelaw.step_batch.law import StepsBatchLaw

Floats = NDArray[np.float64]
AVERAGE = 20
"""Number of measurements in a running mean."""
LEVELS = 12
"""Losses at which both are compared, spread over those of the contours."""


def noise_at_losses(measured: pd.DataFrame, losses: Sequence[float], average: int = AVERAGE) -> pd.DataFrame:
    """B_simple = tr(Sigma) / |G|^2 of every run at the points where it passes a loss, in tokens.

    |G|^2 and tr(Sigma) are averaged separately over `average` measurements around each; a mean of their ratios would be
    biased.

    Args:
        measured: one row per measurement, as from `shapelaw.tracking.read_noise`: run, tokens, loss (nats per token),
            grad_sq, trace.
        losses: levels, nats per token.
        average: measurements of the running mean.

    Returns:
        run, loss, noise_tokens, and the measurements' facts about the run (width, depth, batch_tokens); without levels that
        a run does not pass, or where |G|^2 is not above 0.

    Raises:
        UserError: if no run passes any of the levels, with the reachable range.
    """
    rows = [row for run, frame in measured.groupby("run") for row in _of_run(str(run), frame, losses, average)]
    if not rows:
        low, high = measured["loss"].min(), measured["loss"].max()
        raise UserError(f"no run has a noise scale at these losses; the measured losses are {low:.4g} to {high:.4g}")
    fixed = [name for name in ("width", "depth", "batch_tokens") if name in measured]
    return pd.DataFrame(rows).merge(measured.groupby("run", as_index=False)[fixed].first(), on="run")


def _of_run(run: str, frame: pd.DataFrame, losses: Sequence[float], average: int) -> list[dict[str, float | str]]:
    frame = frame.sort_values("tokens")
    means = frame[["grad_sq", "trace"]].rolling(average, min_periods=1, center=True).mean()
    loss = np.minimum.accumulate(frame["loss"].to_numpy(dtype=np.float64))  # the first time that a loss is reached
    usable = (means["grad_sq"] > 0).to_numpy() & (means["trace"] > 0).to_numpy()
    if usable.sum() < 2:
        return []
    x, y = loss[usable][::-1], np.log((means["trace"] / means["grad_sq"]).to_numpy()[usable])[::-1]
    return [
        {"run": run, "loss": level, "noise_tokens": float(np.exp(np.interp(level, x, y)))}
        for level in losses
        if x[0] <= level <= x[-1]
    ]


def beside_critical(noise: pd.DataFrame, critical: Callable[[Floats], Floats]) -> pd.DataFrame:
    """The noise scale over the critical batch at the same losses.

    Args:
        noise: result of `noise_at_losses`.
        critical: loss -> B_crit in tokens, such as that of a fitted step-and-batch law.

    Returns:
        the table with critical_tokens and ratio. If the ratio is the same at all losses, both follow the same course.
    """
    tokens = np.asarray(critical(noise["loss"].to_numpy(dtype=np.float64)), dtype=np.float64)
    return noise.assign(critical_tokens=tokens, ratio=noise["noise_tokens"] / tokens)


def compared(fit: FitResult, measured: pd.DataFrame) -> pd.DataFrame:
    """Noise scale, critical batch and their ratio, for every run at losses between the fit's contours.

    Args:
        fit: a fit by method=staged.
        measured: result of `shapelaw.tracking.read_noise`.

    Raises:
        UserError: for a fit of another law, or if no run measured its noise at these losses.
    """
    law = get_law(str(fit.law))
    if not isinstance(law, StepsBatchLaw):
        raise UserError(f"{fit.law}: has no critical batch; give a fit with method=staged law=steps_batch")
    contours = [float(row["loss"]) for row in fit.stages["critical_batch"]["contours"]]
    levels = np.geomspace(max(contours), min(contours), LEVELS).tolist()
    table = beside_critical(noise_at_losses(measured, levels), lambda loss: law.critical_batch(fit.parameters, loss))
    return table.sort_values([name for name in ("width", "depth", "run", "loss") if name in table], ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """By loss: the critical batch, and over the runs that pass it the median noise scale, its quartiles and their ratio."""
    groups = table.groupby("loss", sort=False)
    noise = groups["noise_tokens"]
    return pd.DataFrame(
        {
            "runs": groups.size(),
            "critical_tokens": groups["critical_tokens"].first(),
            "noise_tokens": noise.median(),
            "noise_low": noise.quantile(0.25),
            "noise_high": noise.quantile(0.75),
            "ratio": groups["ratio"].median(),
        }
    ).sort_index(ascending=False)
