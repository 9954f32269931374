"""What fit.py prints: every fit's parameters and, of several, one table that compares them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.table import Column, Table

from shapelaw.fitting.residuals import information_criteria
from shapelaw.fitting.result import RUNS_FILE, FitResult, load_fit
from shapelaw.fitting.spec import LINE_METHODS
from shapelaw.laws import get_law
from shapelaw.laws.base import EXPONENT
from shapelaw.prescribe.world import reads_shapes
from shapelaw.runs import RunsTable
from shapelaw.terminal import Terminal, terminal
from shapelaw.verbs.prescribe import refusal
from shapelaw.wording import spelt

SHOWN = 12
"""Fits whose parameters are printed in full."""
WIDE = 160
"""Columns of output to a file or a pipe."""


def show_result(result: FitResult) -> None:
    """Print what was fitted."""
    _console().print(result.summary())


def show_place(result: FitResult, folder: Path) -> None:
    """Print where a fit lies, and the questions that it can answer."""
    _console().print(f"saved to {folder} ({_content(folder)}){_next(result, folder)}")


def told(result: FitResult, folder: Path) -> str:
    """A fit in one line: its exponent with the interval, the irreducible loss, and its place; without numbers that the runs
    do not identify."""
    slope, low_high = result.compute_optimal_exponent, result.intervals.get(EXPONENT)
    range_told = "" if low_high is None else " ({:.3f} to {:.3f})".format(*low_high)
    found = {EXPONENT: None if slope is None else f"N ~ C^{slope:.3f}{range_told}"}
    found["E"] = f"E {result.parameters['E']:.4g}" if "E" in result.parameters else None
    names = {EXPONENT: "exponent"}
    parts = [
        f"{names.get(name, name)} not identified" if name in result.ridge else text
        for name, text in found.items()
        if text
    ]
    taken = [str(result.law)] if result.candidates else []
    return ", ".join([*taken, *parts, f"in {folder}"])


def _console() -> Terminal:
    """Standard output; a file or a pipe is wide enough for every table."""
    return terminal(wide=WIDE)


def show(folders: Mapping[tuple[str, ...], Path]) -> None:
    """Print finished fits.

    Args:
        folders: words that name the fit -> its folder.
    """
    console = _console()
    results = {words: load_fit(folder) for words, folder in folders.items()}
    if len(folders) > 1:
        shared = [word for word in next(iter(folders)) if all(word in words for words in folders)]
        names = {words: " ".join(word for word in words if word not in shared) for words in folders}
        rows = [_row(names[words], result, folders[words]) for words, result in results.items()]
        console.print(_table(rows, " ".join(shared)))
        for words, folder in folders.items():
            console.print(f"{names[words]}: {folder}")
    for result in list(results.values())[:SHOWN]:
        show_result(result)
    if len(folders) == 1:
        ((words, folder),) = folders.items()
        show_place(results[words], folder)


def _content(folder: Path) -> str:
    return ", ".join(["fit.json", RUNS_FILE, *(["figures"] if any(folder.glob("*.png")) else [])])


def _next(result: FitResult, folder: Path) -> str:
    """The command that asks the fit for the best size, or the reason if prescribe.py would refuse it."""
    if result.law is None and result.method in LINE_METHODS:
        return f"; next: shapelaw prescribe fit={folder} budget={'FLOPs' if result.settings['cost'] == 'flops' else 'HOURS'}"
    if result.law is None or "best" not in get_law(result.law).questions:
        return ""
    space = "feasible" if reads_shapes(get_law(result.law)) else "params"
    refused = refusal(result, RunsTable.read(folder / RUNS_FILE), space)
    if refused:
        return f"; it cannot prescribe a size: {refused}"
    axes = ", ".join(f"{name}: NUMBER" for name in get_law(result.law).axes)
    further = ("" if space == "feasible" else f" space={space}") + (f" 'axes={{{axes}}}'" if axes else "")
    return f"; next: shapelaw prescribe {spelt('fit', folder)} budget=FLOPs{further}"


def _table(rows: Sequence[Mapping[str, str]], shared: str) -> Table:
    """Columns that any row has, in the order of their first appearance; the title names everything that all fits share."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    held_out = (
        "held out: mean |error| (mean signed error); " if any(name.startswith("held out") for name in names) else ""
    )
    note = f"{held_out}compare objectives, AIC and BIC only at equal rows and delta"
    columns = [Column(name, overflow="fold") for name in names]
    table = Table(
        *columns,
        title=f"shared: {shared}" if shared else None,
        title_justify="left",
        caption=note,
        caption_justify="left",
    )
    for row in rows:
        table.add_row(*(row.get(name, "") for name in names))
    return table


def _row(label: str, result: FitResult, folder: Path) -> dict[str, str]:
    """A fit's objective, slope and interval; for laws, AIC and BIC, the variance between runs, and held-out errors.

    AIC and BIC compare laws on the same rows and delta only.
    """
    row = {"fit": label, **({"law": str(result.law)} if result.candidates else {})}
    row["objective"] = f"{result.objective:.6g}"
    if result.compute_optimal_exponent is not None:
        shown = f"{result.compute_optimal_exponent:.4f}"
        row["N ~ C^a"] = "not identified" if EXPONENT in result.ridge else shown
    if EXPONENT in result.intervals:
        low, high = result.intervals[EXPONENT]
        row["interval"] = f"{low:.3f} to {high:.3f}"
    if result.law is None:
        return row
    runs = RunsTable.read(folder / RUNS_FILE)
    residuals = np.log(runs.target(get_law(result.law))) - np.log(result.predict(runs))
    settings, size = result.settings, len(result.parameters)
    aic, bic = information_criteria(residuals, settings["delta"], size, settings.get("over_cost", 1.0))
    row |= {"AIC": f"{aic:.0f}", "BIC": f"{bic:.0f}"}
    share = result.checklist["residuals"]["between_run_share"]
    row["between runs"] = f"{share:.0%}" if share is not None and math.isfinite(share) else ""
    found = result.checklist["held_out"]
    for held_out in found if isinstance(found, list) else []:  # otherwise a text explains why there is none
        row[f"held out: {held_out['holdout'].replace('_', ' ')}"] = (
            f"{held_out['mean_absolute']:.2%} ({held_out['mean_signed']:+.2%})"
        )
    return row
