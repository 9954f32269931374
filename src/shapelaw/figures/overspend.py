"""Overspend: the extra that runs of other shapes pay for their loss (Gemstones, Fig 7)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator
from numpy.typing import NDArray

from shapelaw.figures import style
from shapelaw.figures.entry import Entry, Tables, said
from shapelaw.figures.evidence import Evidence
from shapelaw.figures.prescriptions import OURS
from shapelaw.figures.shapes import shape_ticks, with_shapes
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.price import Cost, Throughput
from shapelaw.prescribe.studies import overspend, overspend_at_tokens, overspend_measured
from shapelaw.prescribe.world import World

Array = NDArray[np.float64]

COSTS = {"flops": "FLOPs", "device_hours": "GPU hours"}
TARGET_LOSS, TOKENS = 2.6, 3e11
CLIPPED = 0.75
"""Quantile of the overspend above which all have one colour, as in the paper."""
WORST_SIDES = ("bottom", "top", "center")
"""Positions of the names of the worst three shapes, which are mostly neighbours."""
OVERSPEND_SHOWN = (1.0, 10.0)
OVERSPEND_CONTOURS = (1.05, 1.2, 1.5, 2.0, 4.0)
NEVER = 1e3
"""Overspend, for contours, of a shape that never reaches the loss."""
NEAR = (0.07, 0.035)
"""Shares of the axes within which a second label would lie on the first."""


def same_tokens_table(evidence: Evidence) -> Tables:
    """The cost of every run over the frontier of the runs at the same tokens, by the paper's definition."""
    runs = with_shapes(evidence.runs())
    found = [overspend_at_tokens(runs, _tokens(evidence), unit).assign(unit=unit) for unit in _units(evidence)]
    return {"overspend": pd.concat(found, ignore_index=True)}


def same_tokens(tables: Tables) -> Figure:
    """A plane of widths and depths for each cost."""
    frame = tables["overspend"]
    units = list(dict.fromkeys(frame["unit"]))
    figure, grid = style.panels(1, len(units), 2.9, style.PAGE_INCHES * len(units) / 2)
    for axes, unit in zip(grid, units, strict=True):
        _plane(axes, frame[frame["unit"] == unit], COSTS[unit])
    grid[0].legend(loc="lower left", frameon=True, edgecolor="none", framealpha=0.8)
    return figure


def _plane(axes: Axes, table: pd.DataFrame, cost: str) -> None:
    """Shapes coloured by their overspend; stars on the frontier, and the worst named."""
    percent = 100 * (table["overspend"] - 1)
    norm = Normalize(0, max(float(percent.quantile(CLIPPED)), 1.0))
    points = axes.scatter(table["width"], table["depth"], 26, percent, cmap="viridis_r", norm=norm, edgecolors="black")
    points.set_linewidth(0.5)
    best = table[table["frontier"]]
    axes.plot(best["width"], best["depth"], "*", color=style.ENVELOPE, markersize=7, label="on the frontier", zorder=3)
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="depth", title=f"{cost} overspent")
    for i, side in zip(table.index[::-1], WORST_SIDES, strict=False):
        where = (float(table.loc[i, "width"]), float(table.loc[i, "depth"]))
        text = f"{percent[i]:.0f}%"
        axes.annotate(text, where, textcoords="offset points", xytext=(5, 0), fontsize=6.5, va=side)
    axes.margins(0.1)
    bar = axes.figure.colorbar(points, ax=axes, pad=0.02, extend="both")
    bar.set_label(f"{cost} over the frontier's (%)")
    shape_ticks(axes)


def all_tokens_tables(evidence: Evidence) -> Tables:
    """`measured`: the cost of every run's loss over that of the best runs; `by_law`: the same for every feasible shape."""
    runs = with_shapes(evidence.runs())
    fit = evidence.fit(OURS)
    world = World.of(fit, runs) if evidence.published else _trained_ranges(World.of(fit, runs))
    loss = TARGET_LOSS if evidence.published else _reachable(runs.kept)
    measured, by_law = [], []
    for name in _units(evidence):
        cost = Cost() if name == "flops" else Cost(name, Throughput.measured(runs, world))
        measured.append(overspend_measured(runs, _tokens(evidence), name).assign(unit=name))
        by_law.append(overspend(Problem(fit, world, cost, intervals=False), [loss]).assign(unit=name))
    return {"measured": pd.concat(measured, ignore_index=True), "by_law": pd.concat(by_law, ignore_index=True)}


def _trained_ranges(world: World) -> World:
    """The suite within the trained widths and depths, because few small shapes tell little about steps far beyond them."""
    (narrow, wide), (shallow, deep) = (map(int, world.domain.ranges[name]) for name in ("width", "depth"))
    rules = dataclasses.replace(
        world.rules, width_min=narrow, width_max=wide, depth_min=shallow, depth_max=deep, even_heads=False
    )
    return dataclasses.replace(world, rules=rules)


def _units(evidence: Evidence) -> list[str]:
    """Units of the compared costs, including device hours if runs have them."""
    kept = evidence.runs().kept
    return [name for name in COSTS if name == "flops" or (name in kept and kept[name].gt(0).any())]


def _tokens(evidence: Evidence) -> float:
    """The paper's 300B; for a user's own table, the largest of the counts at which most runs were validated."""
    if evidence.published:
        return TOKENS
    kept = evidence.runs().kept
    counts = kept.groupby("tokens")["run"].nunique()
    return float(counts[counts == counts.max()].index.max())


def _reachable(kept: pd.DataFrame) -> float:
    """The median of the runs' final losses, to three digits."""
    return float(f"{kept.sort_values('tokens').groupby('run')['loss'].last().median():.3g}")


def all_tokens(tables: Tables) -> Figure:
    """Measured above, by the law below; a column per cost."""
    units = list(dict.fromkeys(tables["measured"]["unit"]))
    figure, grid = style.panels(2, len(units), 5.2, style.PAGE_INCHES * len(units) / 2)
    for i, unit in enumerate(units):
        measured, by_law = (tables[name][tables[name]["unit"] == unit] for name in ("measured", "by_law"))
        _measured(grid[i], measured, COSTS[unit])
        _by_law(grid[len(units) + i], by_law, COSTS[unit])
    return figure


def _measured(axes: Axes, table: pd.DataFrame, cost: str) -> None:
    ratio = table["width"] / table["depth"]
    norm = style.log_norm(ratio.tolist())
    points = axes.scatter(
        table["params"], table["overspend"], c=ratio, norm=norm, cmap=style.SEQUENTIAL, s=18, zorder=3, linewidth=0
    )
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel=f"{cost} over the best runs'")
    ticks = [value for value in (1, 1.5, 2, 3, 5, 10, 20) if value <= 1.2 * table["overspend"].max()]
    axes.set_yticks(ticks, labels=[f"{value:g}" for value in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.12, y=0.1)
    _name_points(axes, table)
    axes.figure.colorbar(points, ax=axes, pad=0.02).set_label("width / depth")


def _name_points(axes: Axes, table: pd.DataFrame) -> None:
    """Names of the shapes, without those that would overlap another."""
    named: list[Array] = []
    spans = [np.ptp(np.log(table[name])) or 1.0 for name in ("params", "overspend")]
    for _, row in table.iloc[::-1].iterrows():
        place = np.log([row["params"], row["overspend"]]) / spans
        if all(abs(place[1] - other[1]) > NEAR[1] or abs(place[0] - other[0]) > 4 * NEAR[0] for other in named):
            named.append(place)
            where = (float(row["params"]), float(row["overspend"]))
            text = f"{row['width']:.0f}x{row['depth']:.0f}"
            axes.annotate(text, where, textcoords="offset points", xytext=(3, 2), fontsize=5.5)


def _by_law(axes: Axes, table: pd.DataFrame, cost: str) -> None:
    grid = table.pivot(index="depth", columns="width", values="overspend")
    values = np.where(np.isfinite(grid.to_numpy()), grid.to_numpy(), np.nan)
    norm = LogNorm(*OVERSPEND_SHOWN)
    mesh = axes.pcolormesh(
        grid.columns, grid.index, values, norm=norm, cmap="cividis_r", shading="nearest", rasterized=True
    )
    whole = np.minimum(grid.to_numpy(), NEVER)  # closed contours, though some shapes never reach the loss
    lines = axes.contour(grid.columns, grid.index, whole, levels=OVERSPEND_CONTOURS, colors="black", linewidths=0.6)
    style.name_contours(axes, lines, "{:g}x")
    best = table.iloc[int(np.argmin(table["overspend"]))]
    axes.plot(best["width"], best["depth"], "*", color="white", markeredgecolor="black", markersize=9)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02, extend="max")
    bar.set_ticks([1, 2, 3, 5, 10], labels=["1", "2", "3", "5", "10"])
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.set_label("cost over the lowest")
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="depth")
    axes.set_title(f"{cost} to a loss of {table['loss'].iloc[0]:g}")
    shape_ticks(axes)


ENTRIES = (
    Entry(
        "fig07_overspend",
        "Fig 7",
        "Overspend at the same tokens",
        same_tokens_table,
        same_tokens,
        said(
            "What each run paid for its loss at one token count, over the run of the frontier whose loss is nearest; the "
            "frontier (stars) is the convex hull of the runs at these tokens alone. Colours end at the third quartile; the "
            "three worst are named.",
            "As in the paper, at 300B tokens: 55% of FLOPs and 358% of GPU hours for the worst, where the paper's text says "
            "about 50% and more than 200%. Nearest in loss is not the same loss: some runs come out below the frontier. Over "
            "the hull's cost at a run's own loss the worst are 54% and 172%.",
        ),
    ),
    Entry(
        "beyond_overspend",
        "",
        "Overspend against every token count",
        all_tokens_tables,
        all_tokens,
        said(
            "Above: what each run paid for its loss at one token count, over what the convex hull of all runs pays for it; a "
            "name that would lie on another is left out. Below: the cost of reaching one loss by the interaction law for every "
            "feasible shape, over the lowest (star); of a table of one's own, within the widths and depths trained; GPU hours "
            "by measured steps, interpolated over shape; white: shapes that never reach the loss.",
            "The paper's Fig 7 compares runs of 300B tokens with each other. Against the hull of all token counts the "
            "small models pay most, as 300B tokens overtrain them.",
        ),
    ),
)
