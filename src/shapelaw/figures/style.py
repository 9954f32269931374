"""One look for all figures: readable at column width, colour-blind safe, without a display."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import scipy
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import (
    FuncFormatter,
    Locator,
    LogFormatter,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    ScalarFormatter,
)

from shapelaw.files import naming
from shapelaw.laws.base import UNITS

COLUMN_INCHES, PAGE_INCHES = 3.3, 6.8
"""Widths of a column and of a page of two."""
COLUMN_HEIGHT = 2.6
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's, in an order of falling contrast on white."""
FITTED, ENVELOPE, NEUTRAL = "#0072B2", "#D55E00", "#555555"
"""Blue and vermilion of the same, and a grey."""
SEQUENTIAL = "viridis"
MARKERS = "os^Dv<>phX"
BAND = 0.18
"""Opacity of intervals."""
MANY_DECADES = 1e4
"""Range of a logarithmic axis from which on ticks between its decades only blacken it."""
NAMES_APART = 0.07
"""Distance between contours' names, as a share of an axis."""
NAMED_FROM, JOINED_TO = 1.05, 1.04
"""Start of the names right of a panel, and end of the lines that join them to their curves, in widths of the panel."""
BARE_SPAN = 0.05
"""Span of an axis whose lines are level, as a share of their value."""
INSET = 0.85
"""Share of logarithmic axes' ends within which a contour is named."""
SHORT_AXIS = 10.0
"""Range of a logarithmic axis below which its ticks are even in the value itself."""
LEAST_TICKS, MOST_TICKS = 2, 6
"""Fewest and most ticks of a logarithmic axis."""
DOTS_PER_INCH = 200
"""Resolution of PNG files, and of anything but lines and text in PDF."""
CHARACTERS = 2
"""Added to the three characters that matplotlib assumes as the width of a label along the axis."""
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
ROUNDING = 1e-9
PLAIN = (1e-3, 1e4)
"""Values between which a tick is written without a power of ten."""
_LOOK: Any = {
    "font.size": 7.5,
    "axes.labelsize": 7.5,
    "axes.titlesize": 8,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,
}
"""Type that is readable at the figure's intended width; searchable text in PDF."""


def look() -> AbstractContextManager[None]:
    """The settings within which figures are drawn and saved."""
    return mpl.rc_context(_LOOK)


def canvas(height_inches: float = COLUMN_HEIGHT, width_inches: float = COLUMN_INCHES) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, a column wide."""
    figure, grid = panels(1, 1, height_inches, width_inches)
    return figure, grid[0]


def panels(
    rows: int, columns: int, height_inches: float = 4.6, width_inches: float = PAGE_INCHES
) -> tuple[Figure, list[Axes]]:
    """A figure with several pairs of axes, row by row, a page wide."""
    figure = page(height_inches, width_inches)
    return figure, [plain(figure.add_subplot(rows, columns, i + 1)) for i in range(rows * columns)]


def page(height_inches: float, width_inches: float = PAGE_INCHES) -> Figure:
    """A figure without axes, a page wide."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Axes) -> Axes:
    """Axes with a light grid and without a frame."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)
    return axes


def log_norm(values: Sequence[float]) -> LogNorm:
    """Logarithmic colour scale over positive values."""
    low, high = min(values), max(values)
    return LogNorm(low, high if high > low else 2 * low)


class RoundTicks(Locator):
    """Ticks of a logarithmic axis: its decades if it has three, else 1, 2 and 5 times them, 1 and 3 times, or even steps."""

    def __call__(self) -> Sequence[float]:
        """Their places on the present axis, as many as there is room for."""
        assert isinstance(self.axis, Axis)
        room = self.axis.get_tick_space() // (CHARACTERS if isinstance(self.axis, XAxis) else 1)
        low, high = sorted(self.axis.get_view_interval())
        return self._of(low, high, min(max(room, LEAST_TICKS), MOST_TICKS))

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Their places between two ends."""
        return self._of(vmin, vmax, MOST_TICKS)

    def _of(self, low: float, high: float, most: int) -> list[float]:
        if not 0 < low < high < np.inf:
            return []
        decades = _multiples(low, high, (1,))
        if len(decades) > LEAST_TICKS:
            return decades[:: int(np.ceil(len(decades) / most))]
        for digits in ((1, 2, 5), (1, 3), (1,)):
            ticks = _multiples(low, high, digits)
            if LEAST_TICKS <= len(ticks) <= most:
                return ticks
        even = MaxNLocator(most - 1, steps=[1, 2, 5, 10]).tick_values(low, high)
        return [float(tick) for tick in even if low <= tick <= high]


def _multiples(low: float, high: float, digits: Sequence[int]) -> list[float]:
    """Digits times powers of ten between two ends."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    return [tick for tick in ticks if low * (1 - ROUNDING) <= tick <= high * (1 + ROUNDING)]


def _round_label(value: float, _: int | None = None) -> str:
    """A tick's value: plain, or with a power of ten if it would be long (plain text, because formulas are slow to set)."""
    if PLAIN[0] <= value < PLAIN[1]:
        return f"{value:.4g}"
    digit, power = f"{value:e}".split("e")
    factor = "" if float(digit) == 1 else f"{float(digit):g}×"
    return f"{factor}10{str(int(power)).translate(RAISED)}"


def read_logs(grid: Sequence[Axes]) -> None:
    """Few, round and plain ticks on every logarithmic axis (also of colour bars) that has matplotlib's own, which overlap."""
    for axes in grid:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log" and isinstance(axis.get_major_formatter(), LogFormatter):
                axis.set_major_locator(RoundTicks())
                axis.set_major_formatter(FuncFormatter(_round_label))
                axis.set_minor_formatter(NullFormatter())
                low, high = sorted(axis.get_view_interval())
                if high > MANY_DECADES * low:
                    axis.set_minor_locator(NullLocator())


def plain_ticks(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    """Plain numbers on two logarithmic axes."""
    for axis, values in ((axes.xaxis, x), (axes.yaxis, y)):
        axis.set_ticks(values, labels=[f"{value:g}" for value in values])
        axis.set_minor_locator(NullLocator())


def legend_above(figure: Figure, grid: Sequence[Axes], columns: int) -> None:
    """One legend for all panels, above them, in which each name appears once."""
    named: dict[str, Artist] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(str(label), handle)
    figure.legend(handles=list(named.values()), labels=list(named), loc="outside upper center", ncols=columns)


def plain_losses(axes: Axes) -> None:
    """Losses as plain numbers on their logarithmic axis, which mostly spans less than a decade."""
    low, high = axes.get_ylim()
    if high < SHORT_AXIS * low:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


def name_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], apart: float) -> None:
    """Names right of a panel at the ends of its lines, each joined to its end; set limits and scales first.

    Args:
        ends: x, y, name and colour of each line.
        apart: least distance of two names, as a share of the panel's height.
    """
    shares = (axes.transScale + axes.transLimits).transform([end[:2] for end in ends]) if ends else np.empty((0, 2))
    order = np.argsort(shares[:, 1], kind="stable")
    joined = []
    for i, place in zip(order, spread_apart(shares[order, 1].tolist(), apart), strict=True):
        (x, y), (_, _, name, colour) = shares[i], ends[i]
        axes.text(NAMED_FROM, place, name, fontsize=6, color=colour, va="center", transform=axes.transAxes)
        joined.append([(x, y), (JOINED_TO, place)])
    colours = [ends[i][3] for i in order]
    thin = LineCollection(joined, linewidths=0.4, colors=colours, transform=axes.transAxes, clip_on=False, zorder=3)
    axes.add_collection(thin, autolim=False)


def spread_apart(places: Sequence[float], apart: float) -> list[float]:
    """Ascending places in 0 to 1, moved as little as possible (least squares) to be `apart`, or as far apart as fits.

    >>> [round(place, 2) for place in spread_apart([0.5, 0.52, 0.98, 0.99], 0.1)]
    [0.46, 0.56, 0.9, 1.0]
    """
    apart = min(apart, 1 / max(len(places) - 1, 1))
    steps = apart * np.arange(len(places))
    moved = scipy.optimize.isotonic_regression(np.asarray(places) - steps).x if len(places) else steps
    return [float(place) for place in np.clip(moved, 0.0, 1.0 - steps[-1:]) + steps]


def near_lines(axes: Axes) -> None:
    """Let the lines of a panel set its y-axis; bands extend it beyond the lines by at most the lines' own span."""
    drawn = [np.ravel(np.asarray(line.get_ydata(), dtype=np.float64)) for line in axes.lines]
    values = np.concatenate(drawn or [np.empty(0)])
    scale = np.log if axes.get_yscale() == "log" else np.asarray
    places = scale(values[np.isfinite(values) & ((values > 0) | (scale is not np.log))])
    if not len(places):
        return
    span = np.ptp(places) or BARE_SPAN * max(abs(float(places[0])), 1.0)
    ends = np.array([places.min() - span, places.max() + span])
    low, high = np.exp(ends) if scale is np.log else ends
    axes.set_ylim(max(low, axes.get_ylim()[0]), min(high, axes.get_ylim()[1]))


def name_contours(axes: Axes, lines: QuadContourSet, form: str) -> None:
    """Each contour's value once, where x times y is largest on it, without names that would touch another."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}
    spans, named = np.log([right / left, high / low]), list[np.ndarray]()
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        x, y = np.asarray(path.vertices).reshape(-1, 2).T
        inside = (x < right * INSET) & (x > left / INSET) & (y < high * INSET) & (y > low / INSET)
        best = int(np.argmax(np.where(inside, x * y, 0.0))) if len(x) else 0
        place = np.log([x[best], y[best]]) / spans if inside.any() else None
        if place is not None and all(np.abs(place - other).max() > NAMES_APART for other in named):
            named.append(place)
            where = (float(x[best]), float(y[best]))
            axes.annotate(form.format(level), where, fontsize=6, ha="center", va="center", bbox=box)


def save(figure: Figure, folder: Path, name: str, loss_unit: str = UNITS["loss"], *, as_pdf: bool = True) -> list[Path]:
    """Write a figure as PNG and optionally PDF, with its losses in their own unit; returns the paths."""
    if loss_unit != UNITS["loss"]:
        for text in figure.findobj(Text):
            text.set_text(text.get_text().replace(UNITS["loss"], loss_unit))
    read_logs(figure.axes)
    figure.set_dpi(DOTS_PER_INCH)
    png, pdf = (folder / f"{name}.{kind}" for kind in ("png", "pdf"))
    with naming(png):
        FigureCanvasAgg(figure).print_png(png)  # type: ignore[no-untyped-call]  # savefig would draw twice
    if not as_pdf:
        return [png]
    from matplotlib.backends.backend_pdf import FigureCanvasPdf  # its fonts take longer to load than a picture to draw

    figure.set_layout_engine("none")  # which keeps the places that were found: they are the same in the second file
    with naming(pdf):
        FigureCanvasPdf(figure).print_pdf(pdf, metadata={"CreationDate": None})  # type: ignore[no-untyped-call]
    return [png, pdf]
