"""The coordinate check: sizes against width or depth, with a line for every step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from shapelaw.figures import style

NAMES = {
    "embedding": "embedding",
    "attention": "attention out",
    "mlp": "MLP out",
    "stream": "after last block",
    "logits": "logits",
    "qkv": "qkv",
    "out": "attention out",
    "gate_up": "gate, up",
    "down": "MLP out",
    "head": "head",
}
"""Titles of the parts."""
ROW_INCHES = 1.45
FEW_DECADES = 200.0
"""Ratio of highest to lowest below which ticks at 2 and 5 of each decade have labels too."""
LEAST_RANGE = 4.0
"""Least ratio of highest to lowest on a panel's axis, so that a flat line looks flat."""


def coordinates(lines: pd.DataFrame, rows: Mapping[tuple[str, str], str], over: str) -> Figure:
    """A panel for each part (columns), quantity and rule (rows); every column has one range for all rules.

    Args:
        lines: rule, quantity, part, step, x, value.
        rows: (quantity, rule) -> label of its axis, from the top.
        over: width or depth.
    """
    lines = lines[np.isfinite(lines["value"]) & (lines["value"] > 0)]
    if lines.empty:
        figure, axes = style.canvas()
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no size is finite and above 0", ha="center", va="center")
        return figure
    parts = [part for part in NAMES if part in set(lines["part"])]
    figure, grid = style.panels(len(rows), len(parts), 0.7 + ROW_INCHES * len(rows))
    norm = Normalize(0, max(int(lines["step"].max()), 1))
    panels = iter(grid)
    for number, ((quantity, rule), words) in enumerate(rows.items()):
        for part in parts:
            axes, chosen = next(panels), lines[(lines["quantity"] == quantity) & (lines["part"] == part)]
            _steps(axes, chosen[chosen["rule"] == rule], norm)
            _scales(axes, chosen, lines["x"], over if number == len(rows) - 1 else "")
            axes.set_ylabel(words if part == parts[0] else "")
            axes.set_title("" if number else NAMES[part])
    shown = ScalarMappable(norm, colormaps[style.SEQUENTIAL])
    figure.colorbar(shown, ax=grid, label="step", fraction=0.02, aspect=50, pad=0.01)
    return figure


def _steps(axes: Axes, lines: pd.DataFrame, norm: Normalize) -> None:
    for step in sorted(set(map(int, lines["step"]))):
        line = lines[lines["step"] == step].sort_values("x")
        axes.plot(line["x"], line["value"], "o-", color=colormaps[style.SEQUENTIAL](norm(step)), markersize=2, lw=0.9)


def _scales(axes: Axes, chosen: pd.DataFrame, x: pd.Series, label: str) -> None:
    """Logarithmic axes; the vertical one spans the values of all rules of the quantity, and at least LEAST_RANGE."""
    axes.set(xscale="log", yscale="log")
    sizes = sorted(set(x))
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes] if label else [""] * len(sizes), rotation=45)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)
    if not chosen.empty:
        low, high = chosen["value"].min(), chosen["value"].max()
        spare = max(1.15, (LEAST_RANGE * low / high) ** 0.5)
        axes.set_ylim(low / spare, high * spare)
        few = high * spare**2 < FEW_DECADES * low
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
