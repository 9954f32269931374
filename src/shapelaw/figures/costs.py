"""The cost of choices other than the best: overtraining and a wrong aspect ratio (Gemstones, Fig 8)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from shapelaw.figures import style
from shapelaw.figures.entry import Entry, Tables, said
from shapelaw.figures.evidence import Evidence
from shapelaw.figures.industry import beside
from shapelaw.figures.prescriptions import EQ2, OURS
from shapelaw.figures.sizes import wide_world
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.studies import aspect_ratio_cost, overtraining

Array = NDArray[np.float64]

BUDGETS = (1e20, 1e21, 1e22, 1e23)
RATIOS = tuple(np.geomspace(4, 1024, 13))
RATIO_TICKS = (1, 4, 16, 64, 256, 1024)


def overtraining_tables(law: str) -> Callable[[Evidence], Tables]:
    """A row per budget and factor of tokens: the loss with its interval; and widely used models' losses."""

    def tables(evidence: Evidence) -> Tables:
        fit = evidence.fit(law)
        problem = Problem(fit, wide_world(fit, evidence), space="relaxed")
        found = [overtraining(problem, budget).assign(budget=budget) for budget in _budgets(evidence)]
        losses = pd.concat(found, ignore_index=True).assign(level=evidence.level)
        return {"losses": losses} | beside(evidence)

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
        _overtrained(axes, tables["losses"][tables["losses"]["budget"] == budget], budget)
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
    """Losses of widely used models within the panel, as ticks with names on its right, without names that would overlap."""
    low, high = axes.get_ylim()
    last = -np.inf
    for _, one in industry.sort_values("loss").iterrows():
        if low <= one["loss"] <= high and one["loss"] - last > 0.055 * (high - low):
            last = one["loss"]
            axes.annotate(
                f"- {one['name']}", (1.0, one["loss"]), xycoords=("axes fraction", "data"), fontsize=5, va="center"
            )


def aspect_tables(evidence: Evidence) -> Tables:
    """A row per budget and fixed ratio: its cost in loss and in budget, by the interaction law."""
    fit = evidence.fit(OURS)
    problem = Problem(fit, wide_world(fit, evidence), space="relaxed")
    ratios = RATIOS if evidence.published else _tried_ratios(evidence)
    found = [aspect_ratio_cost(problem, budget, ratios).assign(budget=budget) for budget in _budgets(evidence)[::2]]
    return {"costs": pd.concat(found, ignore_index=True)}


def _tried_ratios(evidence: Evidence) -> tuple[float, ...]:
    """Ratios from half the smallest to twice the largest trained one; further out the law has no data."""
    kept = evidence.runs().kept
    ratio = kept["width"] / kept["depth"]
    return tuple(np.geomspace(ratio.min() / 2, 2 * ratio.max(), len(RATIOS)))


def aspect(tables: Tables) -> Figure:
    """Loss above the lowest, and the budget that compensates for it."""
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
