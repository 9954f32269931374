"""The gradient noise scale beside the critical batch, both against the loss."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from shapelaw.figures import style


def noise_and_critical(table: pd.DataFrame) -> Figure:
    """Dots: the noise scale of each run, coloured by its shape; line: the critical batch of the contours.

    Args:
        table: run, loss, noise_tokens and, where they are known, width, depth and critical_tokens
            (`shapelaw.fitting.noise_scale`).
    """
    figure, axes = style.canvas()
    known = "width" in table
    names = table["width"].astype(str) + "x" + table["depth"].astype(str) if known else table["run"]
    order = names[table["width"].mul(table["depth"]).argsort()].unique() if known else names.unique()
    for number, name in enumerate(order):
        colour, marker = style.COLOURS[number % len(style.COLOURS)], style.MARKERS[number % len(style.MARKERS)]
        one = table[names == name]
        axes.plot(one["loss"], one["noise_tokens"], marker, color=colour, markersize=2.5, alpha=0.7, label=str(name))
    if "critical_tokens" in table:
        line = table.sort_values("loss")
        axes.plot(line["loss"], line["critical_tokens"], "--", color=style.NEUTRAL, label="B_crit of the contours")
    axes.set(yscale="log", xlabel="loss (nats per token)", ylabel="batch (tokens)")
    axes.invert_xaxis()
    axes.legend()
    return figure
