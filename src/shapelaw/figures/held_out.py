"""Laws compared by their predictions for models and tokens outside the fit."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from shapelaw.errors import UserError
from shapelaw.figures import style
from shapelaw.figures.entry import Entry, Tables, said
from shapelaw.figures.evidence import CannotDraw, Evidence
from shapelaw.fitting.holdout import evaluate
from shapelaw.fitting.spec import FitSpec
from shapelaw.fitting.splits import Holdout

LAWS = {
    "eq 1": ("params_tokens", None),
    "eq 1, N without embedding and head": ("params_tokens", "no_embedding_and_head"),
    "eq 2": ("width_depth_params_tokens", None),
    "interaction law": ("interaction", None),
}
KINDS = {
    "largest": "largest models",
    "latest": "latest tokens",
    "largest_and_latest": "both at once",
    "leave_one_shape_out": "each shape in turn",
}
DELTA = 1e-3
MOST_PERCENT = 100.0
"""Largest error that the axis shows, unless the laws themselves err by more: some refits of a few runs err by any factor."""
REFITS_OF_MANY_FOLDS = 30
"""Refits when each shape is left out in turn, as every shape needs its own."""


def table(evidence: Evidence) -> Tables:
    """A row per hold-out and law: mean absolute and signed relative error, the worst shape's, and the interval of the first."""
    runs = evidence.runs()
    refits = evidence.bootstrap.n if evidence.bootstrap else 0
    rows = []
    for kind in KINDS:
        count = min(refits, REFITS_OF_MANY_FOLDS) if kind == "leave_one_shape_out" else refits
        for label, (law, counting) in LAWS.items():
            spec = FitSpec.of(law, delta=DELTA, counting=counting, seed=evidence.seed)
            try:
                found = evaluate(runs, Holdout(kind), spec, count, level=evidence.level)
            except UserError:
                continue
            low, high = found.interval or (None, None)
            errors = {"error": found.mean_absolute, "signed": found.mean_signed, "worst": found.largest_of_a_group}
            rows.append({"held_out": kind, "law": label, **errors, "low": low, "high": high})
    if not rows:
        raise CannotDraw("no part of the runs can be held out and predicted by the rest")
    return {"errors": pd.DataFrame(rows)}


def draw(tables: Tables) -> Figure:
    """Errors on a logarithmic axis, a group of laws per hold-out."""
    frame = tables["errors"]
    kinds = [kind for kind in KINDS if kind in set(frame["held_out"])]
    laws = [law for law in LAWS if law in set(frame["law"])]
    figure, axes = style.canvas(3.2)
    for i, law in enumerate(laws):
        own = frame[frame["law"] == law]
        places = [kinds.index(kind) + (i - (len(laws) - 1) / 2) * 0.19 for kind in own["held_out"]]
        axes.hlines(
            places,
            100 * own["low"].astype(float),
            100 * own["high"].astype(float),
            style.COLOURS[i],
            linewidth=2,
            alpha=0.5,
        )
        axes.plot(100 * own["error"], places, style.MARKERS[i], color=style.COLOURS[i], label=law)
    axes.set_yticks(range(len(kinds)), [KINDS[kind] for kind in kinds])
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="mean absolute error of the loss (%)")
    axes.set_xlim(right=min(axes.get_xlim()[1], max(MOST_PERCENT, 200 * frame["error"].max())))
    style.legend_above(figure, [axes], 2)
    return figure


ENTRIES = (
    Entry(
        "beyond_held_out",
        "",
        "Which law predicts what it has not seen?",
        table,
        draw,
        said(
            "Each law is fitted (Huber's delta 1e-3) without some runs and predicts them: the largest models (from 3/4 of the "
            "largest size), the latest tokens (fitted up to 28.5% of the longest run, predicted from 85.5%), both at once, and "
            "each shape in turn. Bars: {evidence.share} of refits on resampled runs; one that reaches the right edge goes on "
            "beyond it.",
        ),
    ),
)
