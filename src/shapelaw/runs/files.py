"""A user's own table: any file that `readers` accepts, with a mapping of columns, units, and values that the file lacks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.runs import names, units
from shapelaw.runs.columns import (
    CANONICAL,
    FURTHER_LOSS,
    LOSSES,
    NATS_PER_TOKEN,
    REQUIRED,
    as_numbers,
    as_texts,
    is_canonical,
    rules_of,
)
from shapelaw.runs.completing import checked, derived, unfinished, with_repeats
from shapelaw.runs.file_table import FileOptions, FileTable, excluding
from shapelaw.runs.logs import read_logs
from shapelaw.runs.numbers import Numbers, as_is, decimal_of, read
from shapelaw.runs.readers import RawTable
from shapelaw.runs.table import RunsTable
from shapelaw.runs.wide import lengthen, suggestion, turned

_PERCENT = ("accuracy", "error", "cooldown")
_LARGEST = {"params": 1e13, "tokens": 1e14, "batch_tokens": 1e9, "step": 1e9}
"""Medians above which a unit suggested by a column's name is ignored."""


def from_file(path: str | os.PathLike[str] | None, options: FileOptions | None = None) -> RunsTable:
    """Read a table of runs.

    Without `params`, parameters are counted from width, depth, vocab_size and head_size; without `tokens`, they are
    step * batch_tokens. Without `run`, each row counts as a separate run, as `about` records: intervals from the table
    are then those of independent rows.

    Args:
        path: the file.
        options: how to read it.

    Raises:
        UserError: if the file, a column or a unit cannot be found, or a value is invalid.
    """
    if path is None:
        raise UserError("runs.path: none given; give a .csv, .parquet, .json or .xlsx file")
    given = options or FileOptions()
    return from_raw(str(path), read_logs(path, given.sheet, {} if given.wide else given.columns), given)


def from_raw(source: str, raw: RawTable, given: FileOptions, place: str = "") -> RunsTable:
    """The runs table of raw columns, by a mapping of columns, units and constants.

    Args:
        source: where they were read.
        raw: the unchanged columns.
        given: how to interpret them.
        place: name of the source in messages; if empty, `runs.path=SOURCE`.

    Raises:
        UserError: if a column or a unit cannot be found, or a value is invalid.
    """
    table = _typed(_named(raw, given), raw, given)
    table = derived(_in_units(table, given), given)
    _refuse_unmapped(place or f"runs.path={source}", table, raw)
    table = checked(with_repeats(table, given))
    table = table.noting(unfinished(table))
    about = {"source": source, "loss_unit": NATS_PER_TOKEN, **table.about}
    about |= {"reading": "; ".join(table.notes)} if table.notes else {}
    if given.exclude_faults:
        return RunsTable.excluding_faults(table.frame, about, further=table.further)
    return RunsTable(table.frame, about, further=table.further)


def _named(raw: RawTable, given: FileOptions) -> FileTable:
    """Mapped columns under their canonical names, columns that already have one, and constants; the others separately."""
    frame, notes, columns = raw.frame, raw.notes, dict(given.columns)
    for ours in (*columns, *given.constants):
        if not is_canonical(str(ours)):
            allowed = ", ".join([*CANONICAL, "loss_NAME"])
            raise UserError(
                f"columns: {ours} is not canonical (a mapping is canonical: source); allowed names are {allowed}"
            )
    if given.wide is None and (upright := turned(frame)) is not None:
        frame, notes = upright, (*notes, "the table was transposed")
        raw = replace(raw, reasons=None)
    metric = ""
    if given.wide:
        frame, note, metric = lengthen(frame, given.wide, columns)
        notes, columns = (*notes, note), {ours: theirs for ours, theirs in columns.items() if ours != "loss"}
    frame = _joined(frame, columns.get("run", ""))
    for ours, theirs in columns.items():
        if theirs not in frame:
            raise UserError(f"columns: {ours}={theirs}, but {raw.holder} {', '.join(map(str, frame.columns))}")
    frame = frame.loc[:, ~frame.columns.duplicated()]
    sources = {**names.taken(map(str, frame.columns)), **columns}
    _refuse_rivals(frame, sources, columns)
    out = pd.DataFrame({ours: frame[theirs] for ours, theirs in sources.items()}, index=frame.index)
    if raw.reasons is not None and not given.wide:
        out = excluding(out, raw.reasons)
    further = frame.drop(columns=[name for name in frame if name in set(sources.values()) or name == ""])
    sources |= {"loss": metric} if metric else {}
    return FileTable(_with_constants(out, given.constants), further, sources, notes)


def _refuse_rivals(frame: pd.DataFrame, sources: Mapping[str, str], columns: Mapping[str, str]) -> None:
    """Refuse a column that is taken by its name if another may be meant: `loss` beside `val_loss`, or beside `loss.1`.

    Raises:
        UserError: with the option that names the column.
    """
    own = [str(name) for name in frame.columns]
    for ours, theirs in sources.items():
        if ours in columns:
            continue
        rivals = [name for name in own if name == f"{theirs}.1" and not frame[name].equals(frame[theirs])]
        rivals += [name for name in own if ours == "loss" and names.plain_name(name) in names.HELD_OUT_BY_NAME]
        if rivals:
            raise UserError(
                f"runs table: {', '.join([theirs, *rivals])} may be the {ours}; give "
                f"'runs.columns={{{ours}: {rivals[-1]}}}' or 'runs.columns={{{ours}: {theirs}}}'"
            )


def _joined(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The frame with the column `a+b`, which joins the texts of columns a and b, if it is requested and missing."""
    parts = name.split("+")
    if name in frame or len(parts) < 2 or not set(parts) <= set(frame):
        return frame
    return frame.assign(**{name: frame[parts].astype(str).agg(" ".join, axis=1)})


def _with_constants(frame: pd.DataFrame, constants: Mapping[str, Any]) -> pd.DataFrame:
    for name, value in constants.items():
        if name in frame:
            raise UserError(f"runs.constants: the file has a column {name}; leave it out of runs.constants")
        if isinstance(value, Mapping):
            frame = frame.assign(**{name: _by_run(name, frame, value)})
        else:
            frame = frame.assign(**{name: value})
    return frame


def _by_run(name: str, frame: pd.DataFrame, value: Mapping[str, Any]) -> pd.Series:
    if "run" not in frame:
        raise UserError(f"runs.constants: {name} has a value for each run, but the file names no runs")
    known = {str(run): number for run, number in value.items()}
    runs = frame["run"].astype(str)
    if missing := sorted(set(runs) - set(known)):
        raise UserError(f"runs.constants: {name} has no value for {', '.join(missing[:5])}; give one for every run")
    return runs.map(known)


def _typed(table: FileTable, raw: RawTable, given: FileOptions) -> FileTable:
    """Numbers read from their texts; rows with anything else are refused, or excluded with that reason."""
    frame = table.frame
    numeric = [name for name in frame if not rules_of(str(name)).text]
    texts = {str(name): pd.unique(frame[name].dropna()) for name in numeric if as_is(frame[name]) is None}
    if texts:
        texts |= {str(name): pd.unique(frame[name].dropna()) for name in numeric if name not in texts}
    decimal = decimal_of(texts, raw.delimiter, given.decimal)
    open_rows = (frame["excluded"].fillna("") == "") if "excluded" in frame else pd.Series(True, index=frame.index)
    notes, reasons, out = list(table.notes), pd.Series("", index=frame.index, dtype=object), frame.copy()
    suffixed: dict[str, NDArray[np.bool_]] = {}
    for name in numeric:
        rules = rules_of(str(name))
        counts = "M" in rules.units or rules.whole
        numbers = read(str(name), frame[name], decimal, counts=counts, shares=name in _PERCENT)
        bad = (numbers.unreadable != "") & open_rows.to_numpy()
        if bad.any():
            _refuse_texts(str(name), numbers, bad, given.exclude_faults)
            said = [f"{name} is not a number ({text})" for text in numbers.unreadable[bad]]
            reasons[bad] = reasons[bad].where(reasons[bad] != "", said)
        out[name], notes = numbers.values, [*notes, *numbers.notes]
        suffixed |= {} if numbers.suffixed is None else {str(name): numbers.suffixed}
    for name in set(map(str, frame)) - set(map(str, numeric)):
        out[name] = as_texts(frame[name], strip=True)
    further = _further(table.further, decimal)
    return replace(table, frame=excluding(out, reasons), further=further, notes=tuple(notes), suffixed=suffixed)


def _refuse_texts(name: str, numbers: Numbers, bad: NDArray[np.bool_], exclude: bool) -> None:
    first = int(bad.argmax())
    whole = not np.isfinite(numbers.values).any()
    if exclude and not whole:
        return
    more = f" and {int(bad.sum()) - 1} more" if bad.sum() > 1 else ""
    remedy = "correct them" if whole else "correct them, or leave these rows out (runs.bad_rows=exclude)"
    raise UserError(
        f"runs table: column {name} contains something that is not a number ({numbers.unreadable[first]!r} in row "
        f"{first + 1}{more}); {remedy}"
    )


def _further(frame: pd.DataFrame, decimal: str) -> pd.DataFrame:
    """Columns beside the canonical ones, with names that a condition can use, as numbers if all values are numbers."""
    out: dict[str, Any] = {}
    for name, values in frame.items():
        plain = re.sub(r"\W", "_", str(name))
        if plain in out or is_canonical(plain) or not plain.isidentifier():
            continue
        numbers = read(plain, values, decimal, counts=False)
        out[plain] = as_texts(values, strip=True) if (numbers.unreadable != "").any() else numbers.values
    return pd.DataFrame(out, index=frame.index)


def _in_units(table: FileTable, given: FileOptions) -> FileTable:
    """Values in canonical units, from the named units or else from those that a column's name suggests."""
    hinted = _hints(table, given)
    said = [
        f"{name}: {_unit(unit)}, because the column is named {table.sources[name]}" for name, unit in hinted.items()
    ]
    frame, by_row = table.frame, {} if "loss" in given.units else _said_units(table)
    if len(by_row) > 1:
        hinted["loss"], frame = "nats", _each_in_its_unit(frame, by_row)
    elif by_row:
        (hinted["loss"],) = by_row
    said += [f"loss: {', '.join(by_row)}, as the column loss_unit says"] if by_row else []
    converted, own = units.convert(frame, {**hinted, **given.units})
    for name, rows in table.suffixed.items():
        converted[name] = converted[name].where(~rows, frame[name])
    about = {"loss_unit" if name == "loss" else f"{name}_unit": unit for name, unit in own.items()}
    named = frozenset([*hinted, *given.units])
    return replace(table, frame=converted, about={**table.about, **about}, named_units=named).noting(*said)


def _unit(unit: str | float) -> str:
    return unit if isinstance(unit, str) else f"{unit:g}"


def _said_units(table: FileTable) -> dict[str, pd.Series]:
    """Units in a column loss_unit, each with its rows; rows without a unit count as nats if others have one.

    Raises:
        UserError: for an unknown unit.
    """
    column = next((part["loss_unit"] for part in (table.frame, table.further) if "loss_unit" in part), None)
    if column is None or "loss" not in table.frame:
        return {}
    said = pd.Series(as_texts(column, strip=True), index=column.index)
    if not (said != "").any():
        return {}
    known = {text: names.LOSS_UNITS.get(names.plain_name(text or "nats")) for text in said.unique()}
    unit = said.map(known)
    if unit.isna().any():
        raise UserError(
            f"runs table: the column loss_unit says {said[unit.isna()].iloc[0]!r}; known are {', '.join(names.LOSS_UNITS)}; "
            "correct it, or give 'runs.units={loss: UNIT}' with one of them, or a factor, for all rows"
        )
    return {str(one): unit == one for one in pd.unique(unit)}


def _each_in_its_unit(frame: pd.DataFrame, rows_of: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Every row's loss in nats per token; rows that cannot be converted are excluded with the reason. The column loss_unit
    stays unchanged: a fit of both kinds is refused, and each part is in nats."""
    out, reasons = frame.copy(), pd.Series("", index=frame.index, dtype=object)
    for unit, rows in rows_of.items():
        converted, kept = units.convert(frame[rows], {"loss": unit})
        out.loc[rows, "loss"] = converted["loss"]
        if kept:
            reasons[rows] = f"loss in {kept['loss']} beside losses per token: give the column bytes_per_token"
    return excluding(out, reasons)


def _hints(table: FileTable, given: FileOptions) -> dict[str, str | float]:
    """Units that the names of columns suggest, and in which the values make sense.

    Raises:
        UserError: for a loss in a unit that cannot be converted.
    """
    out: dict[str, str | float] = {}
    for name, source in table.sources.items():
        if name in ("tokens", "flops") and name not in given.units and names.is_rate(source):
            raise UserError(
                f"runs table: the column {source} seems to have {name} per second, not those up to the row; map "
                f"another column, or give 'runs.units={{{name}: 1}}' if they are"
            )
        unit = names.hint(name, source) if name in (*_LARGEST, "loss", "flops") or name.startswith("loss_") else None
        if unit is None or name in given.units:
            continue
        if isinstance(unit, str) and unit not in rules_of(name).units:
            raise UserError(
                f"runs table: the column {source} seems to be in {unit}, which cannot be converted; convert "
                f"it to nats per token, map another column, or give 'runs.units={{{name}: UNIT}}' if it is "
                f"{', '.join(LOSSES)} or a multiple of one"
            )
        if name in _LARGEST:
            values = as_numbers(name, table.frame[name])
            values = values[~table.suffixed.get(name, np.zeros(len(values), dtype=bool))]
            median = float(np.nanmedian(values)) if np.isfinite(values).any() else np.inf
            if unit == "log10" and median > units.LOG10_MOST:
                continue
            factor = unit if isinstance(unit, float) else rules_of(name).units[unit]
            if median * factor > _LARGEST[name]:
                continue
            if unit == "K":  # which would fit counts as well
                raise UserError(
                    f"runs table: the column {source} seems to be in thousands; give 'runs.units={{{name}: K}}' if it is, "
                    f"'runs.units={{{name}: 1}}' if it counts one by one"
                )
        out[name] = unit
    return out


def _samples(table: FileTable, own: list[str]) -> str | None:
    """The column that counts samples, if none counts steps."""
    if "step" in table.frame or names.likely("step", own):
        return None
    return next((name for name in own if names.plain_name(name) in names.SAMPLES), None)


def _run_named(table: FileTable, raw: RawTable) -> list[str]:
    """`run`, if a column that usually names runs has several names with several rows each; else nothing."""
    own = names.likely("run", map(str, raw.frame.columns)) if "run" not in table.sources else None
    return ["run"] if own is not None and 1 < raw.frame[own].nunique() < len(raw.frame) else []


def _refuse_unmapped(place: str, table: FileTable, raw: RawTable) -> None:
    """Refuse missing columns, with the mapping that would name them as far as the file's own names tell."""
    missing = [name for name in REQUIRED if name not in table.frame]
    if not missing:
        return
    own = [str(name) for name in raw.frame.columns]
    used = set(table.sources.values())
    free = [name for name in own if name not in used or FURTHER_LOSS.fullmatch(name)]
    remedy = f"map them: {names.mapping([*_run_named(table, raw), *missing], free)}"
    if "loss" in missing and (wide := suggestion(free)):
        remedy = f"a wide table is made long by {wide}"
    elif "tokens" in missing and names.suggested("tokens", free) is None and (samples := _samples(table, own)):
        wanted = [name for name in missing if name != "tokens"]
        mapped = names.mapping(wanted, own).replace("{", "{step: " + samples + (", " if wanted else ""), 1)
        remedy = f"map {mapped} and give 'runs.constants={{batch_tokens: TOKENS}}', the tokens of one sample"
    elif "tokens" in missing and names.suggested("tokens", free) is None and (step := names.likely("step", own)):
        mapped = names.mapping([*(name for name in missing if name != "tokens"), *({"step"} - set(table.frame))], own)
        mapped = f"map {mapped} and " if "{}" not in mapped else ""
        remedy = f"{mapped}give 'runs.constants={{batch_tokens: TOKENS}}', the tokens of one step (column {step})"
    elif "tokens" in missing and names.suggested("tokens", free) is None and (flops := names.suggested("flops", own)):
        wanted = [*({"flops"} - set(table.frame)), *(name for name in missing if name != "tokens")]
        mapped = f"map {names.mapping(wanted, own)} and " if wanted else ""
        remedy = f"{mapped}give runs.tokens_from=6n, which takes tokens = FLOPs / (6 params) (column {flops})"
    raise UserError(f"{place}: no column {', '.join(missing)}; {raw.holder} {', '.join(own) or 'none'}; {remedy}")
