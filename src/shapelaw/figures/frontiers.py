"""Approach 1: the points that no other beats, and lines through their sizes (Gemstones, Figs 4 and 9 to 11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.figures import style
from shapelaw.figures.entry import Entry, Tables
from shapelaw.figures.evidence import Evidence
from shapelaw.figures.prescriptions import others
from shapelaw.fitting.line_fit import LineFit, LineOptions, fit_lines
from shapelaw.fitting.lines import TARGETS
from shapelaw.fitting.published import published_line
from shapelaw.runs import RunsTable

Array = NDArray[np.float64]

COSTS = {"flops": "training FLOPs", "device_hours": "device hours"}
METHODS = {"hull": ("convex hull", style.FITTED), "binning": ("binning", style.ENVELOPE)}
CHINCHILLA = 20.0
"""Tokens per parameter that Hoffmann et al. 2022 find best."""
TWENTY = "20 (Hoffmann et al.)"
SHARED = ("published", TWENTY, "Kaplan et al. 2020", "Chinchilla, refitted")
"""Names of lines that several panels have."""
ENOUGH = 400
"""Most points of a curve to draw."""


@dataclass(frozen=True)
class Asked:
    """The content of one figure: a data set, and the sizes that are regressed on the costs."""

    subset: str
    targets: Sequence[str]

    def tables(self, evidence: Evidence) -> Tables:
        """Every point (`points`), the optimal ones (`optimal`), and the lines through their sizes (`lines`)."""
        runs = evidence.runs(self.subset)
        costs = [cost for cost in COSTS if cost == "flops" or "device_hours" in runs.kept]
        optimal, lines = [], []
        for cost in costs:
            for method in METHODS:
                found = evidence.once(("lines", self.subset, cost, method), partial(_fit, evidence, runs, cost, method))
                optimal.append(_points(runs, costs).iloc[found.points].assign(cost=cost, method=method))
                lines += [_line(found, target, cost, method) for target in TARGETS]
        if evidence.published:
            lines += [_published(target, self.subset) for target in TARGETS if _has(target, self.subset)]
        tables = {"points": _points(runs, costs), "optimal": pd.concat(optimal), "lines": pd.DataFrame(lines)}
        return {name: frame.reset_index(drop=True) for name, frame in tables.items()}

    def draw(self, tables: Tables) -> Figure:
        """Losses above, sizes below; FLOPs on the left, device hours on the right."""
        costs = list(dict.fromkeys(tables["optimal"]["cost"]))
        rows = 1 + len(self.targets)
        figure, grid = style.panels(rows, len(costs), 1.75 * rows + 0.4, style.PAGE_INCHES * len(costs) / 2)
        for i, cost in enumerate(costs):
            column = grid[i :: len(costs)]
            _losses(column[0], tables, cost)
            for axes, target in zip(column[1:], self.targets, strict=True):
                _sizes(axes, tables, cost, target)
            column[-1].set_xlabel(COSTS[cost])
            lowest, highest = zip(*(axes.get_xlim() for axes in column), strict=True)
            for axes in column:
                axes.set_xlim(min(lowest), max(highest))
        _shared_legend(figure, grid)
        return figure


def _fit(evidence: Evidence, runs: RunsTable, cost: str, method: str) -> LineFit:
    """The lines for one cost; those of the hull have intervals."""
    resampling = evidence.bootstrap if method == "hull" else None
    return fit_lines(runs, LineOptions(method=method, cost=cost), resampling, evidence.seed)


def _points(runs: RunsTable, costs: Sequence[str]) -> pd.DataFrame:
    kept = runs.kept.assign(flops=runs.flops())
    kept = kept.assign(tokens_per_param=kept["tokens"] / kept["params"])
    return kept[["run", "params", "tokens", "tokens_per_param", "loss", *costs]]


def _line(found: LineFit, target: str, cost: str, method: str) -> dict[str, object]:
    line = found.lines[target]
    low, high = found.intervals.get(target, (None, None))
    row = {"cost": cost, "method": method, "target": target, "slope": line.slope, "intercept": line.intercept}
    return {**row, "low": low, "high": high}


def _published(target: str, subset: str) -> dict[str, object]:
    line = published_line(target, subset)
    row = {"cost": "flops", "method": "published", "target": target}
    return {**row, "slope": line.slope, "intercept": line.intercept, "low": None, "high": None}


def _has(target: str, subset: str) -> bool:
    try:
        published_line(target, subset)
    except UserError:
        return False
    return True


def _losses(axes: Axes, tables: Tables, cost: str) -> None:
    """Every run's curve in grey, and the points that each way of choosing takes."""
    for _, run in tables["points"].groupby("run"):
        some = run[run[cost] > 0].sort_values(cost)
        some = some.iloc[:: max(len(some) // ENOUGH, 1)]
        axes.plot(some[cost], some["loss"], color="#999999", linewidth=0.5, zorder=1)
    _chosen(axes, tables, cost, "loss")
    axes.set(xscale="log", yscale="log", ylabel="loss (nats per token)")
    shown = tables["optimal"].loc[tables["optimal"]["cost"] == cost, "loss"]
    axes.set_ylim(0.97 * shown.min(), min(1.1 * shown.max(), 8.0))
    style.plain_losses(axes)
    axes.legend(loc="upper right")


def _sizes(axes: Axes, tables: Tables, cost: str, target: str) -> None:
    """The chosen points' sizes and the lines through them."""
    _chosen(axes, tables, cost, target, named=False)
    lines = tables["lines"]
    lines = lines[(lines["cost"] == cost) & (lines["target"] == target)]
    hull = _optimal(tables, cost, "hull")
    ends = np.geomspace(hull[cost].min() / 3, hull[cost].max() * 10, 40)
    for _, line in lines.iterrows():
        _drawn(axes, line, ends, np.log(hull[cost].to_numpy()))
    if target == "tokens_per_param":
        axes.axhline(CHINCHILLA, color=style.NEUTRAL, linestyle="--", linewidth=0.9, label=TWENTY)
    axes.set(
        xscale="log",
        yscale="log",
        ylabel=target.replace("_per_param", " per parameter").replace("params", "parameters"),
    )
    low, high = axes.get_ylim()
    axes.set_ylim(low / 8 if target == "tokens_per_param" else low, high if target == "tokens_per_param" else 4 * high)
    if cost == "flops":
        _references(axes, ends, target)
    own = [line for line in axes.lines if _is_own(str(line.get_label()))]
    place: Literal["lower right", "upper left"] = "lower right" if target == "tokens_per_param" else "upper left"
    axes.legend(handles=own, fontsize=6, loc=place, frameon=True, edgecolor="none", framealpha=0.8)


def _is_own(label: str) -> bool:
    """Whether a line is named in its panel; names that begin with _ are matplotlib's own."""
    return label not in SHARED and not label.startswith("_")


def _references(axes: Axes, ends: Array, target: str) -> None:
    """Prescriptions of Kaplan et al. and of the refit of Chinchilla, if they lie within the panel."""
    low, high = axes.get_ylim()
    for label, (dash, (budgets, values)) in others(pd.Series(ends), target).items():
        if (np.asarray(values) > low).any() and (np.asarray(values) < high).any():
            axes.plot(budgets, values, dash, color=style.NEUTRAL, linewidth=0.9, label=label, zorder=1)
    axes.set_ylim(low, high)


def _shared_legend(figure: Figure, grid: Sequence[Axes]) -> None:
    """One legend above the panels for names that several panels share."""
    named: dict[str, Artist] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            if label in SHARED:
                named.setdefault(str(label), handle)
    if named:
        figure.legend(handles=list(named.values()), labels=list(named), loc="outside upper center", ncols=len(named))


def _drawn(axes: Axes, line: pd.Series, ends: Array, at: Array) -> None:
    """A line; the hull's has its interval around the centre of its fitted points."""
    method = str(line["method"])
    if method == "published":
        axes.plot(ends, _at(line, ends), "--", color="black", linewidth=0.9, label="published", zorder=4)
        return
    label, colour = METHODS[method]
    text = f"{label}: {_hundredths(line['slope'])}"
    if pd.notna(line["low"]):
        text += f" ({_hundredths(line['low'])} to {_hundredths(line['high'])})"
        middle = np.exp(at.mean())
        turned = [_at(line, middle) * (ends / middle) ** line[end] for end in ("low", "high")]
        axes.fill_between(ends, np.minimum(*turned), np.maximum(*turned), color=colour, alpha=style.BAND, linewidth=0)
    axes.plot(ends, _at(line, ends), color=colour, label=text, zorder=3)


def _hundredths(value: float) -> str:
    """Two decimals, without a sign on zero."""
    return f"{round(value, 2) + 0.0:.2f}"


def _at(line: pd.Series, cost: Array | float) -> Array:
    return np.asarray(np.exp(line["intercept"]) * np.asarray(cost) ** line["slope"])


def _optimal(tables: Tables, cost: str, method: str) -> pd.DataFrame:
    frame = tables["optimal"]
    return frame[(frame["cost"] == cost) & (frame["method"] == method)]


def _chosen(axes: Axes, tables: Tables, cost: str, name: str, named: bool = True) -> None:
    for method, marker, size in (("binning", ".", 1.6), ("hull", "x", 4.0)):
        some = _optimal(tables, cost, method)
        label, colour = METHODS[method]
        colour = "black" if method == "hull" else colour
        text = f"{label}, {len(some)} points" if named else None
        axes.plot(some[cost], some[name], marker, color=colour, markersize=size, label=text, linestyle="", zorder=2)


def caption(about: str) -> Callable[[Evidence, Tables], str]:
    """What is chosen and fitted, with the statement that the published lines agree with ours."""

    def text(evidence: Evidence, tables: Tables) -> str:
        said = (
            f"{about} Above: every run's loss, the vertices of the lower convex hull in logarithms (crosses) and the lowest "
            "point of each of 250 bins of the cost per decade (dots). Below: their sizes and least-squares lines, named by "
            f"slope; bands and brackets: {evidence.refits}, the band turned about the points' centre. Grey, over FLOPs: Kaplan "
            "et al. and the refit of Chinchilla, which prescribe by FLOPs alone."
        )
        if evidence.published:
            said += (
                " The published lines on FLOPs are the same to rounding. Device hours are the published seconds per step "
                "times devices."
            )
        return said

    return text


def _entry(name: str, number: str, title: str, about: str, asked: Asked) -> Entry:
    return Entry(name, number, title, asked.tables, asked.draw, caption(about))


ENTRIES = (
    _entry(
        "fig04_approach_1",
        "Fig 4",
        "Approach 1: tokens per parameter",
        "Approach 1 on the hot runs.",
        Asked("hot_477", ("tokens_per_param",)),
    ),
    _entry(
        "fig09_approach_1_all",
        "Fig 9",
        "Approach 1: all sizes",
        "Approach 1 on the hot runs.",
        Asked("hot_477", TARGETS),
    ),
    _entry(
        "fig10_approach_1_half_rate",
        "Fig 10",
        "Approach 1 at half the rate",
        "Approach 1 on the runs at half the rate.",
        Asked("lr_ablation_hot_477", TARGETS),
    ),
    _entry(
        "fig11_approach_1_cooldown",
        "Fig 11",
        "Approach 1 after cooldown",
        "Approach 1 on the losses after the cooldowns.",
        Asked("cool_end", TARGETS),
    ),
)
