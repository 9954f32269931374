"""Shapes: which are feasible, and what the usual count of their FLOPs omits (Gemstones, Figs 22 and 24)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shapelaw.counting import flops_per_token, params_total
from shapelaw.feasible import feasible_shapes
from shapelaw.figures import industry, style
from shapelaw.figures.entry import Entry, Tables, said
from shapelaw.figures.evidence import CannotDraw, Evidence
from shapelaw.prescribe.world import rules_of
from shapelaw.runs import RunsTable
from shapelaw.shapes import HEAD_SIZE, ShapeRules

SIZES = (50e6, 100e6, 500e6, 1e9, 2e9, 4e9, 7e9)
"""Parameters near which the paper's shapes were chosen."""
DEPTH_TICKS = (1, 2, 5, 10, 20, 50, 100, 200)
ASPECTS = (4, 16, 64, 256)
"""Width over depth of the guiding lines."""
OTHERS = (
    ("^", style.COLOURS[2]),
    ("P", style.COLOURS[3]),
    ("o", style.COLOURS[4]),
    ("s", style.COLOURS[0]),
    ("D", style.COLOURS[5]),
)
"""Marker and colour of earlier studies (green and purple in the paper), then of makers of widely used models."""


def feasible_table(evidence: Evidence) -> Tables:
    """Every feasible shape near one of the sizes (the paper's, or those of the runs), and the trained ones."""
    runs = with_shapes(evidence.runs())
    vocab, head = one_value(runs, "vocab_size"), int(one_value(runs, "head_size", HEAD_SIZE))
    rules = ShapeRules() if evidence.published else rules_of(runs, head)
    sizes = SIZES if evidence.published else tuple(sorted(set(runs.kept["params"].tolist())))
    found = feasible_shapes(rules, int(vocab), sizes)
    shapes = pd.DataFrame({"width": [one.width for one in found], "depth": [one.depth for one in found]})
    shapes["params"] = params_total(shapes["width"], shapes["depth"], int(vocab), head)
    return {"feasible": shapes, "trained": trained(runs)}


def feasible(tables: Tables) -> Figure:
    """Feasible shapes coloured by parameters; trained ones ringed."""
    shapes, own = tables["feasible"], tables["trained"]
    figure, axes = style.canvas(2.9)
    norm = style.log_norm(shapes["params"].tolist())
    points = axes.scatter(
        shapes["width"], shapes["depth"], c=shapes["params"], norm=norm, cmap=style.SEQUENTIAL, s=7, linewidth=0
    )
    axes.scatter(
        own["width"], own["depth"], s=34, facecolors="none", edgecolors=style.ENVELOPE, linewidth=0.9, label="trained"
    )
    figure.colorbar(points, ax=axes, pad=0.02).set_label("parameters")
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="depth")
    axes.set_title(f"{len(shapes)} feasible shapes, {len(own)} trained")
    axes.legend(loc="best", frameon=True, edgecolor="none")
    shape_ticks(axes)
    return figure


def ratio_table(evidence: Evidence) -> Tables:
    """FLOPs per token, exact and by 6N, over a grid of shapes."""
    runs = with_shapes(evidence.runs())
    vocab, head = int(one_value(runs, "vocab_size")), int(one_value(runs, "head_size", HEAD_SIZE))
    seq_len = int(one_value(runs, "seq_len", 2048))
    rules = rules_of(runs, head)
    width = np.geomspace(rules.width_min, rules.width_max, 120)
    depth = np.geomspace(rules.depth_min, rules.depth_max, 100)
    w, d = (values.ravel() for values in np.meshgrid(width, depth))
    exact = flops_per_token(w, d, vocab, seq_len, head, relaxed=True)
    usual = 6.0 * params_total(w, d, vocab, head, relaxed=True)
    grid = pd.DataFrame({"width": w, "depth": d, "flops_per_token": exact, "six_n": usual, "ratio": exact / usual})
    return {"grid": grid, "trained": trained(runs)}


def ratio(tables: Tables) -> Figure:
    """The ratio as colour with contours; trained shapes as dots."""
    grid = tables["grid"].pivot(index="depth", columns="width", values="ratio")
    own = tables["trained"]
    figure, axes = style.canvas(2.9)
    mesh = axes.pcolormesh(
        grid.columns, grid.index, grid.to_numpy(), cmap="cividis", shading="nearest", rasterized=True
    )
    lines = axes.contour(grid.columns, grid.index, grid.to_numpy(), colors="white", linewidths=0.6)
    style.name_contours(axes, lines, "{:.2f}")
    axes.plot(
        own["width"], own["depth"], "o", color=style.ENVELOPE, markeredgecolor="white", markersize=4, clip_on=False
    )
    figure.colorbar(mesh, ax=axes, pad=0.02).set_label("FLOPs per token over 6N")
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="depth")
    shape_ticks(axes)
    return figure


def shape_ticks(axes: Axes) -> None:
    """Ticks of a plane of widths and depths at usual values within its limits."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    widths = [2**k for k in range(3, 16) if left <= 2**k <= right]
    depths = [value for value in DEPTH_TICKS if low <= value <= high]
    style.plain_ticks(axes, widths, depths)


def with_shapes(runs: RunsTable) -> RunsTable:
    """The table, if its rows name width, depth and vocabulary.

    Raises:
        CannotDraw: otherwise.
    """
    if not runs.has_shapes or "vocab_size" not in runs.kept:
        raise CannotDraw("the runs do not name their width, depth and vocabulary")
    return runs


def own_shapes(runs: RunsTable) -> pd.DataFrame:
    """Shapes of a table, for figures that need no vocabulary.

    Raises:
        CannotDraw: if its rows do not name width and depth.
    """
    if not runs.has_shapes:
        raise CannotDraw("the runs do not name their width and depth")
    return trained(runs)


def one_value(runs: RunsTable, name: str, default: float | None = None) -> float:
    """A size of the runs' suite.

    Raises:
        CannotDraw: if it is unknown and has no default.
    """
    value = getattr(runs.suite, name)
    value = default if value is None else value
    if value is None:
        raise CannotDraw(f"the runs do not name their {name}")
    return float(value)


def trained(runs: RunsTable) -> pd.DataFrame:
    """Width, depth and parameters of every shape of a table."""
    kept = runs.kept[["width", "depth", "params"]].drop_duplicates(["width", "depth"])
    return kept.sort_values(["width", "depth"]).reset_index(drop=True)


def spread_table(evidence: Evidence) -> Tables:
    """Shapes of the runs, of earlier scaling studies, and of widely used models."""
    own = own_shapes(evidence.runs())
    tables = {"trained": own, "studies": industry.study_shapes(), "industry": industry.shapes()}
    return tables | ({"evaluated": evidence.models} if evidence.models is not None else {})


def spread(tables: Tables) -> Figure:
    """All on one plane, with lines of equal aspect ratio."""
    figure, axes = style.canvas(3.2)
    groups = [*tables["studies"].groupby("study", sort=False), *tables["industry"].groupby("family")]
    for (name, some), (marker, colour) in zip(groups, OTHERS, strict=True):
        axes.plot(some["width"], some["depth"], marker, color=colour, label=name, linestyle="", markeredgewidth=0.8)
    if (some := tables.get("evaluated")) is not None:
        axes.plot(some["width"], some["depth"], "x", color="black", label=industry.EVALUATED, linestyle="")
    own = tables["trained"]
    axes.plot(own["width"], own["depth"], "*", color="black", markersize=6, label="these runs", linestyle="")
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="depth")
    limits = axes.get_xlim(), axes.get_ylim()
    for ratio in ASPECTS:
        axes.plot(limits[0], np.array(limits[0]) / ratio, color=style.NEUTRAL, linewidth=0.5, zorder=0)
        place = min(limits[0][1] / 1.05, 0.93 * limits[1][1] * ratio)
        text = f"{ratio}"
        axes.annotate(text, (place, place / ratio), fontsize=5.5, color=style.NEUTRAL, ha="right", va="bottom")
    axes.set(xlim=limits[0], ylim=limits[1])
    style.legend_above(figure, [axes], 2)
    shape_ticks(axes)
    return figure


ENTRIES = (
    Entry(
        "fig02_shapes",
        "Fig 2",
        "Trained shapes beside others",
        spread_table,
        spread,
        said(
            "Width and depth of the runs, of the models of two earlier scaling studies (16 of Porian et al., 50 of Hoffmann et "
            "al.), and of 21 widely used models; grey lines: width over depth as named.",
            "The paper's selection of widely used models differs; it shows depth along the axis and width upwards.",
        ),
    ),
    Entry(
        "fig22_feasible_shapes",
        "Fig 22",
        "Feasible shapes",
        feasible_table,
        feasible,
        said(
            "Shapes that the rules allow within 5% of a size of the suite; rings: trained ones.",
            "The sizes are 50M, 100M, 500M, 1B, 2B, 4B and 7B parameters. Six of the 22 trained shapes lie outside: width 384 "
            "has an odd number of heads, and four others miss a size by more than 5%.",
        ),
    ),
    Entry(
        "fig24_flops_ratio",
        "Fig 24",
        "FLOPs counted exactly over six times the parameters",
        ratio_table,
        ratio,
        said(
            "Training FLOPs per token counted operation by operation, over 6N with all parameters. Dots: trained shapes."
        ),
    ),
)
