"""The gradient noise scale beside the critical batch, both against the loss."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from shapelaw.figures import style

APART = 0.004
"""Distance between the dots of neighbouring shapes, in log loss."""
QUARTILES = np.array([0.25, 0.5, 0.75])


def noise_and_critical(table: pd.DataFrame) -> Figure:
    """Dots: the noise scale of each run, by its shape; squares: their median at a loss, with quartiles; line: the critical
    batch of the contours.

    Args:
        table: run, loss, noise_tokens and, if known, width, depth and critical_tokens
            (`shapelaw.step_batch.noise_scale`).
    """
    figure, axes = style.canvas(3.2, 4.6)
    names = _names(table)
    for number, name in enumerate(names.unique()):
        colour, marker = style.COLOURS[number % len(style.COLOURS)], style.MARKERS[number % len(style.MARKERS)]
        one = table[names == name]
        shifted = one["loss"] * np.exp(APART * (number - (names.nunique() - 1) / 2))
        axes.plot(shifted, one["noise_tokens"], marker, color=colour, markersize=2.5, alpha=0.6, label=str(name))
    ends = table.groupby("loss")["noise_tokens"].quantile(QUARTILES).unstack()
    low, middle, high = (ends[quantile] for quantile in QUARTILES)
    axes.errorbar(
        *(ends.index, middle, [middle - low, high - middle]),
        fmt="s",
        color="black",
        markersize=4,
        linewidth=1,
        label="median, quartiles",
    )
    if "critical_tokens" in table:
        line = table.sort_values("loss")
        axes.plot(line["loss"], line["critical_tokens"], "--", color=style.NEUTRAL, label="B_crit of the contours")
    axes.set(xscale="log", yscale="log", xlabel="held-out loss (nats per token)", ylabel="noise scale (tokens)")
    axes.invert_xaxis()
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    style.legend_above(figure, [axes], 4)
    return figure


def _names(table: pd.DataFrame) -> pd.Series[str]:
    """The name of each row: the shape of its run, the smallest first, or the run."""
    if "width" not in table:
        return table["run"].astype(str)
    return table["width"].astype(str) + "x" + table["depth"].astype(str)
