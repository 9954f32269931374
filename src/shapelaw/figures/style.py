"""One look for all figures: readable at column width, colour-blind safe, without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

COLUMN_INCHES = 5.2
FITTED, ENVELOPE, NEUTRAL = "#0072B2", "#D55E00", "#555555"
"""Okabe and Ito's blue and vermilion, and a grey."""
SEQUENTIAL = "viridis"
MARKERS = "os^Dv<>phX"


def canvas(height_inches: float = 3.6, width_inches: float = COLUMN_INCHES) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)
    return figure, axes


def log_norm(values: Sequence[float]) -> LogNorm:
    """Logarithmic colour scale over positive values."""
    low, high = min(values), max(values)
    return LogNorm(low, high if high > low else 2 * low)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and PDF; the paths."""
    paths = [folder / f"{name}.{kind}" for kind in ("png", "pdf")]
    for path in paths:
        figure.savefig(path, dpi=160)
    return paths
