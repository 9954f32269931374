"""Figures of answers: a trade-off of steps and tokens, a predicted loss curve, and its comparison with the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from shapelaw.figures import style
from shapelaw.laws.base import UNITS
from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.prediction import Comparison


def draw(answer: Prescription, folder: Path, name: str) -> list[Path]:
    """Draw the table of an answer that has a figure; returns its files."""
    figure, axes = style.canvas(3.4, 5.2)
    {"trade_off": trade_off, "curve": curve}[answer.drawn](axes, answer)
    return list(style.save(figure, folder, name, answer.units.get("loss", UNITS["loss"])))


def trade_off(axes: Axes, answer: Prescription) -> None:
    """Steps (time) against tokens (compute) along the batches, with the critical batch in the middle."""
    table = answer.tables["trade_off"]
    names = ("steps", "tokens") if "steps" in table else ("steps_ratio", "tokens_ratio")
    axes.plot(table[names[1]], table[names[0]], "o-", color=style.FITTED, linewidth=1.2, markersize=4)
    for row in table.to_dict("records")[::2]:
        place = (float(row[names[1]]), float(row[names[0]]))
        axes.annotate(f"{row['batch_tokens']:,.0f}", place, (5, 3), textcoords="offset points", fontsize=7)
    middle = table.iloc[len(table) // 2]
    label = f"critical batch, {middle['batch_tokens']:,.0f} tokens"
    axes.plot(middle[names[1]], middle[names[0]], "s", color=style.ENVELOPE, markersize=7, label=label)
    if "batch_tokens" in answer.values and "steps" in answer.values:
        values = answer.values
        label = f"asked, {values['batch_tokens']:,.0f} tokens"
        axes.plot(values["tokens"], values["steps"], "D", color=style.NEUTRAL, label=label)
    words = (
        ("optimizer steps (time)", "tokens (compute)") if names[0] == "steps" else ("steps / S_min", "tokens / E_min")
    )
    axes.set(xscale="log", yscale="log", ylabel=words[0], xlabel=words[1], title=answer.question)
    axes.title.set_fontsize(9)
    axes.legend(frameon=False, fontsize=8)


def curve(axes: Axes, answer: Prescription) -> None:
    """A predicted loss curve with its interval, above the size's lowest loss."""
    _predicted(axes, answer.tables["curve"], answer.level)
    if "lowest_loss" in answer.values:
        axes.axhline(answer.values["lowest_loss"], color=style.NEUTRAL, linestyle=":", linewidth=1, label="L(N)")
    axes.set_title(answer.question, fontsize=8)
    _finish(axes)


def outcome(axes: Axes, comparison: Comparison) -> None:
    """A prediction, and the run that was trained after it was written."""
    _predicted(axes, pd.DataFrame(comparison.prediction["points"]), None)
    points = comparison.points
    axes.plot(points["steps"], points["loss"], ".", color=style.ENVELOPE, markersize=5, label="measured")
    error = points["error"].abs()
    shape = f"{comparison.prediction['width']:.0f}x{comparison.prediction['depth']:.0f}"
    batch = comparison.prediction.get("batch_tokens")
    at = f" at batches of {batch:,.0f} tokens" if batch else ""
    title = f"{shape}{at}: error {error.mean():.1%} on average, {error.max():.1%} at most"
    axes.set_title(title, fontsize=9)
    _finish(axes)


def _predicted(axes: Axes, table: pd.DataFrame, level: float | None) -> None:
    axes.plot(table["steps"], table["loss"], "-", color=style.FITTED, linewidth=1.4, label="predicted")
    if "loss_low" in table:
        label = f"{level:.0%} interval" if level else "interval"
        low, high = (np.asarray(table[name], dtype=float) for name in ("loss_low", "loss_high"))
        axes.fill_between(table["steps"], low, high, color=style.FITTED, alpha=0.15, linewidth=0, label=label)


def _finish(axes: Axes) -> None:
    axes.set(xscale="log", yscale="log", xlabel="optimizer steps", ylabel="held-out loss (nats per token)")
    style.plain_losses(axes)
    axes.legend(frameon=False, fontsize=8)
