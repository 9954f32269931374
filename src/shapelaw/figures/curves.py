"""Loss curves of the runs (Gemstones, Fig 23)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, to_hex
from matplotlib.figure import Figure

from shapelaw.figures import style
from shapelaw.figures.entry import Entry, Tables, said
from shapelaw.figures.evidence import CannotDraw, Evidence
from shapelaw.wording import in_words

APART = 1.35
"""Ratio of neighbouring sizes from which on models count as different sizes."""
MOST_PANELS = 6
LATE = 0.02
"""Share of the longest run from which on curves are drawn; before, they fall steeply and overlap."""
SHOWN = 0.9
"""Share of the colours to use: the last ones are too light for lines and names."""
DASHES = ("-", "--", ":", "-.")
NAMES_APART = 0.075
"""Least distance of two names, as a share of a panel's height."""


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
    """A panel per size of model, a line per run, coloured by aspect ratio and named at its end."""
    frame = tables["curves"]
    groups = sorted(frame["group"].unique())
    columns = 1 if len(groups) == 1 else 2
    rows = -(-len(groups) // columns)
    figure, grid = style.panels(rows, columns, 2.4 * rows)
    norm = style.log_norm((frame["width"] / frame["depth"]).tolist())
    for axes, group in zip(grid, groups, strict=False):
        _group(axes, frame[frame["group"] == group], norm)
    for axes in grid[len(groups) :]:
        axes.remove()
    colours = ListedColormap(colormaps[style.SEQUENTIAL](np.linspace(0, SHOWN, 256)))
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=grid[: len(groups)], pad=0.01, aspect=40)
    bar.set_label("width / depth")
    return figure


def _group(axes: Axes, frame: pd.DataFrame, norm: LogNorm) -> None:
    final = frame.sort_values("tokens").groupby("run").tail(1).sort_values("loss", ascending=False)
    ends = []
    for i, (_, last) in enumerate(final.iterrows()):
        run = frame[frame["run"] == last["run"]].sort_values("tokens")
        colour = colormaps[style.SEQUENTIAL](SHOWN * norm(last["width"] / last["depth"]))
        axes.plot(run["tokens"], run["loss"], DASHES[i % len(DASHES)], color=colour, linewidth=0.9)
        ends.append((last["tokens"], last["loss"], f"{last['width']:.0f}x{last['depth']:.0f}", to_hex(colour)))
    sizes = dict.fromkeys(map(in_words, (frame["params"].min(), frame["params"].max())))
    axes.set_title(f"{' to '.join(sizes)} parameters")
    most = frame["tokens"].max()
    late = frame[frame["tokens"] > LATE * most]
    axes.set_ylim(0.995 * frame["loss"].min(), 1.005 * late["loss"].max())
    axes.set(xscale="log", yscale="log", xlabel="training tokens", ylabel="loss (nats per token)")
    axes.set_xlim(LATE * most, most)
    style.plain_losses(axes)
    style.name_ends(axes, ends, NAMES_APART)


ENTRIES = (
    Entry(
        "fig23_loss_curves",
        "Fig 23",
        "Loss curves",
        curves_table,
        curves,
        said(
            "Validation loss of every run, a panel per size, from 2% of the longest run on. Colour: width over depth.",
            "The paper draws all of them in one panel.",
        ),
    ),
)
