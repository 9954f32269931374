"""Wide tables turned into long ones: columns named by token counts, by sizes, or by runs, as trackers export their charts."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from shapelaw.errors import UserError
from shapelaw.runs.columns import CANONICAL, REQUIRED
from shapelaw.runs.names import plain_name
from shapelaw.runs.numbers import read

WIDE = ("tokens", "params", "step", "flops", "batch_tokens", "lr_base", "run")
"""Quantities that may name the columns of a wide table."""
_NUMBER = r"[0-9][0-9.,_' ]*(?:e[+-]?[0-9]+)?\s?[KMBGTkmbgt]?"
_NAMED = re.compile(rf"(?:([A-Za-z/_]+)[@=:_ ])?\s*({_NUMBER})(?: ?(?:tokens?|params|parameters|steps?|flops?))?")
_EXTREMES = re.compile(r".*__(MIN|MAX)")
_BETWEEN = " - "
"""Separator of run and metric in wandb's exports of charts."""


def lengthen(frame: pd.DataFrame, quantity: str, columns: Mapping[str, str]) -> tuple[pd.DataFrame, str, str]:
    """A wide table with one row per loss, a note on the conversion, and the name of the loss in its columns.

    Args:
        frame: one column per value of `quantity`, which its name gives (`1e9`, `20M`, `loss@1B`); for `run`, one per run,
            named after it or by `run - metric`. Columns ending in __MIN and __MAX, which trackers add, are ignored.
        quantity: one of `WIDE`.
        columns: canonical name -> name in the file, as the user mapped them; `loss` selects one of several metrics.

    Raises:
        UserError: if no column has such a name, or several metrics have.
    """
    if quantity not in WIDE:
        raise UserError(f"runs.wide={quantity}: allowed values are {', '.join(WIDE)}")
    mapped = set(columns.values())
    names = [str(name) for name in frame.columns]
    candidates = [name for name in names if name not in mapped and plain_name(name) not in CANONICAL]
    wide, metric = (_of_runs if quantity == "run" else _of_one_metric)(candidates, columns.get("loss"))
    if not wide:
        kind = "by runs" if quantity == "run" else "by numbers, such as 1e9 or 20M"
        raise UserError(f"runs.wide={quantity}: no column is named {kind}; the file has {', '.join(names)}")
    left_out = {name for name in names if _EXTREMES.fullmatch(name) or _BETWEEN in name} - set(wide)
    ids = [name for name in names if name not in wide and name not in left_out]
    if twins := [name for name in ids if plain_name(name) in ("loss", quantity)]:
        raise UserError(
            f"runs.wide={quantity}: the file has a column {twins[0]}, so the table is long already; leave runs.wide out"
        )
    long = frame.melt(ids, list(wide), quantity, "loss")
    long[quantity] = long[quantity].map(wide)
    values = long.iloc[:, -1]
    empty = values.isna() | (values.astype(str).str.strip() == "")
    note = f"{len(wide)} columns became rows by runs.wide={quantity}"
    extremes = sum(bool(_EXTREMES.fullmatch(name)) for name in left_out)
    note += f"; {extremes} columns of __MIN and __MAX left out" if extremes else ""
    return long[~empty].reset_index(drop=True), note, metric


def turned(frame: pd.DataFrame) -> pd.DataFrame | None:
    """The frame with rows and columns exchanged, if its first column holds names of columns; otherwise None."""
    if frame.shape[1] < 2 or {plain_name(str(name)) for name in frame.columns} & set(REQUIRED[1:]):
        return None
    first = frame.columns[0]
    found = [plain_name(str(value)) for value in frame.iloc[:, 0]]
    if len(set(found) & set(REQUIRED[1:])) < 2 or len(set(found)) < len(found):
        return None
    upright = frame.set_index(first).T.rename_axis(None, axis=1)
    name = str(first) if plain_name(str(first)) and str(first) not in upright else "run"
    return upright.rename_axis(name).reset_index()


def suggestion(names: list[str]) -> str:
    """The option that would turn a table into a long one, if it looks wide; else nothing."""
    if sum(_BETWEEN in name for name in names) > 1:
        return "runs.wide=run"
    return "runs.wide=tokens (or params)" if len(_of_numbers(names)) > 1 else ""


def _of_one_metric(names: list[str], metric: str | None) -> tuple[dict[str, float], str]:
    """Column -> the number in its name, and the metric; of several metrics, the given one."""
    numbers = _of_numbers(names)
    metrics = sorted({before for before, _ in numbers.values()})
    if metric is None and len(metrics) > 1:
        raise UserError(f"runs.wide: the columns have {', '.join(metrics)}; give 'runs.columns={{loss: {metrics[0]}}}'")
    taken = metric or next(iter(metrics), "")
    return {name: number for name, (before, number) in numbers.items() if before == taken}, taken


def _of_numbers(names: list[str]) -> dict[str, tuple[str, float]]:
    """Column -> the text before the number in its name, and the number."""
    out = {}
    for name in names:
        if match := _NAMED.fullmatch(name.strip()):
            number = read("", pd.Series([match[2]]), counts=True).values[0]
            if np.isfinite(number):
                out[name] = match[1] or "", float(number)
    return out


def _of_runs(names: list[str], metric: str | None) -> tuple[dict[str, str], str]:
    """Column -> the run in its name, and the metric."""
    pairs = {
        name: tuple(name.rsplit(_BETWEEN, 1)) for name in names if _BETWEEN in name and not _EXTREMES.fullmatch(name)
    }
    pairs = {name: pair for name, pair in pairs.items() if not plain_name(pair[1]).endswith("step")}
    if not pairs:
        return {name: name for name in names if name and not _EXTREMES.fullmatch(name)}, ""
    metrics = sorted({pair[1] for pair in pairs.values()})
    if metric is None and len(metrics) > 1:
        raise UserError(
            f"runs.wide=run: the columns have {', '.join(metrics)}; give 'runs.columns={{loss: {metrics[0]}}}'"
        )
    taken = metric or metrics[0]
    return {name: pair[0] for name, pair in pairs.items() if pair[1] == taken}, taken
