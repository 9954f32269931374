"""Loss curves of the runs (Gemstones, Fig 23)."""

from __future__ import annotations

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
from shapelaw.wording import in_words

APART = 1.5
"""Ratio of neighbouring sizes from which models count as of another size."""
MOST_PANELS = 6


def curves_table(evidence: Evidence) -> Tables:
    """Every validation: run, shape, parameters, tokens, loss, and the group of sizes it is drawn with."""
    runs = evidence.runs("hot_100b+_477")
    if not runs.has_shapes:
        raise CannotDraw("the runs do not name their width and depth")
    kept = runs.kept
    kept = kept[kept["tokens"] > 0] if "step" not in kept else kept[kept["step"] > 0]
    kept = kept[kept.groupby("run")["tokens"].transform("size") > 1]
    if kept.empty:
        raise CannotDraw("every run has one validation, so there are no curves")
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
    sizes = dict.fromkeys(map(in_words, (frame["params"].min(), frame["params"].max())))
    axes.set_title(f"{' to '.join(sizes)} parameters")
    late = frame[frame["tokens"] > 0.02 * frame["tokens"].max()]
    room = 1.02 if len(final) <= 6 else 1.1  # for the names
    axes.set_ylim(0.995 * frame["loss"].min(), room * late["loss"].max())
    axes.set(xscale="log", yscale="log", xlabel="training tokens", ylabel="loss (nats per token)")
    axes.set_xlim(left=0.01 * frame["tokens"].max())
    style.plain_losses(axes)
    axes.legend(ncols=2 if len(final) > 6 else 1, fontsize=6, loc="upper right", handlelength=1.6)


ENTRIES = (
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
