"""The compute-optimal exponent against the number of starts, for every delta and solver (after Gemstones, Fig 20)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shapelaw.errors import UserError
from shapelaw.figures import style
from shapelaw.figures.entry import Entry, Tables, said
from shapelaw.figures.evidence import Evidence
from shapelaw.fitting.fit import fit
from shapelaw.fitting.result import FitResult

DASHES = {"newton": "-", "newton_torch": "-.", "reference": ":"}
SUBSETS = {"hot": "up to 100B tokens", "hot_100b+": "all tokens"}
DELTAS = (1e-3, 1e-4, 1e-5)
SIZES = {"reference": (8, 32), "newton": (32, 108, 243, 1024)}
"""Starts of each solver on the user's own runs; the reference takes some 0.2 s for each, and minutes at the paper's numbers."""
RECORDED = "reference_fits.csv"
"""Recorded fits of the published runs by the reference solver, which take six CPU-minutes."""


def draw(results: Sequence[FitResult], folder: Path, name: str) -> list[Path]:
    """Draw the fits of a sweep over grid sizes; nothing if there are fewer than two sizes."""
    shown = [one for one in results if one.compute_optimal_exponent is not None and one.settings.get("grid_size")]
    if len({one.settings["grid_size"] for one in shown}) < 2:
        return []
    with style.look():
        figure, axes = style.canvas(3.0, 4.6)
        exponents(axes, pd.DataFrame([_row(one) for one in shown]))
        axes.legend(ncols=2)
        return style.save(figure, folder, name)


def _row(result: FitResult) -> dict[str, object]:
    chosen = {name: result.settings[name] for name in ("solver", "delta", "grid_size")}
    return {**chosen, "exponent": result.compute_optimal_exponent, "objective": result.objective}


def exponents(axes: Axes, frame: pd.DataFrame) -> None:
    """A line for every delta and solver; the result is that they coincide.

    Args:
        frame: solver, delta, grid_size, exponent.
    """
    deltas = sorted(frame["delta"].unique(), reverse=True)
    for solver, own in frame.groupby("solver", sort=True):
        for i, delta in enumerate(deltas):
            line = own[own["delta"] == delta].sort_values("grid_size")
            look = style.MARKERS[i] + DASHES.get(str(solver), "--")
            label = f"{solver}, delta {np.format_float_scientific(delta, trim='-', exp_digits=1)}"
            size = 1 + 0.6 * (len(deltas) - 1 - i)  # so that lower lines stay visible if lines coincide
            marks: dict[str, Any] = {
                "linewidth": size,
                "markersize": 2 + 2 * size,
                "color": style.COLOURS[i],
                "label": label,
            }
            axes.plot(line["grid_size"], line["exponent"], look, **marks)
    axes.set(xscale="log", xlabel="starts", ylabel="a of the best N ~ C^a")


def table(evidence: Evidence) -> Tables:
    """A row per data set, solver, delta and number of starts, all of eq 1."""
    solvers = [solver for solver in SIZES if solver == "newton" or not evidence.published]
    subsets = SUBSETS if evidence.published else ("hot",)
    rows = [row for subset in subsets for solver in solvers for row in _fitted(evidence, subset, solver)]
    recorded = [recorded_fits()] if evidence.published else []
    return {"exponents": pd.concat([*recorded, pd.DataFrame(rows)], ignore_index=True)}


def _fitted(evidence: Evidence, subset: str, solver: str) -> Iterator[dict[str, object]]:
    for delta, size in product(DELTAS, SIZES[solver]):
        try:
            found = fit(
                evidence.runs(subset), "params_tokens", delta=delta, solver=solver, starts="grid", grid_size=size
            )
        except UserError:
            if solver == "newton":
                raise
            continue  # the reference may end nowhere
        yield {"subset": subset, **_row(found)}


def recorded_fits() -> pd.DataFrame:
    """Eq 1 on the published runs by the reference solver: subset, solver, delta, grid_size, exponent, objective.

    Each is the result of `fit(load_runs("gemstones", subset=...), "params_tokens", solver="reference", ...)`.
    """
    with resources.files(__package__).joinpath(RECORDED).open() as file:
        return pd.read_csv(file)


def sweep(tables: Tables) -> Figure:
    """A panel per data set."""
    frame = tables["exponents"]
    subsets = list(dict.fromkeys(frame["subset"]))
    figure, grid = style.panels(1, len(subsets), 2.9, style.PAGE_INCHES * max(len(subsets), 1.4) / 2)
    for axes, subset in zip(grid, subsets, strict=True):
        exponents(axes, frame[frame["subset"] == subset])
        axes.set_title(SUBSETS[subset] if len(subsets) > 1 else "")
    low, high = zip(*(axes.get_ylim() for axes in grid), strict=True)
    for axes in grid:
        axes.set_ylim(min(low), max(high))
    style.legend_above(figure, grid, 2)
    return figure


ENTRIES = (
    Entry(
        "fig20_delta_grid",
        "Fig 20",
        "Is a small delta unstable?",
        table,
        sweep,
        said(
            "Exponent a of eq 1 against the number of starts, by the reference solver (SciPy's L-BFGS-B, numerical gradients, "
            "the authors' tolerances; dotted) and by ours (solid), from the same starts.",
            "The paper draws the exponent of tokens, 1 - a, over up to 50,000 starts and finds delta 1e-5 unstable. The "
            "optimizer is: it tests an absolute gradient of an objective that shrinks with delta. At the optimum the exponent "
            "does not hang on the starts. The reference's fits, from 32 to 1,024 starts, are recorded, as they take minutes "
            "(`fit.py -m sweeps=delta_grid`).",
        ),
    ),
)
