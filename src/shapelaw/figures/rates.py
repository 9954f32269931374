"""The study of rates (Gemstones, Fig 3): does one base rate suit every shape?"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shapelaw.errors import UserError
from shapelaw.figures import style
from shapelaw.figures.entry import Entry, Tables
from shapelaw.figures.evidence import CannotDraw, Evidence
from shapelaw.fitting.rates import best_rates, spread
from shapelaw.lr_rules import NO_PATCH, lr_eff
from shapelaw.runs import RunsTable
from shapelaw.runs.fetch import fetch
from shapelaw.runs.registry import GEMSTONES, RATE_STUDY
from shapelaw.shapes import HEAD_SIZE, Shape

NAME = re.compile(r"PyGemma-(\d+)x(\d+)_.*_lr([0-9.e+-]+)_")
LR_BASE = 5.0
"""The paper's choice."""
DIVERGED = 1.35
"""A point whose loss over the lowest exceeds this is drawn at the panel's edge."""
FEWEST_RATES, FEWEST_SHAPES = 3, 2
SHAPE = ["width", "depth"]
RULED, PLAIN = "lr_base", "lr_eff"
"""Columns of the rate: the one that the rule multiplies, and the rate itself."""


def rates_table(evidence: Evidence) -> Tables:
    """`rates`: a row per shape and rate (width, depth, lr_eff, lr_base, loss), from the paper's study or a table's runs;
    `best`: the best rate of each shape, as lr_base and as lr_eff; `spread`: how far these lie apart, if two shapes have one.
    """
    frame = published_rates() if evidence.published else tracked_rates(evidence.runs("every_rate"))
    best = {rate: best_rates(frame, rate) for rate in (RULED, PLAIN)}
    tables = {"rates": frame, "best": pd.concat([found.assign(rate_is=rate) for rate, found in best.items()])}
    try:
        rows = [{"rate_is": rate, **vars(spread(found))} for rate, found in best.items()]
    except UserError:
        return tables
    return tables | {"spread": pd.DataFrame(rows)}


def said_of_rates(evidence: Evidence, tables: Tables) -> str:
    """The caption: what is shown, and how well the rule holds on these runs."""
    shown = (
        "Loss against the rate (left) and against the base rate that the rule turns into it (right), of each shape at the "
        "token count that most of its rates share; rings: each shape's best. Lines that leave the panel diverged. "
    )
    if evidence.published:
        shown += "Training loss after 2B tokens, the published study; the rates tried are a factor of 2 to 5 apart. "
    if "spread" not in tables:
        return f"{shown}How far the best rates lie apart cannot be said: fewer than two shapes have one among the rates tried."
    apart = tables["spread"].set_index("rate_is")
    best = tables["best"]
    without = best[(best["rate_is"] == RULED) & (best["refused"] != "")]
    left_out = ", ".join(
        f"{width:.0f}x{depth:.0f}" for width, depth in zip(without["width"], without["depth"], strict=True)
    )
    return (
        f"{shown}By parabolas through the losses the best base rates of {apart.shapes[RULED]:.0f} shapes lie a factor of "
        f"{apart.ratio[RULED]:.3g} apart, the best rates themselves {apart.ratio[PLAIN]:.3g}; one rate for all costs the worst "
        f"served shape {apart.worst_cost[RULED]:.2g} nats with the rule, {apart.worst_cost[PLAIN]:.2g} without."
        + (f" Without a best rate among those tried: {left_out}." if left_out else "")
    )


def published_rates() -> pd.DataFrame:
    """The paper's study: four extreme shapes, 2B tokens each, with rates from their names."""
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
    """Losses of a table's hot runs, for each shape at the token count that most of its rates share."""
    if not runs.has_shapes or "lr_base" not in runs.kept:
        raise CannotDraw("the runs do not name their shape and lr_base")
    last = _at_shared_tokens(runs.kept.dropna(subset=["lr_base"]))
    rates = last.groupby(SHAPE)["lr_base"].transform("nunique")
    last = last[rates >= FEWEST_RATES]
    if last[SHAPE].drop_duplicates().shape[0] < FEWEST_SHAPES:
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


def _at_shared_tokens(kept: pd.DataFrame) -> pd.DataFrame:
    """For each shape, a row per rate, all at one token count: the one with most rates, or the largest of several."""
    tried = kept.groupby([*SHAPE, "tokens"]).agg(rates=("lr_base", "nunique")).reset_index()
    shared = tried.sort_values(["rates", "tokens"]).groupby(SHAPE).tail(1)[[*SHAPE, "tokens"]]
    return kept.merge(shared).drop_duplicates([*SHAPE, "lr_base"], keep="last")


def rates(tables: Tables) -> Figure:
    """Loss against the rate itself, and against the base rate: the minima move together."""
    frame = tables["rates"]
    figure, grid = style.panels(1, 2, 2.6)
    ceiling = DIVERGED * frame.groupby(SHAPE)["loss"].min().max()
    lowest, highest = frame["loss"].min(), frame["loss"].clip(upper=ceiling).max()
    margin = 0.07 * (highest - lowest)
    for axes, name, label in zip(
        grid, ("lr_eff", "lr_base"), ("lr_eff", "lr_base (the rate before the rule divides it)"), strict=True
    ):
        for i, ((width, depth), one) in enumerate(frame.groupby(["width", "depth"])):
            _rates(axes, one, name, f"{width:.0f}x{depth:.0f}", i, ceiling)
        axes.set(xscale="log", xlabel=label, ylabel="loss (nats per token)")
        axes.set_ylim(lowest - margin, highest + margin)
    grid[1].axvline(LR_BASE, color=style.NEUTRAL, linewidth=0.9, linestyle=":", label=f"lr_base {LR_BASE:g}")
    style.legend_above(figure, grid[1:], 5)
    return figure


def _rates(axes: Axes, one: pd.DataFrame, name: str, label: str, i: int, ceiling: float) -> None:
    colour, marker = style.COLOURS[i % len(style.COLOURS)], style.MARKERS[i % len(style.MARKERS)]
    axes.plot(one[name], np.minimum(one["loss"], 2 * ceiling), marker + "-", color=colour, label=label, clip_on=True)
    best = one.iloc[int(np.argmin(one["loss"]))]
    axes.plot(best[name], best["loss"], marker, color=colour, markersize=7, markerfacecolor="none")


ENTRIES = (Entry("fig03_rates", "Fig 3", "One base rate for every shape", rates_table, rates, said_of_rates),)
