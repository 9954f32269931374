"""Loss curves of the runs (Gemstones, Fig 23), and the study of rates (Fig 3)."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from shapelaw.figures import style
from shapelaw.figures.entry import Entry, Tables, said
from shapelaw.figures.evidence import CannotDraw, Evidence
from shapelaw.lr_rules import NO_PATCH, lr_eff
from shapelaw.runs import RunsTable
from shapelaw.runs.fetch import fetch
from shapelaw.runs.registry import GEMSTONES, RATE_STUDY
from shapelaw.shapes import HEAD_SIZE, Shape

APART = 1.5
"""Ratio of neighbouring sizes from which models count as of another size."""
MOST_PANELS = 6
NAME = re.compile(r"PyGemma-(\d+)x(\d+)_.*_lr([0-9.e+-]+)_")
LR_BASE = 5.0
"""The paper's choice."""
DIVERGED = 1.35
"""Loss over the lowest above which a point is drawn at the panel's edge."""
FEWEST_RATES, FEWEST_SHAPES = 3, 2


def curves_table(evidence: Evidence) -> Tables:
    """Every validation: run, shape, parameters, tokens, loss, and the group of sizes it is drawn with."""
    runs = evidence.runs("hot_100b+_477")
    if not runs.has_shapes:
        raise CannotDraw("the runs do not name their width and depth")
    kept = runs.kept
    kept = kept[kept["tokens"] > 0] if "step" not in kept else kept[kept["step"] > 0]
    sizes = np.sort(kept["params"].unique())
    starts = np.concatenate([sizes[:1], sizes[1:][sizes[1:] / sizes[:-1] > APART]])
    if len(starts) > MOST_PANELS:
        starts = np.quantile(sizes, np.linspace(0, 1, MOST_PANELS + 1)[:-1], method="lower")
    group = np.searchsorted(starts, kept["params"], side="right")
    return {"curves": kept[["run", "width", "depth", "params", "tokens", "loss"]].assign(group=group)}


def curves(tables: Tables) -> Figure:
    """A panel per size of model, a line per run, coloured by aspect ratio and named in order of the final loss."""
    frame = tables["curves"]
    groups = sorted(frame["group"].unique())
    columns = 1 if len(groups) == 1 else 2
    rows = -(-len(groups) // columns)
    figure, grid = style.panels(rows, columns, 2.4 * rows)
    norm = style.log_norm((frame["width"] / frame["depth"]).tolist())
    for axes, group in zip(grid, groups, strict=False):
        _group(axes, frame[frame["group"] == group], norm)
    for axes in grid[len(groups) :]:
        axes.set_visible(False)
    bar = figure.colorbar(ScalarMappable(norm, style.SEQUENTIAL), ax=grid, pad=0.01, aspect=40)
    bar.set_label("width / depth")
    return figure


def _group(axes: Axes, frame: pd.DataFrame, norm: LogNorm) -> None:
    final = frame.sort_values("tokens").groupby("run").tail(1).sort_values("loss", ascending=False)
    dashes = ("-", "--", ":", "-.")
    for i, (_, last) in enumerate(final.iterrows()):
        run = frame[frame["run"] == last["run"]].sort_values("tokens")
        colour = colormaps[style.SEQUENTIAL](norm(last["width"] / last["depth"]))
        label = f"{last['width']:.0f}x{last['depth']:.0f}"
        axes.plot(run["tokens"], run["loss"], dashes[i % len(dashes)], color=colour, linewidth=0.9, label=label)
    low, high = frame["params"].min(), frame["params"].max()
    axes.set_title(f"{_millions(low)} to {_millions(high)} parameters")
    late = frame[frame["tokens"] > 0.02 * frame["tokens"].max()]
    room = 1.02 if len(final) <= 6 else 1.1  # for the names
    axes.set_ylim(0.995 * frame["loss"].min(), room * late["loss"].max())
    axes.set(xscale="log", yscale="log", xlabel="training tokens", ylabel="loss (nats per token)")
    axes.set_xlim(left=0.01 * frame["tokens"].max())
    style.plain_losses(axes)
    axes.legend(ncols=2 if len(final) > 6 else 1, fontsize=6, loc="upper right", handlelength=1.6)


def _millions(params: float) -> str:
    return f"{params / 1e9:.2f}B" if params >= 1e9 else f"{params / 1e6:.3g}M"


def rates_table(evidence: Evidence) -> Tables:
    """A row per shape and rate: width, depth, lr_eff, lr_base, loss; the paper's study, or the runs of a table."""
    return {"rates": published_rates() if evidence.published else tracked_rates(evidence.runs("every_rate"))}


def published_rates() -> pd.DataFrame:
    """The paper's study: four extreme shapes, 2B tokens each, rates as their names say."""
    raw = pd.read_csv(fetch(RATE_STUDY, GEMSTONES))
    rows = []
    for name, loss in zip(raw["Name"], raw["scaling/global_loss"], strict=True):
        found = NAME.match(str(name))
        assert found is not None, name
        width, depth, rate = int(found[1]), int(found[2]), float(found[3])
        base = rate / lr_eff(1.0, Shape(width, depth), patch=NO_PATCH)
        rows.append({"width": width, "depth": depth, "lr_eff": rate, "lr_base": base, "loss": float(loss)})
    return pd.DataFrame(rows).sort_values(["width", "depth", "lr_eff"]).reset_index(drop=True)


def tracked_rates(runs: RunsTable) -> pd.DataFrame:
    """Losses of a table's hot runs at the token count that most runs of one shape share."""
    if not runs.has_shapes or "lr_base" not in runs.kept:
        raise CannotDraw("the runs do not name their shape and lr_base")
    kept = runs.kept.dropna(subset=["lr_base"])
    last = kept.sort_values("tokens").groupby(["width", "depth", "lr_base"]).tail(1)
    rates = last.groupby(["width", "depth"])["lr_base"].transform("nunique")
    last = last[rates >= FEWEST_RATES]
    if last[["width", "depth"]].drop_duplicates().shape[0] < FEWEST_SHAPES:
        raise CannotDraw(f"fewer than {FEWEST_SHAPES} shapes were trained at {FEWEST_RATES} rates or more")
    head = (
        int(last["head_size"].mode().iloc[0]) if "head_size" in last and last["head_size"].notna().any() else HEAD_SIZE
    )
    scales = [
        lr_eff(1.0, Shape(int(width), int(depth), head), width_unit=HEAD_SIZE / head, patch=NO_PATCH)
        for width, depth in zip(last["width"], last["depth"], strict=True)
    ]
    found = last[["width", "depth", "lr_base", "loss"]].assign(lr_eff=last["lr_base"] * scales)
    return found.sort_values(["width", "depth", "lr_eff"])


def rates(tables: Tables) -> Figure:
    """Loss against the rate itself, and against the base rate: the minima move together."""
    frame = tables["rates"]
    figure, grid = style.panels(1, 2, 2.6)
    ceiling = DIVERGED * frame.groupby(["width", "depth"])["loss"].min().max()
    for axes, name, label in zip(
        grid, ("lr_eff", "lr_base"), ("lr_eff", "lr_base = lr_eff x width x sqrt(depth)"), strict=True
    ):
        for i, ((width, depth), one) in enumerate(frame.groupby(["width", "depth"])):
            _rates(axes, one, name, f"{width:.0f}x{depth:.0f}", i, ceiling)
        axes.set(xscale="log", xlabel=label, ylabel="loss (nats per token)")
        axes.set_ylim(top=1.03 * ceiling)
    grid[1].axvline(LR_BASE, color=style.NEUTRAL, linewidth=0.9, linestyle=":", label=f"lr_base {LR_BASE:g}")
    style.legend_above(figure, grid[1:], 5)
    return figure


def _rates(axes: Axes, one: pd.DataFrame, name: str, label: str, i: int, ceiling: float) -> None:
    colour, marker = style.COLOURS[i % len(style.COLOURS)], style.MARKERS[i % len(style.MARKERS)]
    axes.plot(one[name], np.minimum(one["loss"], 2 * ceiling), marker + "-", color=colour, label=label, clip_on=True)
    best = one.iloc[int(np.argmin(one["loss"]))]
    axes.plot(best[name], best["loss"], marker, color=colour, markersize=7, markerfacecolor="none")


ENTRIES = (
    Entry(
        "fig03_rates",
        "Fig 3",
        "One base rate for every shape",
        rates_table,
        rates,
        said(
            "Final loss against the rate (left) and against the base rate that the rule turns into it (right); rings: each "
            "shape's best. Lines that leave the panel diverged.",
            "Training loss after 2B tokens, the published study. The best base rates tried lie between 5.3 and 11.5; the rates "
            "tried are a factor of 2 to 5 apart.",
        ),
    ),
    Entry(
        "fig23_loss_curves",
        "Fig 23",
        "Loss curves",
        curves_table,
        curves,
        said(
            "Validation loss of every run, a panel per size; names in order of the final loss, the highest first. Colour: "
            "width over depth."
        ),
    ),
)
