"""The rainbow: how the exponent of the compute-optimal size depends on data, counting and approach (Gemstones, Fig 6)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.figures import style
from shapelaw.figures.entry import Entry, Tables
from shapelaw.figures.evidence import CannotDraw, Evidence
from shapelaw.figures.prescriptions import CHINCHILLA, KAPLAN_EXPONENT, others
from shapelaw.fitting.published import published_law, published_line
from shapelaw.fitting.rainbow import LINES, RainbowLine, row_of

Array = NDArray[np.float64]

COUNTINGS = {"total": "", "no_embedding": ", no embedding", "no_embedding_and_head": ", no embedding or head"}
SHORT = {"total": "", "no_embedding": ", no emb.", "no_embedding_and_head": ", no emb."}
COLOURS = [{"#000000": "#7F4F24", "#F0E442": "#8F8F1F"}.get(colour, colour) for colour in style.COLOURS]
"""Brown replaces black, which the published fits have, and the yellow is dark enough for names."""
APPROACHES = {"parametric": "approach 3 (law)", "hull": "approach 1 (hull)"}
UNIDENTIFIED = " (not identified)"
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
FEW = ("hot_100b+_512x", "slim_chinchilla", "hot_sampled_like_chinchilla", "lr_ablation_hot_sampled_like_chinchilla")
"""Data sets of one width, or of five models."""
GROUPS = {
    "approach 3, all parameters counted": ("parametric", ("total",)),
    "approach 3, no embedding": ("parametric", ("without",)),
    "approach 3, few models": ("parametric", ("few",)),
    "approach 1": ("hull", ("total", "without")),
}
"""Title of a panel -> its method and kinds of lines."""
REFERENCES = {
    "Kaplan et al. 2020": KAPLAN_EXPONENT,
    "Chinchilla, refitted": CHINCHILLA["beta"] / (CHINCHILLA["alpha"] + CHINCHILLA["beta"]),
}
"""Exponents of others."""
NAMES_APART = 0.09
"""Least distance of two names, as a share of a panel's height."""
FAN = (1e18, 1e26)
"""FLOPs over which the lines of the paper's runs are drawn."""


def table(evidence: Evidence) -> Tables:
    """A row per line that the data allow; `published` is the paper's exponent if it has one.

    Several data sets of the paper may correspond to one table of the user, which then has one line."""
    found: dict[tuple[int, str, str], tuple[RainbowLine, dict[str, object]]] = {}
    for line in LINES:
        with contextlib.suppress(UserError):
            runs = evidence.runs(line.subset)
            key = (id(runs), line.method, line.counting)
            if key not in found:
                fit = evidence.fit("params_tokens", line.subset, counting=line.counting, method=line.method)
                found[key] = line, row_of(line, runs, fit)
    lines = pd.DataFrame(
        one | ({"published": published_exponent(line)} if evidence.published else {})
        for line, one in found.values()
        if one["exponent"] is not None
    )
    if lines.empty or lines["exponent"].count() < 2:
        raise CannotDraw("fewer than two data sets can be fitted, so there is nothing to compare")
    flops = evidence.runs().flops()
    own = {} if evidence.published else {"fan": pd.DataFrame({"budget": [flops.min(), flops.max()]})}
    return {"lines": lines, **own}


def published_exponent(line: RainbowLine) -> float | None:
    """The paper's exponent for a line."""
    if line.method == "hull":
        return published_line("params", line.subset, line.counting).slope
    return published_law("params_tokens", line.subset, line.counting).compute_optimal_exponent


def draw(tables: Tables) -> Figure:
    """Best parameters over budgets, a panel for each group of lines, and beside them every exponent with its interval."""
    lines = tables["lines"]
    identified = lines[lines["exponent"].notna()]
    groups = {title: identified[_in_group(identified, title)] for title in GROUPS}
    groups = {title: some for title, some in groups.items() if len(some)}
    rows = max(len(groups), 2)
    figure = style.page(1.75 * rows + 0.3)
    grid = figure.add_gridspec(rows, 2)
    budgets = np.array(tables["fan"]["budget"] if "fan" in tables else FAN, dtype=np.float64)
    for i, (title, some) in enumerate(groups.items()):
        axes = style.plain(figure.add_subplot(grid[i, 0]))
        _absolute(axes, some, lines, budgets)
        axes.set_title(title)
        if i == len(groups) - 1:
            axes.set_xlabel("training FLOPs")
    _exponents(style.plain(figure.add_subplot(grid[:, 1])), lines)
    return figure


def _in_group(lines: pd.DataFrame, title: str) -> pd.Series:
    """Mask of the lines in a panel."""
    method, kinds = GROUPS[title]
    few = lines["subset"].isin(FEW)
    kind = np.where(few, "few", np.where(lines["counting"] == "total", "total", "without"))
    return (lines["method"] == method) & np.isin(kind, kinds)


def _absolute(axes: Axes, some: pd.DataFrame, every: pd.DataFrame, budgets: Array) -> None:
    """Lines of best parameters, named at their ends, beside those of Kaplan et al. and of Chinchilla."""
    ends = []
    for (_, one), colour in zip(some.iterrows(), _colours(some, every), strict=True):
        params = one["params_at_1e21"] * (budgets / 1e21) ** one["exponent"]
        dash = "-" if one["counting"] == "total" else "--"
        axes.plot(budgets, params, dash, color=colour, linewidth=1.0)
        without = SHORT[str(one["counting"])] if some["counting"].nunique() > 1 else ""
        ends.append((budgets[-1], params[-1], _data_set(one, "published" in every) + without, colour))
    axes.set(xscale="log", yscale="log", ylabel="best parameters", xlim=(budgets[0], budgets[-1]))
    low, high = axes.get_ylim()
    for label, (dash, (_, params)) in others(pd.Series(budgets), "params").items():
        if "published" in every or low <= params[-1] <= high:
            axes.plot(budgets, params, dash, color=style.NEUTRAL, linewidth=0.9, zorder=1)
            ends.append((budgets[-1], params[-1], label, style.NEUTRAL))
    axes.set_ylim(axes.get_ylim())
    style.name_ends(axes, ends, NAMES_APART)


def _exponents(axes: Axes, lines: pd.DataFrame) -> None:
    """A row for every line, by exponent within its approach, and rows of other authors."""
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
            ticks[row] = _name(one, "published" in lines) + ("" if pd.notna(one["exponent"]) else UNIDENTIFIED)
            row += 1
        if len(order):
            ticks[row] = title
            row += 1
    if "published" in lines:
        for i, (name, slope) in enumerate(REFERENCES.items()):
            axes.plot(slope, row + i, "d", color=style.NEUTRAL)
            ticks[row + i] = name
        row += len(REFERENCES)
        axes.plot([], [], "x", color="black", linestyle="none", label="published")
        axes.legend(loc="lower right")
    _row_names(axes, ticks)
    axes.set(xlabel="a of N ~ C^a", ylim=(-0.7, row - 0.3))


def _row_names(axes: Axes, ticks: Mapping[int, str]) -> None:
    """Names of the rows, on the right; those of the approaches are bold."""
    axes.yaxis.tick_right()
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=6)
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in APPROACHES.values() else "normal")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _name(one: pd.Series, in_words: bool) -> str:
    """A data set and the counting of its params."""
    return _data_set(one, in_words) + COUNTINGS[str(one["counting"])]


def _data_set(one: pd.Series, in_words: bool) -> str:
    """A data set; the paper's in words."""
    subset = str(one["subset"]).removesuffix("_477")
    return WORDS.get(subset, subset) if in_words else subset


def _colours(some: pd.DataFrame, every: pd.DataFrame) -> list[str]:
    """One colour for each data set, of some lines among all."""
    subsets = [str(name).removesuffix("_477") for name in some["subset"]]
    names = sorted({str(name).removesuffix("_477") for name in every["subset"]})
    return [COLOURS[names.index(name) % len(COLOURS)] for name in subsets]


def caption(evidence: Evidence, tables: Tables) -> str:
    """The meaning of the bars, and the distance of the published exponents from ours."""
    text = (
        "Best parameters for a budget (left; approach 3 by FLOPs of 6N) and their exponent a (right) by data set, counting of "
        f"parameters and approach; dashed: without embeddings. Bars: {evidence.refits}."
    )
    if tables["lines"]["exponent"].isna().any():
        text += " Rows without a bar: laws that fit these runs as well differ in the exponent, so it is not identified."
    if not evidence.published:
        return text
    lines = tables["lines"].dropna(subset=["exponent", "published"])
    off = (lines["exponent"] - lines["published"]).abs()
    worst = lines.iloc[int(np.argmax(off))]
    return (
        f"{text} Grey: Kaplan et al. and the refit of Chinchilla. Crosses: the published exponents. Approach 1 agrees to "
        "rounding. Of approach 3 many published fits stop short of the optimum, as their optimizer tests an objective that is "
        f"scaled by delta: the largest difference is {_name(worst, True)}, {worst['exponent']:.2f} here against "
        f"{worst['published']:.2f}."
    )


ENTRIES = (Entry("fig06_rainbow", "Fig 6", "The rainbow, with intervals", table, draw, caption),)
