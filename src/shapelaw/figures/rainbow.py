"""The rainbow: how the exponent of the compute-optimal size depends on data, counting and approach (Gemstones, Fig 6)."""

from __future__ import annotations

import contextlib

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shapelaw.errors import UserError
from shapelaw.figures import style
from shapelaw.figures.entry import Entry, Tables
from shapelaw.figures.evidence import CannotDraw, Evidence
from shapelaw.fitting.published import published_law, published_line
from shapelaw.fitting.rainbow import LINES, RainbowLine, row_of

COUNTINGS = {"total": "", "no_embedding": ", no embedding", "no_embedding_and_head": ", no embedding or head"}
APPROACHES = {"parametric": "approach 3 (law)", "hull": "approach 1 (hull)"}
MARKERS = {"parametric": "o", "hull": "s"}
WORDS = {
    "hot": "10B to 100B tokens",
    "hot_100b+": "all tokens",
    "hot_100b+_512x": "width 512 only",
    "hot_120b+_only": "from 120B tokens",
    "cool_end": "after cooldowns",
    "lr_ablation_hot": "half the rate",
    "slim_chinchilla": "Chinchilla's own points",
    "hot_sampled_like_chinchilla": "tokens as Chinchilla's",
    "lr_ablation_hot_sampled_like_chinchilla": "half the rate, tokens as Chinchilla's",
}
"""The paper's data sets."""
FAN = (1e19, 1e23)
"""FLOPs over which the fan of the paper's runs is drawn."""


def table(evidence: Evidence) -> Tables:
    """A row per line that the data serve; `published` is the paper's exponent where it has one.

    Several data sets of the paper may be one table of one's own, which then has one line."""
    found: dict[tuple[int, str, str], tuple[RainbowLine, dict[str, object]]] = {}
    for line in LINES:
        with contextlib.suppress(UserError):
            runs = evidence.runs(line.subset)
            key = (id(runs), line.method, line.counting)
            if key not in found:
                fit = evidence.fit("params_tokens", line.subset, counting=line.counting, method=line.method)
                found[key] = line, row_of(line, runs, fit)
    rows = [
        one | ({"published": published_exponent(line)} if evidence.published else {})
        for line, one in found.values()
        if one["exponent"] is not None
    ]
    if len(rows) < 2:
        raise CannotDraw("fewer than two data sets can be fitted, so there is nothing to compare")
    flops = evidence.runs().flops()
    own = {} if evidence.published else {"fan": pd.DataFrame({"budget": [flops.min(), flops.max()]})}
    return {"lines": pd.DataFrame(rows), **own}


def published_exponent(line: RainbowLine) -> float | None:
    """The paper's exponent for a line."""
    if line.method == "hull":
        return published_line("params", line.subset, line.counting).slope
    return published_law("params_tokens", line.subset, line.counting).compute_optimal_exponent


def draw(tables: Tables) -> Figure:
    """The fan of all lines with their bands, and beside it every exponent with its interval."""
    lines = tables["lines"]
    figure, grid = style.panels(1, 2, 3.9)
    _fan(grid[0], lines, *(tables["fan"]["budget"] if "fan" in tables else FAN))
    _exponents(grid[1], lines)
    return figure


def _fan(axes: Axes, lines: pd.DataFrame, lowest: float, highest: float) -> None:
    """Every line through one point, so that only the exponents differ."""
    middle = np.sqrt(lowest * highest)
    budgets = np.geomspace(lowest, highest, 50)
    for (_, one), colour in zip(lines.iterrows(), _colours(lines, lines), strict=True):
        if pd.notna(one["low"]):
            ends = [(budgets / middle) ** one[end] for end in ("low", "high")]
            axes.fill_between(budgets, np.minimum(*ends), np.maximum(*ends), color=colour, alpha=0.06, linewidth=0)
        dash = "-" if one["method"] == "parametric" else "--"
        axes.plot(budgets, (budgets / middle) ** one["exponent"], dash, color=colour, linewidth=0.9)
    for title, dash in zip(APPROACHES.values(), ("-", "--"), strict=True):
        axes.plot([], [], dash, color=style.NEUTRAL, label=title)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="training FLOPs",
        ylabel=f"best parameters, relative to those at {middle:.0e} FLOPs",
    )
    axes.legend()


def _exponents(axes: Axes, lines: pd.DataFrame) -> None:
    """A row for every line, by exponent within its approach."""
    row, ticks = 0, {}
    for method, title in reversed(APPROACHES.items()):
        order = lines[lines["method"] == method].sort_values("exponent")
        for (_, one), colour in zip(order.iterrows(), _colours(order, lines), strict=True):
            axes.plot(
                [one["low"], one["high"]], [row, row], color=colour, linewidth=2.2, alpha=0.6, solid_capstyle="butt"
            )
            axes.plot(one["exponent"], row, MARKERS[method], color=colour)
            if pd.notna(one.get("published")):
                axes.plot(one["published"], row, "x", color="black", zorder=5)
            ticks[row] = _name(one, "published" in lines)
            row += 1
        if len(order):
            ticks[row] = title
            row += 1
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=6)
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in APPROACHES.values() else "normal")
    if "published" in lines:
        axes.plot([], [], "x", color="black", linestyle="none", label="published")
        axes.legend(loc="lower right")
    axes.set(xlabel="a of N ~ C^a", ylim=(-0.7, row - 0.3))
    axes.tick_params(axis="y", length=0)


def _name(one: pd.Series, in_words: bool) -> str:
    """A data set and the counting of its params; the paper's in words."""
    subset = str(one["subset"]).removesuffix("_477")
    return (WORDS.get(subset, subset) if in_words else subset) + COUNTINGS[str(one["counting"])]


def _colours(some: pd.DataFrame, every: pd.DataFrame) -> list[str]:
    """One colour for each data set, of some lines among all."""
    subsets = [str(name).removesuffix("_477") for name in some["subset"]]
    names = sorted({str(name).removesuffix("_477") for name in every["subset"]})
    colours = [style.NEUTRAL if colour == "#000000" else colour for colour in style.COLOURS]  # black is the published's
    return [colours[names.index(name) % len(colours)] for name in subsets]


def caption(evidence: Evidence, tables: Tables) -> str:
    """What the bars are, and how far the published exponents are from ours."""
    text = (
        "Exponent a of the compute-optimal parameters by data set, counting of parameters and approach. Bars and bands: "
        f"{evidence.refits}."
    )
    if not evidence.published:
        return text
    lines = tables["lines"].dropna(subset=["published"])
    off = (lines["exponent"] - lines["published"]).abs()
    worst = lines.iloc[int(np.argmax(off))]
    return (
        f"{text} Crosses: the published exponents. Approach 1 agrees to rounding. Of approach 3 many published fits stop short "
        f"of the optimum, as their optimizer tests an objective that is scaled by delta: the largest difference is "
        f"{_name(worst, True)}, {worst['exponent']:.2f} here against {worst['published']:.2f}."
    )


ENTRIES = (Entry("fig06_rainbow", "Fig 6", "The rainbow, with intervals", table, draw, caption),)
