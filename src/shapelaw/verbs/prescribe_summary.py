"""What prescribe.py prints: the answer with its intervals and fitted domain, and what other choices cost."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from rich.table import Table

from shapelaw.prescribe.answer import Prescription
from shapelaw.terminal import terminal

WIDE = 140
"""Columns of output to a file or a pipe."""
ROUNDING = 1e-12
"""Smaller values are printed as 0."""
WHOLE = ("width", "depth")
SHOWN = {
    "overtraining": ("factor", "tokens", "params", "tokens_per_param", "loss", "low", "high", "excess"),
    "aspect_ratio": (
        *("aspect_ratio", "width", "depth", "loss", "excess", "excess_low", "excess_high"),
        *("budget_factor", "budget_factor_low", "budget_factor_high"),
    ),
    "laws": ("law", "width", "depth", "params", "tokens", "tokens_per_param", "loss", "domain"),
}
"""Printed columns of further tables; the YAML holds all."""
TITLES = {
    "overtraining": "Other token counts at the same budget (real-valued sizes; factor = tokens / best tokens; "
    "excess = loss / lowest loss - 1)",
    "aspect_ratio": "Other aspect ratios at the same budget (budget_factor = the budget that this ratio needs for the "
    "lowest loss / your budget)",
}
"""Headings of columns of further tables; other columns keep their name."""
SHARES = ("excess", "wasted")
"""Prefixes of columns that are printed in percent."""


def show(answer: Prescription, path: Path) -> None:
    """Print an answer, its further tables and its file."""
    console = terminal(wide=WIDE)
    question = answer.question[0].upper() + answer.question[1:]
    console.print(f"{question} (law {answer.law}, fit {answer.fit})")
    console.print(_values(answer))
    if answer.size_told:
        console.print(answer.size_told)
    console.print(answer.domain)
    for note in answer.notes:
        console.print(f"note: {note}")
    for flag in answer.flags:
        console.print(f"of the fit: {flag}")
    for title, frame in answer.tables.items():
        shown = [name for name in SHOWN.get(title, tuple(frame)) if name in frame]
        console.print(_rich(TITLES.get(title, title.replace("_", " ")), frame[shown]))
        if title == "overtraining" and float(answer.values.get("width", math.nan)).is_integer():
            console.print("Row factor 1 is the real-valued optimum and differs slightly from the whole shape above.")
    if answer.command:
        console.print(f"train it:  {answer.command}")
        console.print("on a cluster: add -m hydra/launcher=slurm")
    console.print(f"written to {path}")
    if answer.prediction:
        console.print(f"after training, compare: shapelaw predict prediction={path}")


def _values(answer: Prescription) -> Table:
    """The values with their units and places, and their intervals if there are any."""
    interval = [f"{answer.level:.0%} interval"] if answer.intervals else []
    table = Table("", "value", *interval, "unit", "fitted domain")
    for name, value in answer.values.items():
        low, high = answer.intervals.get(name, (math.nan, math.nan))
        ends = f"{_number(name, low)} to {_number(name, high)}" if math.isfinite(low) else ""
        row = (*([ends] if interval else []), answer.units[name], answer.place(name))
        table.add_row(name, _number(name, value), *row)
    return table


def _number(name: str, value: float) -> str:
    if name in WHOLE and value == int(value):
        return f"{value:.0f}"
    return f"{value:.5g}" if abs(value) > ROUNDING else "0"


def _rich(title: str, frame: pd.DataFrame) -> Table:
    table = Table(*map(str, frame.columns), title=title, title_justify="left")
    for row in frame.itertuples(index=False, name=None):
        table.add_row(*map(_cell, frame.columns, row))
    return table


def _cell(name: str, value: object) -> str:
    """A value of a further table: shares in percent, real-valued widths and depths to three digits."""
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return ""
    if name.startswith(SHARES):
        return f"{value:.2%}"
    return _number(name, float(f"{value:.3g}") if name in WHOLE and value != int(value) else value)
