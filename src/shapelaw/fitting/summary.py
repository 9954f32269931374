"""What fit.py prints: every fit's parameters and, of several, one table that compares them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from shapelaw.fitting.residuals import information_criteria
from shapelaw.fitting.result import RUNS_FILE, FitResult, load_fit
from shapelaw.laws import get_law
from shapelaw.laws.base import EXPONENT
from shapelaw.runs import RunsTable

SHOWN = 12
"""Fits whose parameters are printed in full."""
WIDE = 160
"""Columns of what is printed into a file or a pipe."""


def show(folders: Mapping[str, Path]) -> None:
    """Print finished fits.

    Args:
        folders: label -> folder of the fit.
    """
    console = Console(highlight=False, soft_wrap=True)
    console = console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=WIDE)
    results = {label: load_fit(folder) for label, folder in folders.items()}
    if len(results) > 1:
        console.print(_table([_row(label, result, folders[label]) for label, result in results.items()]))
    for result in list(results.values())[:SHOWN]:
        console.print(result.summary(), markup=False)
    if len(folders) == 1:
        console.print(f"fit.json, its runs and its figures lie in {next(iter(folders.values()))}")
    elif folders:
        console.print(f"fits, their runs and figures lie in {next(iter(folders.values())).parent}")


def _table(rows: Sequence[Mapping[str, str]]) -> Table:
    """Columns that any row has, in the order of their first appearance."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*names)
    for row in rows:
        table.add_row(*(row.get(name, "") for name in names))
    return table


def _row(label: str, result: FitResult, folder: Path) -> dict[str, str]:
    """A fit's objective, slope and interval; for laws, AIC and BIC, what lies between runs, and held-out errors.

    AIC and BIC compare laws on the same rows and delta only.
    """
    row = {"fit": label, "objective": f"{result.objective:.6g}"}
    if result.compute_optimal_exponent is not None:
        row["N ~ C^a"] = f"{result.compute_optimal_exponent:.4f}"
    if EXPONENT in result.intervals:
        low, high = result.intervals[EXPONENT]
        row["interval"] = f"{low:.3f} to {high:.3f}"
    if result.law is None:
        return row | {"folder": folder.name}
    runs = RunsTable.read(folder / RUNS_FILE)
    residuals = np.log(runs.target(get_law(result.law))) - np.log(result.predict(runs))
    aic, bic = information_criteria(residuals, result.settings["delta"], len(result.parameters))
    row |= {"AIC": f"{aic:.0f}", "BIC": f"{bic:.0f}"}
    share = result.checklist["residuals"]["between_run_share"]
    row["between runs"] = f"{share:.0%}" if share is not None and math.isfinite(share) else ""
    found = result.checklist["held_out"]
    for held_out in found if isinstance(found, list) else []:  # else: a word on why there is none
        row[f"{held_out['holdout']} held out"] = f"{held_out['mean_absolute']:.2%} ({held_out['mean_signed']:+.2%})"
    return row | {"folder": folder.name}
