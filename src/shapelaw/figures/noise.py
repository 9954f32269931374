"""The gradient noise scale beside the critical batch, both against the loss."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from shapelaw.figures import style


def noise_and_critical(table: pd.DataFrame) -> Figure:
    """Dots: the noise scale of each run; line: the critical batch of the contours.

    Args:
        table: run, loss, noise_tokens and, where it is known, critical_tokens (`shapelaw.fitting.noise_scale`).
    """
    figure, axes = style.canvas()
    for number, (run, one) in enumerate(table.groupby("run")):
        colour, marker = style.COLOURS[number % len(style.COLOURS)], style.MARKERS[number % len(style.MARKERS)]
        axes.plot(one["loss"], one["noise_tokens"], marker, color=colour, label=str(run))
    if "critical_tokens" in table:
        line = table.sort_values("loss")
        axes.plot(line["loss"], line["critical_tokens"], "--", color=style.NEUTRAL, label="B_crit of the contours")
    axes.set(yscale="log", xlabel="loss (nats per token)", ylabel="batch (tokens)")
    axes.invert_xaxis()
    axes.legend()
    return figure
