"""The paper's figures about prescriptions, as pure functions from tables to axes (Gemstones, arXiv 2502.06857).

Lines and points are ours; what the paper publishes is drawn beside them where it is given. Colours are Okabe and Ito's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from shapelaw.figures import style

Array = NDArray[np.float64]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's, in an order of falling contrast on white."""
PANELS = {
    "aspect_ratio": "width / depth",
    "tokens_per_param": "tokens per parameter",
    "params": "parameters",
    "tokens": "training tokens",
}
BAND = 0.18
KAPLAN_PF_DAY, KAPLAN_COEFFICIENT, KAPLAN_EXPONENT = 8.64e19, 1.6e9, 0.88
"""Kaplan et al. 2020: N = 1.6e9 (C / PF-day)^0.88, N without embeddings."""
CHINCHILLA = {"A": 482.006, "B": 2085.434, "alpha": 0.347813, "beta": 0.365854}
"""Besiroglu et al. 2024 (arXiv 2404.10102): N = G (C/6)^a with G and a of these."""
OVERSPEND_SHOWN = (1.0, 10.0)
OVERSPEND_CONTOURS = (1.05, 1.2, 1.5, 2.0, 4.0)
NEAR = (0.07, 0.035)
"""Shares of the axes within which a second label would lie on the first."""


def panels(rows: int, columns: int, width_inches: float = 7.0, height_inches: float = 5.0) -> tuple[Figure, list[Axes]]:
    """A figure with several pairs of axes, row by row."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    grid = [figure.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.5)
    return figure, grid


def prescriptions(grid: Sequence[Axes], curves: Mapping[str, pd.DataFrame], edges: pd.DataFrame | None = None) -> None:
    """Fig 5 (and 12-19, 21): best aspect ratio, tokens per parameter, parameters and tokens against the budget.

    Args:
        grid: four axes, for `PANELS` in order.
        curves: label -> table of `prescribe.studies.prescriptions_by_budget`; a curve without the column is left out of
            that panel. The part inside the fitted domain is drawn solid, the rest dashed.
        edges: bins of `prescribe.brute.bin_minima`, drawn where the paper draws them, at the left edge.
    """
    for axes, (name, label) in zip(grid, PANELS.items(), strict=True):
        for (law, curve), colour in zip(curves.items(), COLOURS, strict=False):
            if name in curve:
                _curve(axes, curve, name, law, colour)
        if edges is not None:
            _edges(axes, edges, name)
        if name in ("params", "tokens"):
            _others(axes, np.concatenate([curve["budget"] for curve in curves.values()]), name)
        axes.set(xscale="log", yscale="log", xlabel="training FLOPs", ylabel=label)
    few_ticks(grid)
    grid[2].legend(frameon=False, fontsize=6.5)


def _others(axes: Axes, budgets: Array, name: str) -> None:
    """What Kaplan et al. and the refit of Chinchilla prescribe, by 6N."""
    ends = np.array([budgets.min(), budgets.max()])
    p = CHINCHILLA
    scale = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    lines = {
        "Kaplan et al. 2020": (":", KAPLAN_COEFFICIENT * (ends / KAPLAN_PF_DAY) ** KAPLAN_EXPONENT),
        "Chinchilla, refitted": ("-.", scale * (ends / 6) ** (p["beta"] / (p["alpha"] + p["beta"]))),
    }
    for label, (line, params) in lines.items():
        values = params if name == "params" else ends / (6 * params)
        axes.plot(ends, values, line, color=style.NEUTRAL, linewidth=1.2, label=label)


def _curve(axes: Axes, curve: pd.DataFrame, name: str, law: str, colour: str) -> None:
    inside = curve["inside"].to_numpy(dtype=bool)
    if f"{name}_low" in curve:
        axes.fill_between(
            curve["budget"], curve[f"{name}_low"], curve[f"{name}_high"], color=colour, alpha=BAND, linewidth=0
        )
    axes.plot(curve["budget"], curve[name], "--", color=colour, linewidth=1.1, zorder=3, label=law)
    axes.plot(curve["budget"].where(inside), curve[name], "-", color=colour, linewidth=2.2, zorder=4)


def _edges(axes: Axes, edges: pd.DataFrame, name: str) -> None:
    values = edges.assign(
        aspect_ratio=edges["width"] / edges["depth"], tokens_per_param=edges["tokens"] / edges["params"]
    )
    axes.plot(
        edges["left"], values[name], "x", color=style.NEUTRAL, markersize=4, label="brute force at the bin's left edge"
    )


def few_ticks(grid: Sequence[Axes]) -> None:
    """Ticks of logarithmic axes a few decades apart, without names between them."""
    for axes in grid:
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())


def rainbow_fan(axes: Axes, table: pd.DataFrame, span: tuple[float, float] = (1e19, 1e23)) -> None:
    """Fig 6, as a fan: every line of the rainbow through one point, so that only the slopes differ, with their bands.

    Args:
        table: of `fitting.rainbow.rainbow`.
    """
    middle = np.sqrt(span[0] * span[1])
    budgets = np.geomspace(*span, 50)
    for (_, row), colour in zip(table.iterrows(), _line_colours(table), strict=True):
        if np.isfinite(row["low"]):
            ends = [(budgets / middle) ** row[end] for end in ("low", "high")]
            axes.fill_between(budgets, np.minimum(*ends), np.maximum(*ends), color=colour, alpha=0.06, linewidth=0)
        style_of = "-" if row["method"] == "parametric" else "--"
        axes.plot(budgets, (budgets / middle) ** row["exponent"], style_of, color=colour, linewidth=0.9)
    for method, line in (("approach 3 (law)", "-"), ("approach 1 (hull)", "--")):
        axes.plot([], [], line, color=style.NEUTRAL, label=method)
    axes.set(xscale="log", yscale="log", xlabel="training FLOPs", ylabel="best parameters over those at the middle")
    axes.legend(frameon=False, fontsize=7)


def rainbow_slopes(axes: Axes, table: pd.DataFrame, published: Mapping[str, float] | None = None) -> None:
    """Fig 6, as its slopes: exponent a of N ~ C^a of every line with its run-level interval, beside the published one.

    Args:
        table: of `fitting.rainbow.rainbow`.
        published: `SUBSET METHOD COUNTING` -> published slope.
    """
    order = table.sort_values("exponent").reset_index(drop=True)
    for i, ((_, row), colour) in enumerate(zip(order.iterrows(), _line_colours(order), strict=True)):
        axes.plot([row["low"], row["high"]], [i, i], color=colour, linewidth=2.4, alpha=0.6, solid_capstyle="butt")
        axes.plot(row["exponent"], i, "o" if row["method"] == "parametric" else "s", color=colour, markersize=4.5)
        key = f"{row['subset']} {row['method']} {row['counting']}"
        if published and key in published:
            axes.plot(published[key], i, "x", color="black", markersize=4.5, zorder=5)
    axes.set_yticks(range(len(order)), [_line_name(row) for _, row in order.iterrows()], fontsize=6.5)
    axes.plot([], [], "o", color=style.NEUTRAL, label="approach 3", markersize=4.5)
    axes.plot([], [], "s", color=style.NEUTRAL, label="approach 1", markersize=4.5)
    if published:
        axes.plot([], [], "x", color="black", label="published", markersize=4.5)
    axes.set(xlabel="a of N ~ C^a, 90% run-level interval", xlim=(-0.05, 1.3))
    axes.legend(frameon=False, fontsize=7, loc="lower right")


def _line_name(row: pd.Series) -> str:
    without = {"total": "", "no_embedding": ", no embedding", "no_embedding_and_head": ", no embedding or head"}
    return str(row["subset"]).replace("sampled_like_chinchilla", "like_chinchilla") + without[str(row["counting"])]


def _line_colours(table: pd.DataFrame) -> list[str]:
    """One colour for each data set."""
    subsets = [str(name).removesuffix("_477") for name in table["subset"]]
    names = sorted(set(subsets))
    return [COLOURS[names.index(name) % len(COLOURS)] for name in subsets]


def overspend_grid(axes: Axes, table: pd.DataFrame, cost: str) -> None:
    """Fig 7, for every shape by a law: cost of reaching one loss over the lowest cost, on width and depth.

    Args:
        table: of `prescribe.studies.overspend` for one loss.
        cost: what is spent, for the title.
    """
    grid = table.pivot(index="depth", columns="width", values="overspend")
    values = np.where(np.isfinite(grid.to_numpy()), grid.to_numpy(), np.nan)
    mesh = axes.pcolormesh(
        grid.columns,
        grid.index,
        values,
        norm=LogNorm(*OVERSPEND_SHOWN),
        cmap="cividis_r",
        shading="nearest",
        rasterized=True,
    )
    lines = axes.contour(grid.columns, grid.index, values, levels=OVERSPEND_CONTOURS, colors="black", linewidths=0.6)
    axes.clabel(lines, fmt=lambda level: f"{level:g}x", fontsize=6, inline_spacing=1)
    best = table.iloc[int(np.argmin(table["overspend"]))]
    axes.plot(best["width"], best["depth"], "*", color="white", markeredgecolor="black", markersize=10)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02, extend="max")
    bar.set_ticks([1, 2, 3, 5, 10], labels=["1", "2", "3", "5", "10"])
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.set_label("cost over the lowest")
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="depth")
    axes.set_title(f"{cost} to a loss of {table['loss'].iloc[0]:g}", fontsize=9)
    _plain_ticks(axes, (256, 512, 1024, 2048, 4096, 8192), (2, 5, 10, 20, 50, 100, 200))


def overspend_runs(axes: Axes, table: pd.DataFrame, cost: str) -> None:
    """Fig 7, measured: what every run paid for its loss over what the hull of all runs pays, against its parameters.

    Args:
        table: of `prescribe.studies.overspend_measured`.
        cost: what is spent, for the axis.
    """
    ratio = table["width"] / table["depth"]
    points = axes.scatter(
        table["params"],
        table["overspend"],
        c=ratio,
        norm=style.log_norm(ratio.tolist()),
        cmap=style.SEQUENTIAL,
        s=28,
        zorder=3,
    )
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel=f"{cost} over the best runs'")
    axes.set_yticks([1, 2, 5, 10, 20], labels=["1", "2", "5", "10", "20"])
    axes.yaxis.set_minor_locator(NullLocator())
    _name_points(axes, table)
    bar = axes.figure.colorbar(points, ax=axes, pad=0.02)
    bar.set_label("width / depth")


def _name_points(axes: Axes, table: pd.DataFrame) -> None:
    """Names of the shapes, but for those that would lie on another's."""
    named: list[Array] = []
    spans = [np.ptp(np.log(table[name])) or 1.0 for name in ("params", "overspend")]
    for _, row in table.iterrows():
        place = np.log([row["params"], row["overspend"]]) / spans
        if all(abs(place[1] - other[1]) > NEAR[1] or abs(place[0] - other[0]) > 4 * NEAR[0] for other in named):
            named.append(place)
            where = (float(row["params"]), float(row["overspend"]))
            text = f"{row['width']:.0f}x{row['depth']:.0f}"
            axes.annotate(text, where, textcoords="offset points", xytext=(4, 3), fontsize=5.5)


def overtrained(grid: Sequence[Axes], tables: Mapping[float, pd.DataFrame]) -> None:
    """Fig 8: predicted loss over the lowest when a budget is spent on more or fewer tokens than are best.

    Args:
        grid: an axes per budget.
        tables: budget -> table of `prescribe.studies.overtraining`.
    """
    for axes, (budget, table) in zip(grid, tables.items(), strict=True):
        best = float(table["loss"].iloc[int(np.argmin((table["factor"] - 1).abs()))])
        if "low" in table:
            axes.fill_between(
                table["factor"],
                table["low"],
                table["high"],
                color=style.FITTED,
                alpha=BAND,
                linewidth=0,
                label="90% interval",
            )
        axes.plot(table["factor"], table["loss"], "o-", color=style.FITTED, markersize=3.5)
        axes.axhline(best, color=style.NEUTRAL, linewidth=0.8, linestyle=":")
        axes.set(xscale="log", xlabel="tokens over the best", ylabel="loss (nats per token)")
        axes.set_title(f"{budget:.0e} FLOPs".replace("e+", "e"), fontsize=9)
        axes.set_xticks([0.25, 0.5, 1, 2, 4], labels=["1/4", "1/2", "1", "2", "4"])
        axes.xaxis.set_minor_locator(NullLocator())


def feasible(axes: Axes, shapes: pd.DataFrame, trained: pd.DataFrame) -> None:
    """Fig 22: every feasible shape near one of the sizes, and those that were trained.

    Args:
        shapes: width, depth, params.
        trained: width, depth.
    """
    norm = style.log_norm(shapes["params"].tolist())
    points = axes.scatter(shapes["width"], shapes["depth"], c=shapes["params"], norm=norm, cmap=style.SEQUENTIAL, s=9)
    axes.scatter(
        trained["width"], trained["depth"], s=48, facecolors="none", edgecolors=style.ENVELOPE, label="trained"
    )
    bar = axes.figure.colorbar(points, ax=axes, pad=0.02)
    bar.set_label("parameters")
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="depth")
    axes.set_title(f"{len(shapes)} feasible shapes, {len(trained)} trained", fontsize=9)
    axes.legend(frameon=False, fontsize=7, loc="lower left")
    _plain_ticks(axes, (256, 512, 1024, 2048, 4096, 8192), (2, 5, 10, 20, 50, 100, 200))


def flops_ratio(axes: Axes, width: Array, depth: Array, ratio: Array, trained: pd.DataFrame) -> None:
    """Fig 24: FLOPs per token of the exact count over 6 times the parameters.

    Args:
        width, depth: axes of the grid, (w,) and (d,).
        ratio: (d, w).
        trained: width, depth of the trained shapes.
    """
    mesh = axes.pcolormesh(width, depth, ratio, cmap="cividis", shading="nearest", rasterized=True)
    lines = axes.contour(width, depth, ratio, colors="white", linewidths=0.6)
    axes.clabel(lines, fmt="%.2f", fontsize=6, inline_spacing=1)
    axes.plot(trained["width"], trained["depth"], "o", color=style.ENVELOPE, markeredgecolor="white", markersize=4)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02)
    bar.set_label("FLOPs per token over 6N")
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="depth")
    _plain_ticks(axes, (256, 512, 1024, 2048, 4096, 8192), (2, 5, 10, 20, 50, 100, 200))


def _plain_ticks(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    """Plain numbers on two logarithmic axes."""
    for axis, values in ((axes.xaxis, x), (axes.yaxis, y)):
        axis.set_ticks(values, labels=[f"{value:g}" for value in values])
        axis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=7)
