"""What another choice than the best costs: overspend, overtraining, a wrong aspect ratio (Gemstones, Figs 7 and 8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator
from numpy.typing import NDArray

from shapelaw.figures import style
from shapelaw.figures.entry import Entry, Tables, said
from shapelaw.figures.evidence import Evidence
from shapelaw.figures.industry import models
from shapelaw.figures.prescriptions import EQ2, OURS, wide_world
from shapelaw.figures.shapes import shape_ticks, with_shapes
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.price import Cost, Throughput
from shapelaw.prescribe.studies import aspect_ratio_cost, overspend, overspend_measured, overtraining
from shapelaw.prescribe.world import World

Array = NDArray[np.float64]

COSTS = {"flops": "FLOPs", "device_hours": "GPU hours"}
TARGET_LOSS, TOKENS = 2.6, 3e11
OVERSPEND_SHOWN = (1.0, 10.0)
OVERSPEND_CONTOURS = (1.05, 1.2, 1.5, 2.0, 4.0)
NEVER = 1e3
"""What a shape that never reaches the loss counts as where contours are drawn."""
BUDGETS = (1e20, 1e21, 1e22, 1e23)
RATIOS = tuple(np.geomspace(4, 1024, 13))
RATIO_TICKS = (1, 4, 16, 64, 256, 1024)
NEAR = (0.07, 0.035)
"""Shares of the axes within which a second label would lie on the first."""


def overspend_tables(evidence: Evidence) -> Tables:
    """`measured`: what every run paid for its loss over what the best runs pay; `by_law`: the same of every feasible shape."""
    runs = with_shapes(evidence.runs())
    fit = evidence.fit(OURS)
    world = World.of(fit, runs) if evidence.published else _trained_ranges(World.of(fit, runs))
    tokens = TOKENS if evidence.published else _shared_tokens(runs.kept)
    loss = TARGET_LOSS if evidence.published else _reachable(runs.kept)
    costs = {"flops": Cost()}
    if "device_hours" in runs.kept and runs.kept["device_hours"].gt(0).any():
        costs["device_hours"] = Cost("device_hours", Throughput.measured(runs, world))
    measured, by_law = [], []
    for name, cost in costs.items():
        measured.append(overspend_measured(runs, tokens, name).assign(unit=name))
        by_law.append(overspend(Problem(fit, world, cost, intervals=False), [loss]).assign(unit=name))
    return {"measured": pd.concat(measured, ignore_index=True), "by_law": pd.concat(by_law, ignore_index=True)}


def _trained_ranges(world: World) -> World:
    """The suite within the widths and depths that were trained: few small shapes say little of steps far beyond them."""
    (narrow, wide), (shallow, deep) = (map(int, world.domain.ranges[name]) for name in ("width", "depth"))
    rules = dataclasses.replace(
        world.rules, width_min=narrow, width_max=wide, depth_min=shallow, depth_max=deep, even_heads=False
    )
    return dataclasses.replace(world, rules=rules)


def _shared_tokens(kept: pd.DataFrame) -> float:
    """The token count at which most runs were validated, the largest of them."""
    counts = kept.groupby("tokens")["run"].nunique()
    return float(counts[counts == counts.max()].index.max())


def _reachable(kept: pd.DataFrame) -> float:
    """The median of the runs' final losses, to three digits."""
    return float(f"{kept.sort_values('tokens').groupby('run')['loss'].last().median():.3g}")


def overspent(tables: Tables) -> Figure:
    """Measured above, by the law below; a column per cost."""
    units = list(dict.fromkeys(tables["measured"]["unit"]))
    figure, grid = style.panels(2, len(units), 5.2, style.PAGE_INCHES * len(units) / 2)
    for i, unit in enumerate(units):
        measured, by_law = (_where(tables[name], "unit", unit) for name in ("measured", "by_law"))
        _measured(grid[i], measured, COSTS[unit])
        _by_law(grid[len(units) + i], by_law, COSTS[unit])
    return figure


def _where(frame: pd.DataFrame, name: str, value: object) -> pd.DataFrame:
    return frame[frame[name] == value]


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
    """Names of the shapes, but for those that would lie on another's."""
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
    whole = np.minimum(grid.to_numpy(), NEVER)  # closed contours, though some shapes never get there
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


def overtraining_tables(law: str) -> Callable[[Evidence], Tables]:
    """A row per budget and factor of tokens: the loss with its interval; and widely used models' losses."""

    def tables(evidence: Evidence) -> Tables:
        fit = evidence.fit(law)
        problem = Problem(fit, wide_world(fit, evidence), space="relaxed")
        found = [overtraining(problem, budget).assign(budget=budget) for budget in _budgets(evidence)]
        losses = pd.concat(found, ignore_index=True).assign(level=evidence.level)
        return {"losses": losses} | ({"industry": models()} if evidence.published else {})

    return tables


def _budgets(evidence: Evidence) -> tuple[float, ...]:
    """The paper's budgets, or a table's own largest, two below and one beyond."""
    if evidence.published:
        return BUDGETS
    top = float(f"{evidence.runs().flops().max():.0e}")
    return tuple(top * 10.0**k for k in (-2, -1, 0, 1))


def overtrained(tables: Tables) -> Figure:
    """A panel per budget."""
    budgets = sorted(tables["losses"]["budget"].unique())
    figure, grid = style.panels(1, len(budgets), 2.4)
    for axes, budget in zip(grid, budgets, strict=True):
        _overtrained(axes, _where(tables["losses"], "budget", budget), budget)
        if "industry" in tables:
            _reference_losses(axes, tables["industry"])
    grid[0].set_ylabel("loss (nats per token)")
    style.legend_above(figure, grid[:1], 1)
    return figure


def _overtrained(axes: Axes, table: pd.DataFrame, budget: float) -> None:
    best = float(table["loss"].iloc[int(np.argmin((table["factor"] - 1).abs()))])
    if "low" in table:
        ends, label = (table["low"], table["high"]), f"{100 * table['level'].iloc[0]:g}% interval"
        axes.fill_between(table["factor"], *ends, color=style.FITTED, alpha=style.BAND, linewidth=0, label=label)
    axes.plot(table["factor"], table["loss"], "o-", color=style.FITTED, markersize=2.5)
    axes.axhline(best, color=style.NEUTRAL, linewidth=0.8, linestyle=":")
    style.near_lines(axes)
    axes.set(xscale="log", xlabel="tokens over the best")
    axes.set_title(f"{budget:.0e} FLOPs".replace("e+", "e"))
    axes.set_xticks([0.25, 0.5, 1, 2, 4], labels=["1/4", "1/2", "1", "2", "4"])
    axes.xaxis.set_minor_locator(NullLocator())


def _reference_losses(axes: Axes, industry: pd.DataFrame) -> None:
    """Losses of widely used models within the panel, as ticks with names on its right, those that would overlap left out."""
    low, high = axes.get_ylim()
    last = -np.inf
    for _, one in industry.sort_values("loss").iterrows():
        if low <= one["loss"] <= high and one["loss"] - last > 0.055 * (high - low):
            last = one["loss"]
            axes.annotate(
                f"- {one['name']}", (1.0, one["loss"]), xycoords=("axes fraction", "data"), fontsize=5, va="center"
            )


def aspect_tables(evidence: Evidence) -> Tables:
    """A row per budget and held ratio: what it costs in loss and in budget, by the interaction law."""
    fit = evidence.fit(OURS)
    problem = Problem(fit, wide_world(fit, evidence), space="relaxed")
    ratios = RATIOS if evidence.published else _tried_ratios(evidence)
    found = [aspect_ratio_cost(problem, budget, ratios).assign(budget=budget) for budget in _budgets(evidence)[::2]]
    return {"costs": pd.concat(found, ignore_index=True)}


def _tried_ratios(evidence: Evidence) -> tuple[float, ...]:
    """Ratios from half the smallest to twice the largest that was trained: further out the law has seen nothing."""
    kept = evidence.runs().kept
    ratio = kept["width"] / kept["depth"]
    return tuple(np.geomspace(ratio.min() / 2, 2 * ratio.max(), len(RATIOS)))


def aspect(tables: Tables) -> Figure:
    """Loss above the lowest, and the budget that makes up for it."""
    figure, grid = style.panels(1, 2, 2.6)
    frame = tables["costs"]
    for i, (budget, one) in enumerate(frame.groupby("budget")):
        colour, marker = style.COLOURS[i], style.MARKERS[i]
        for axes, name, scale in ((grid[0], "excess", 100.0), (grid[1], "budget_factor", 1.0)):
            if f"{name}_low" in one:
                low, high = (scale * one[f"{name}_{end}"] for end in ("low", "high"))
                axes.fill_between(one["aspect_ratio"], low, high, color=colour, alpha=style.BAND, linewidth=0)
            label = f"{budget:.0e} FLOPs".replace("e+", "e")
            axes.plot(one["aspect_ratio"], scale * one[name], marker + "-", color=colour, markersize=3, label=label)
            axes.set(xscale="log", xlabel="width / depth, held")
            left, right = axes.get_xlim()
            ticks = [tick for tick in RATIO_TICKS if left <= tick <= right]
            axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
    style.near_lines(grid[0])
    grid[0].set_ylabel("loss above the lowest (%)")
    grid[1].set(ylabel="budget to make up for it, times", yscale="log")
    most = float(frame["budget_factor"].replace(np.inf, np.nan).max())
    factors = [value for value in (1, 1.5, 2, 3, 5, 10, 20, 50) if value <= 1.3 * most]
    grid[1].set_yticks(factors, labels=[f"{value:g}" for value in factors])
    grid[1].yaxis.set_minor_locator(NullLocator())
    grid[0].legend()
    return figure


_OVERTRAINED = (
    "Predicted loss when a budget is spent on more or fewer tokens than are best, the shape re-optimised to pay for them; "
    "bands: {evidence.refits}; dotted: the lowest."
)
_NAMES_BESIDE = (
    "Names: losses of widely used models on the same text, per token of their own tokenizers, so that only the order of "
    "magnitude compares. Tokens change by 2^(k/2), tokens per parameter by about 2^k, as in the authors' code."
)

ENTRIES = (
    Entry(
        "fig07_overspend",
        "Fig 7",
        "Overspend of other shapes",
        overspend_tables,
        overspent,
        said(
            "Above: what each run paid for its loss at one token count, over what the convex hull of all runs pays for it; a "
            "name that would lie on another is left out. Below: the cost of reaching one loss by the interaction law for every "
            "feasible shape, over the lowest (star); of a table of one's own, within the widths and depths trained; GPU hours "
            "by measured steps, interpolated over shape; white: shapes that never reach the loss.",
            "Tokens: 300B, as in the paper, which shows the runs alone. Its text names about 50% (FLOPs) and 200% (GPU hours) "
            "for the worst; against the hull of all runs, as here, the small models pay most, as 300B tokens overtrain them.",
        ),
    ),
    Entry(
        "fig08_overtraining",
        "Fig 8",
        "Overtraining, by eq 2",
        overtraining_tables(EQ2),
        overtrained,
        said(
            f"{_OVERTRAINED} By eq 2.",
            f"{_NAMES_BESIDE} Eq 2 is at its own optimum here, which the published fit stops short of.",
        ),
    ),
    Entry(
        "fig08_overtraining_interaction",
        "Fig 8",
        "Overtraining, by the interaction law",
        overtraining_tables(OURS),
        overtrained,
        said(f"{_OVERTRAINED} By the interaction law.", f"{_NAMES_BESIDE} The paper shows eq 2 alone."),
    ),
    Entry(
        "beyond_aspect_ratio",
        "",
        "The price of a wrong aspect ratio",
        aspect_tables,
        aspect,
        said(
            "Width over depth is held and everything else re-optimised, by the interaction law: loss above the lowest of the "
            "budget (left) and the budget that reaches the lowest loss all the same, over the budget (right); bands: "
            "{evidence.refits}."
        ),
    ),
)
