"""The best size for a budget by laws of the loss: approach 3 with its ablations (Gemstones, Figs 5, 12-19 and 21)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.figures import sizes, style
from shapelaw.figures.entry import Entry, Tables
from shapelaw.figures.evidence import MAIN, CannotDraw, Evidence
from shapelaw.figures.industry import beside
from shapelaw.figures.shapes import with_shapes
from shapelaw.figures.sizes import budgets_of, curve, edges_of, exactly_counted, narrow_bins, whole_curve, wide_world
from shapelaw.fitting.published import published_law
from shapelaw.fitting.result import FitResult
from shapelaw.prescribe.brute import Triples, paper_triples
from shapelaw.prescribe.world import World

Array = NDArray[np.float64]

EQ1, EQ2, EQ3, OURS = "params_tokens", "width_depth_params_tokens", "width_depth_tokens", "interaction"
NAMES = {EQ1: "eq 1", EQ2: "eq 2", EQ3: "eq 3", OURS: "interaction law"}
LABELS = {
    "params": "parameters",
    "tokens": "training tokens",
    "tokens_per_param": "tokens per parameter",
    "width": "width",
    "depth": "depth",
    "aspect_ratio": "width / depth",
}
PAPER_DELTA = 1e-4
"""Delta of the paper's fits, except for Figs 17 to 19."""
SIZE_PANELS, SHAPE_PANELS = ("params", "tokens", "tokens_per_param"), ("width", "depth", "aspect_ratio")
KAPLAN_PF_DAY, KAPLAN_COEFFICIENT, KAPLAN_EXPONENT = 8.64e19, 1.6e9, 0.88
"""Kaplan et al. 2020: N = 1.6e9 (C / PF-day)^0.88, N without embeddings."""
CHINCHILLA = {"A": 482.006, "B": 2085.434, "alpha": 0.347813, "beta": 0.365854}
"""Besiroglu et al. 2024 (arXiv 2404.10102): N = G (C/6)^a with G and a from these."""
PUBLISHED: dict[float | None, str] = {
    None: "they stop short of the optimum of the paper's own objective, so ours differ.",
    1e-3: "at this delta they reach the optimum: objectives agree within 0.02%, exponents of eq 1 within 0.0001.",
}
"""Delta of a figure -> how far the published fits are from ours."""
CURVES = {
    "ours": (style.FITTED, "-"),
    "whole": (style.COLOURS[5], "-"),
    "published": (style.COLOURS[6], "--"),
    "brute": (style.COLOURS[3], "-"),
    "other law": (style.COLOURS[2], "-"),
}
"""Kind of curve -> colour and dash."""
SIZED = (style.ENVELOPE, "-")
"""Colour and dash of our own curves by eq 1."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """The basis of one figure's prescriptions.

    Args:
        subset: data set of the paper.
        delta: delta of Huber's function if the figure is about one; None means the paper's 1e-4, or the table's own.
        law: a law with width and depth.
        whole: whether to search whole shapes in addition to real-valued ones.
        sizes: whether to include eq 1.
        beside: a further law with width and depth.
    """

    subset: str = MAIN
    delta: float | None = None
    law: str = EQ2
    whole: bool = False
    sizes: bool = True
    beside: str | None = None

    def tables(self, evidence: Evidence) -> Tables:
        """Curves of every law, the paper's search, and widely used models."""
        if self.whole and self.sizes and not evidence.published:
            raise CannotDraw(
                "whole shapes are searched for the paper's runs alone; prescribe.py answers with those of a suite"
            )
        with_shapes(evidence.runs(self.subset))
        delta = self.delta or (PAPER_DELTA if evidence.published else evidence.delta)
        fit = evidence.fit(self.law, self.subset, delta=delta)
        world = wide_world(fit, evidence)
        asked = [("ours", fit)]
        asked += [("other law", evidence.fit(self.beside, self.subset, delta=delta))] if self.beside else []
        asked += [("ours", evidence.fit(EQ1, self.subset, delta=delta))] if self.sizes else []
        theirs = self._published(evidence, self.law)
        if evidence.published:
            fits = [theirs, self._published(evidence, EQ1) if self.sizes else None]
            asked += [("published", one) for one in fits if one is not None]
        budgets = sizes.BUDGETS if evidence.published else budgets_of(evidence, self.subset)
        curves = [evidence.once((kind, id(one)), partial(curve, kind, one, world, budgets)) for kind, one in asked]
        if not evidence.published:
            return {"curves": pd.concat(curves, ignore_index=True), **beside(evidence)}
        triples = evidence.once(("triples", world.counting, world.flops), partial(paper_triples, world))
        curves += self._searched(evidence, triples)
        tables = {"curves": pd.concat(curves, ignore_index=True), **beside(evidence)}
        if theirs is not None:
            tables["left_edges"] = evidence.once(("edges", id(theirs)), partial(edges_of, theirs, triples))
        return tables

    def _searched(self, evidence: Evidence, triples: Triples) -> Iterator[pd.DataFrame]:
        """Whole shapes, and eq 1 with FLOPs counted exactly."""
        delta = self.delta or PAPER_DELTA
        if self.whole:
            fit = evidence.fit(self.law, self.subset, delta=delta)
            own = World.of(fit, evidence.runs(self.subset))
            yield evidence.once(("whole", id(fit)), partial(whole_curve, fit, own, sizes.WHOLE_BUDGETS))
        if self.sizes:
            fit = evidence.fit(EQ1, self.subset, delta=delta)
            bins = evidence.once(("narrow bins", id(triples)), partial(narrow_bins, triples))
            yield evidence.once(("exactly", id(fit)), partial(exactly_counted, fit, bins))

    def _published(self, evidence: Evidence, law: str) -> FitResult | None:
        """The paper's own fit, if its file is available."""
        delta = self.delta or PAPER_DELTA
        try:
            return evidence.once(
                ("published", law, self.subset, delta), partial(published_law, law, self.subset, delta=delta)
            )
        except UserError:
            return None


def short(tables: Tables) -> Figure:
    """Aspect ratio and tokens per parameter (Fig 5)."""
    figure, grid = style.panels(1, 2, 2.9)
    for axes, name in zip(grid, ("aspect_ratio", "tokens_per_param"), strict=True):
        _panel(axes, tables, tables["curves"], name)
    style.legend_above(figure, grid, 4)
    return figure


def extended(tables: Tables) -> Figure:
    """Every size: the law with shapes above and below, eq 1 in between if included (Figs 12-19, 21)."""
    curves = tables["curves"]
    shaped, sized = curves[curves["law"] != EQ1], curves[curves["law"] == EQ1]
    rows: list[tuple[pd.DataFrame, Sequence[str]]] = [(shaped, SIZE_PANELS)]
    rows += [(sized, SIZE_PANELS)] if len(sized) else []
    rows += [(shaped, SHAPE_PANELS)]
    figure, grid = style.panels(len(rows), 3, 1.9 * len(rows) + 0.5)
    for i, (some, names) in enumerate(rows):
        for axes, name in zip(grid[3 * i : 3 * i + 3], names, strict=True):
            _panel(axes, tables, some, name)
            if i + 1 < len(rows):
                axes.set_xlabel("")
    for i in range(3) if len(sized) else ():
        _share_y(grid[i], grid[3 + i])
    lowest, highest = zip(*(axes.get_xlim() for axes in grid), strict=True)
    for axes in grid:
        axes.set_xlim(min(lowest), max(highest))
    style.legend_above(figure, grid, 4)
    return figure


def _panel(axes: Axes, tables: Tables, curves: pd.DataFrame, name: str) -> None:
    """One quantity against the budget."""
    for (kind, law), one in curves.groupby(["kind", "law"], sort=False):
        if one[name].notna().any():
            _curve(axes, one, name, str(kind), NAMES[str(law)])
    edges = tables.get("left_edges")
    if edges is not None and set(curves["law"]) != {EQ1}:
        axes.plot(
            edges["budget"], edges[name], "x", color=style.NEUTRAL, label="published, brute force at left bin edges"
        )
    axes.set(xscale="log", yscale="log", xlabel="training FLOPs", ylabel=LABELS[name])
    if "industry" not in tables:
        style.near_lines(axes)  # the small runs of a laptop lie decades away from other people's lines
    limits = axes.get_ylim()
    every = tables["curves"]["budget"]  # of all panels, whatever the range of this panel's curves
    for label, (dash, values) in others(every, name).items() if name in SIZE_PANELS else ():
        if "industry" in tables or any(limits[0] <= value <= limits[1] for value in values[1]):
            axes.plot(*values, dash, color=style.NEUTRAL, linewidth=0.9, label=label, zorder=1)
    if "industry" in tables:
        for number, (group, one) in enumerate(tables["industry"].groupby("kind", sort=False)):
            colour = style.COLOURS[(4, 1)[number]]
            axes.plot(one["flops"], one[name], ".", color=colour, markersize=3.5, label=str(group), zorder=1)
    if "industry" not in tables:
        axes.set_ylim(*limits)


def _curve(axes: Axes, one: pd.DataFrame, name: str, kind: str, law: str) -> None:
    """A curve: solid and wide inside the fitted domain, with its interval."""
    colour, dash = SIZED if kind == "ours" and law == NAMES[EQ1] else CURVES[kind]
    label = {
        "ours": law,
        "whole": f"{law}, whole shapes",
        "published": "published fit",
        "brute": f"{law}, FLOPs counted exactly",
        "other law": law,
    }[kind]
    if f"{name}_low" in one and one[f"{name}_low"].notna().any():
        axes.fill_between(
            one["budget"], one[f"{name}_low"], one[f"{name}_high"], color=colour, alpha=style.BAND, linewidth=0
        )
    above = {"published": 5, "whole": 2}.get(kind, 3)
    axes.plot(one["budget"], one[name], dash, color=colour, linewidth=1.0, label=label, zorder=above)
    inside = one["inside"].to_numpy(dtype=bool)
    if kind in ("ours", "other law") and inside.any():
        axes.plot(one["budget"].where(inside), one[name], "-", color=colour, linewidth=2.4, zorder=4)


def others(budgets: pd.Series, name: str) -> dict[str, tuple[str, tuple[Array, Array]]]:
    """Prescriptions of Kaplan et al. and of the refit of Chinchilla, by 6N: label -> (dash, (budgets, values))."""
    ends = np.array([budgets.min(), budgets.max()])
    p = CHINCHILLA
    scale = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    lines = {
        "Kaplan et al. 2020": (":", KAPLAN_COEFFICIENT * (ends / KAPLAN_PF_DAY) ** KAPLAN_EXPONENT),
        "Chinchilla, refitted": ("-.", scale * (ends / 6) ** (p["beta"] / (p["alpha"] + p["beta"]))),
    }
    form: dict[str, Callable[[Array], Array]] = {
        "params": lambda n: n,
        "tokens": lambda n: ends / (6 * n),
        "tokens_per_param": lambda n: ends / (6 * n) / n,
    }
    return {label: (dash, (ends, form[name](params))) for label, (dash, params) in lines.items()}


def _share_y(first: Axes, second: Axes) -> None:
    """One range for two panels, so that they can be compared."""
    low, high = zip(first.get_ylim(), second.get_ylim(), strict=True)
    ends = min(low), max(high)
    first.set_ylim(*ends)
    second.set_ylim(*ends)


def caption(about: str, asked: Asked) -> Callable[[Evidence, Tables], str]:
    """What the lines are, and why they are not the paper's."""

    def text(evidence: Evidence, tables: Tables) -> str:
        said = (
            f"{about} Wide lines lie inside the fitted domain, thin ones beyond; bands: {evidence.refits}. "
            "A curve leaves out budgets at which laws that fit the runs as well differ in a size by more than a factor of two, "
            "and sizes a thousand times the fitted ones or beyond. "
            "Kaplan et al. and the refit of Chinchilla, where they lie within a panel, split a budget by 6N."
        )
        if not evidence.published:
            return said
        if asked.whole:
            said += (
                " Whole shapes are those that train.py accepts and prescribe.py searches, continued to 131,072 wide and 512 "
                "deep. Their bumps are steps to the next even number of heads, 256 features wider, each of which takes some "
                "blocks back."
            )
        if asked.sizes:
            said += (
                " Eq 1 with FLOPs counted exactly takes the widest and shallowest shape of its size, as embeddings cost none; "
                "it steps where the least depth searched, a 2,048th of the width, grows by a block."
            )
        if "curves" in tables and "published" in set(tables["curves"]["kind"]):
            said += (
                f" Dashed: what the published coefficients prescribe when searched exactly; {PUBLISHED[asked.delta]}"
            )
        elif asked.delta is not None:
            said += " The paper's coefficients at this delta are not at hand here, so no line of theirs stands beside."
        if "left_edges" in tables:
            said += (
                " Crosses: the paper's brute force under its coefficients as it plots it, at the left edge of each bin of "
                "FLOPs; the winner lies at the right edge, 4.12 times further, so the crosses lie off the dashed line by that "
                "factor."
            )
        return f"{said} Widely used models: FLOPs by 6N and the tokens that their makers state."

    return text


def _entry(
    name: str, number: str, title: str, about: str, asked: Asked, draw: Callable[[Tables], Figure] = extended
) -> Entry:
    return Entry(name, number, title, asked.tables, draw, caption(about, asked))


_BOTH = "Best size for a budget by eq 2 (first and last row) and by eq 1 (middle row), fitted to "
_RATE, _COOLED = "the runs at half the rate", "the losses after the cooldowns"
_REAL = ", with real-valued widths, depths and heads."
_COARSE = ", Huber's delta 1e-3."

ENTRIES = (
    _entry(
        "fig05_prescriptions",
        "Fig 5",
        "Best aspect ratio and tokens per parameter",
        "Best aspect ratio and tokens per parameter by eq 2 and by the interaction law.",
        Asked(whole=True, sizes=False, beside=OURS),
        short,
    ),
    _entry(
        "fig12_sizes",
        "Fig 12",
        "Best sizes, all of them",
        f"{_BOTH}all tokens; shapes are whole numbers.",
        Asked(whole=True),
    ),
    _entry(
        "fig13_half_rate", "Fig 13", "Best sizes, half the rate", f"{_BOTH}{_RATE}{_REAL}", Asked("lr_ablation_hot")
    ),
    _entry("fig14_cooldown", "Fig 14", "Best sizes, after cooldown", f"{_BOTH}{_COOLED}{_REAL}", Asked("cool_end")),
    _entry(
        "fig15_late_tokens",
        "Fig 15",
        "Best sizes, above 120B tokens only",
        f"{_BOTH}validations above 120B tokens{_REAL} The exponent of eq 1 is not identified here: anything between 0.57 and "
        "0.82 lies within 0.1% of the lowest objective.",
        Asked("hot_120b+_only"),
    ),
    _entry("fig16_relaxed", "Fig 16", "Best sizes, real-valued shapes", f"{_BOTH}all tokens{_REAL}", Asked()),
    _entry("fig17_delta", "Fig 17", "Best sizes, delta 1e-3", f"{_BOTH}all tokens{_COARSE}", Asked(delta=1e-3)),
    _entry(
        "fig18_delta_half_rate",
        "Fig 18",
        "Best sizes, half the rate, delta 1e-3",
        f"{_BOTH}{_RATE}{_COARSE}",
        Asked("lr_ablation_hot", delta=1e-3),
    ),
    _entry(
        "fig19_delta_cooldown",
        "Fig 19",
        "Best sizes, after cooldown, delta 1e-3",
        f"{_BOTH}{_COOLED}{_COARSE}",
        Asked("cool_end", delta=1e-3),
    ),
    _entry(
        "fig21_eq3",
        "Fig 21",
        "Best sizes by eq 3",
        "Best size for a budget by eq 3, which has width and depth but no parameters. Its best width over depth falls with the "
        "budget.",
        Asked(law=EQ3, sizes=False),
    ),
)
