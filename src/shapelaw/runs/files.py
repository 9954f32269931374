"""A user's own table: any file that `readers` takes, with a mapping of columns, units, and what the file leaves out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.counting import params_total
from shapelaw.errors import UserError
from shapelaw.runs import names, units
from shapelaw.runs.columns import CANONICAL, FURTHER_LOSS, NATS_PER_TOKEN, REQUIRED, as_numbers, is_canonical, rules_of
from shapelaw.runs.numbers import Numbers, as_is, decimal_of, read
from shapelaw.runs.readers import RawTable, read_raw
from shapelaw.runs.reduce import RULES, collapse, telling_apart
from shapelaw.runs.table import WITHOUT_EMBEDDING, RunsTable
from shapelaw.runs.wide import lengthen, suggestion, turned
from shapelaw.shapes import HEAD_SIZE

_PERCENT = ("accuracy", "error", "cooldown")
_NON_EMBEDDING = re.compile(r"(non|no|without|excl\w*)_?emb")
OF_FILES = ("columns", "units", "constants", "wide", "decimal", "sheet", "tokens_from")
"""Options that no other source has."""
_LARGEST = {"params": 1e13, "tokens": 1e14}
"""Medians above which a unit that a column's name hints at is not believed."""


@dataclass(frozen=True)
class FileOptions:
    """How a file is read.

    Args:
        columns: canonical name -> name in the file; a canonical name that the file holds, in capitals or not, needs no entry.
        units: canonical name -> factor, or a unit that the column's rules name, by which its values are multiplied.
        constants: canonical name -> a value of every row, or run -> value.
        wide: what the columns of a wide table are named by (`shapelaw.runs.wide.WIDE`).
        decimal: the file's decimal sign, `dot` or `comma`; None tells it from the numbers.
        sheet: of an Excel file; None takes the first.
        tokens_from: `6n`: tokens = FLOPs / (6 * params) where the file has none.
        reduce, reduce_by: what becomes of rows that repeat a run and token count (`shapelaw.runs.reduce`).
        exclude_faults: exclude invalid and repeated rows with a reason instead of raising.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str | float] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    wide: str | None = None
    decimal: str | None = None
    sheet: str | None = None
    tokens_from: str | None = None
    reduce: str = "auto"
    reduce_by: Sequence[str] = ()
    exclude_faults: bool = False

    @property
    def of_files(self) -> dict[str, Any]:
        """Those that only files have."""
        return {name: getattr(self, name) for name in OF_FILES}


@dataclass(frozen=True)
class _Table:
    """A file on its way to a runs table: canonical columns, the others, and what is to be said."""

    frame: pd.DataFrame
    further: pd.DataFrame
    sources: Mapping[str, str]
    notes: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)
    named_units: frozenset[str] = frozenset()

    def noting(self, *notes: str) -> _Table:
        return replace(self, notes=(*self.notes, *filter(None, notes)))


def from_file(path: str | os.PathLike[str] | None, options: FileOptions | None = None) -> RunsTable:
    """Read a table of runs.

    Without `params`, parameters are counted from width, depth, vocab_size and head_size; without `tokens`, they are
    step * batch_tokens. Without `run`, each row counts as a run of its own, which `about` says: intervals from the table
    are then those of independent rows.

    Args:
        path: the file.
        options: how it is read.

    Raises:
        UserError: if the file, a column or a unit cannot be found, or a value is invalid.
    """
    if path is None:
        raise UserError("path: none given; name a .csv, .parquet, .json or .xlsx file")
    given = options or FileOptions()
    raw = read_raw(Path(path), given.sheet)
    table = _typed(_named(path, raw, given), raw, given)
    table = _derived(_in_units(table, given), given)
    _refuse_unmapped(path, table, raw)
    table = _checked(_with_repeats(table, given))
    table = table.noting(_unfinished(table))
    about = {"source": str(path), "loss_unit": NATS_PER_TOKEN, **table.about}
    about |= {"reading": "; ".join(table.notes)} if table.notes else {}
    if given.exclude_faults:
        return RunsTable.excluding_faults(table.frame, about, further=table.further)
    return RunsTable(table.frame, about, further=table.further)


def _named(path: str | os.PathLike[str], raw: RawTable, given: FileOptions) -> _Table:
    """Mapped columns under their canonical names, those that bear one already, and constants; the others apart."""
    frame, notes, columns = raw.frame, raw.notes, dict(given.columns)
    for ours in (*columns, *given.constants):
        if not is_canonical(str(ours)):
            allowed = ", ".join([*CANONICAL, "loss_NAME"])
            raise UserError(f"columns: {ours} is not canonical (a mapping is canonical: source); allowed are {allowed}")
    if given.wide is None and (upright := turned(frame)) is not None:
        frame, notes = upright, (*notes, "the table lay on its side")
        raw = replace(raw, reasons=None)
    if given.wide:
        frame, note = lengthen(frame, given.wide, columns)
        notes, columns = (*notes, note), {ours: theirs for ours, theirs in columns.items() if ours != "loss"}
    frame = _joined(frame, columns.get("run", ""))
    for ours, theirs in columns.items():
        if theirs not in frame:
            raise UserError(f"columns: {ours}={theirs}, but the file has {', '.join(map(str, frame.columns))}")
    frame = frame.loc[:, ~frame.columns.duplicated()]
    sources = {**names.taken(map(str, frame.columns)), **columns}
    out = pd.DataFrame({ours: frame[theirs] for ours, theirs in sources.items()}, index=frame.index)
    if raw.reasons is not None and not given.wide:
        out = _excluding(out, raw.reasons)
    further = frame.drop(columns=[name for name in frame if name in set(sources.values()) or name == ""])
    return _Table(_with_constants(out, given.constants), further, sources, notes)


def _joined(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The frame with the column `a+b`, whose texts are those of columns a and b, where it is asked for and not there."""
    parts = name.split("+")
    if name in frame or len(parts) < 2 or not set(parts) <= set(frame):
        return frame
    return frame.assign(**{name: frame[parts].astype(str).agg(" ".join, axis=1)})


def _excluding(frame: pd.DataFrame, reasons: pd.Series) -> pd.DataFrame:
    """Rows with a reason in the column excluded; earlier reasons stay."""
    own = frame["excluded"].fillna("").astype(str) if "excluded" in frame else pd.Series("", index=frame.index)
    return frame.assign(excluded=own.where(own != "", reasons)) if (reasons != "").any() else frame


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


def _typed(table: _Table, raw: RawTable, given: FileOptions) -> _Table:
    """Numbers read from their texts; rows that hold something else refused, or excluded with that reason."""
    frame = table.frame
    numeric = [name for name in frame if not rules_of(str(name)).text]
    texts = {str(name): pd.unique(frame[name].dropna()) for name in numeric if as_is(frame[name]) is None}
    if texts:
        texts |= {str(name): pd.unique(frame[name].dropna()) for name in numeric if name not in texts}
    decimal = decimal_of(texts, raw.delimiter, given.decimal)
    open_rows = (frame["excluded"].fillna("") == "") if "excluded" in frame else pd.Series(True, index=frame.index)
    notes, reasons, out = list(table.notes), pd.Series("", index=frame.index, dtype=object), frame.copy()
    for name in numeric:
        rules = rules_of(str(name))
        counts = "M" in rules.units or rules.whole
        numbers = read(str(name), frame[name], decimal, counts=counts, shares=name in _PERCENT)
        bad = (numbers.unreadable != "") & open_rows.to_numpy()
        if bad.any():
            _refuse_texts(str(name), numbers, bad, given.exclude_faults)
            said = [f"{name} is no number ({text})" for text in numbers.unreadable[bad]]
            reasons[bad] = reasons[bad].where(reasons[bad] != "", said)
        out[name], notes = numbers.values, [*notes, *numbers.notes]
    for name in set(map(str, frame)) - set(map(str, numeric)):
        out[name] = ["" if pd.isna(text) else str(text).strip() for text in frame[name]]
    return replace(table, frame=_excluding(out, reasons), further=_further(table.further, decimal), notes=tuple(notes))


def _refuse_texts(name: str, numbers: Numbers, bad: NDArray[np.bool_], exclude: bool) -> None:
    first = int(bad.argmax())
    whole = not np.isfinite(numbers.values).any()
    if exclude and not whole:
        return
    more = f" and {int(bad.sum()) - 1} more" if bad.sum() > 1 else ""
    remedy = (
        "correct them" if whole else "correct them, or leave these rows out with that reason (runs.bad_rows=exclude)"
    )
    raise UserError(
        f"runs table: column {name} holds something that is not a number ({numbers.unreadable[first]!r} in row "
        f"{first + 1}{more}); {remedy}"
    )


def _further(frame: pd.DataFrame, decimal: str) -> pd.DataFrame:
    """Columns beside the canonical ones under names that a condition can hold, as numbers where all are."""
    out: dict[str, Any] = {}
    for name, values in frame.items():
        plain = re.sub(r"\W", "_", str(name))
        if plain in out or is_canonical(plain) or not plain.isidentifier():
            continue
        numbers = read(plain, values, decimal, counts=False)
        texts = values.fillna("").astype(str).str.strip() if (numbers.unreadable != "").any() else None
        out[plain] = numbers.values if texts is None else texts.to_numpy(dtype=object)
    return pd.DataFrame(out, index=frame.index)


def _in_units(table: _Table, given: FileOptions) -> _Table:
    """Values in canonical units: those that were named, else those of which a column's name speaks."""
    hinted = {name: unit for name, unit in _hints(table).items() if name not in given.units}
    said = [f"{name}: {unit}, as the column is named {table.sources[name]}" for name, unit in hinted.items()]
    frame, own = units.convert(table.frame, {**hinted, **given.units})
    about = {"loss_unit" if name == "loss" else f"{name}_unit": unit for name, unit in own.items()}
    named = frozenset([*hinted, *given.units])
    return replace(table, frame=frame, about={**table.about, **about}, named_units=named).noting(*said)


def _hints(table: _Table) -> dict[str, str]:
    """Units of which the names of columns speak, and in which the values make sense."""
    out = {}
    for name, source in table.sources.items():
        unit = names.hint(name, source) if name in (*_LARGEST, "loss") or name.startswith("loss_") else None
        if unit is None:
            continue
        if name in _LARGEST:
            values = as_numbers(name, table.frame[name])
            median = float(np.nanmedian(values)) if np.isfinite(values).any() else np.inf
            if unit == "K" or median * rules_of(name).units[unit] > _LARGEST[name]:
                continue
        out[name] = unit
    return out


def _derived(table: _Table, given: FileOptions) -> _Table:
    """What the file leaves out and its other columns say: error, run, params, tokens."""
    table = replace(table, frame=_with_error(table.frame))
    table = _with_params(_with_runs(table))
    frame = table.frame
    if "tokens" not in frame and {"step", "batch_tokens"} <= set(frame):
        steps = as_numbers("step", frame["step"])
        frame = frame.assign(tokens=steps * as_numbers("batch_tokens", frame["batch_tokens"]))
        untrained = pd.Series(np.where(steps == 0, "before the first step", ""), index=frame.index, dtype=object)
        return replace(table, frame=_excluding(frame, untrained)).noting("tokens: step * batch_tokens")
    if "tokens" not in frame and given.tokens_from == "6n" and {"flops", "params"} <= set(frame):
        tokens = as_numbers("flops", frame["flops"]) / (6.0 * as_numbers("params", frame["params"]))
        return replace(table, frame=frame.assign(tokens=tokens)).noting("tokens: flops / (6 * params)")
    return table


def _with_runs(table: _Table) -> _Table:
    if "run" in table.frame:
        return table
    runs = [f"row-{i:05d}" for i in range(len(table.frame))]
    about = {**table.about, "runs": "the file names no runs: each row counts as a run of its own"}
    return replace(table, frame=table.frame.assign(run=runs), about=about)


def _with_params(table: _Table) -> _Table:
    """Parameters counted from shapes where there are none; said where the file's leave out the embedding."""
    frame, source = table.frame, table.sources.get("params", "")
    if _NON_EMBEDDING.search(names.plain_name(source)):
        counted = f"{WITHOUT_EMBEDDING}, as the column is named {source}"
        return replace(table, about={**table.about, "params_counting": counted}).noting(f"params: {counted}")
    if "params" in frame or not {"width", "depth", "vocab_size"} <= set(frame):
        return table
    counted = "total: counted from width, depth, vocab_size and head_size (128 where not named)"
    return replace(
        table, frame=frame.assign(params=_counted(frame)), about={**table.about, "params_counting": counted}
    ).noting(f"params: {counted}")


def _counted(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Parameters of each row's shape, embedding and head included; of invalid sizes, which are refused as such, anything."""
    width, depth, vocab = (as_numbers(name, frame[name]) for name in ("width", "depth", "vocab_size"))
    head = as_numbers("head_size", frame["head_size"]) if "head_size" in frame else np.zeros(len(frame))
    with np.errstate(invalid="ignore"):
        return params_total(width, depth, vocab, np.where(head > 0, head, HEAD_SIZE))


def _with_error(frame: pd.DataFrame) -> pd.DataFrame:
    """Beside accuracies, the share of wrong answers that the accuracy laws are fitted to.

    Raises:
        UserError: if an accuracy is no share.
    """
    if "accuracy" not in frame:
        return frame
    shares = pd.to_numeric(frame["accuracy"], errors="coerce")
    if ((shares < 0) | (shares > 1)).any():
        raise UserError(
            f"accuracy: {shares.min():g} to {shares.max():g}; allowed are shares from 0 to 1 (percent: "
            "runs.units={accuracy: 0.01})"
        )
    return frame.assign(error=1.0 - shares)


def _refuse_unmapped(path: str | os.PathLike[str], table: _Table, raw: RawTable) -> None:
    """Raise what is missing, with the mapping that would name it as far as the file's own names tell."""
    missing = [name for name in REQUIRED if name not in table.frame]
    if not missing:
        return
    own = [str(name) for name in raw.frame.columns]
    used = set(table.sources.values())
    free = [name for name in own if name not in used or FURTHER_LOSS.fullmatch(name)]
    remedy = f"map them: {names.mapping(missing, free)}"
    if "loss" in missing and (wide := suggestion(free)):
        remedy = f"a wide table is made long by {wide}"
    elif "tokens" in missing and names.likely("tokens", free) is None and (step := names.likely("step", own)):
        mapped = names.mapping([*(name for name in missing if name != "tokens"), *({"step"} - set(table.frame))], own)
        mapped = f"map {mapped} and " if "{}" not in mapped else ""
        remedy = f"{mapped}give 'runs.constants={{batch_tokens: TOKENS}}', the tokens of one step (column {step})"
    raise UserError(f"path={path}: no column {', '.join(missing)}; the file has {', '.join(own) or 'none'}; {remedy}")


def _counting_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that are not excluded."""
    return frame[frame["excluded"].fillna("") == ""] if "excluded" in frame else frame


def _with_repeats(table: _Table, given: FileOptions) -> _Table:
    """Rows that repeat a run and token count with another loss, reduced by the rule that was named.

    Raises:
        UserError: without a rule, as nothing says which of them counts, or where models of several sizes share a run.
    """
    rows = _counting_rows(table.frame)
    rows = rows[rows["loss"].notna() & rows["tokens"].notna()]
    repeated = rows[rows.duplicated(["run", "tokens"], keep=False)]
    if repeated.empty or not repeated.groupby(["run", "tokens"])["loss"].nunique().gt(1).any():
        return table
    if names_of_settings := telling_apart(repeated.join(table.further)):
        told = table.frame.join(table.further)[names_of_settings].astype(str).agg(" ".join, axis=1)
        runs = table.frame["run"].where(~table.frame["run"].isin(repeated["run"]), table.frame["run"] + " " + told)
        return replace(table, frame=table.frame.assign(run=runs)).noting(
            f"run: told apart by {', '.join(names_of_settings)}"
        )
    if repeated.groupby(["run", "tokens"])["params"].nunique().gt(1).any():
        raise UserError(
            f"runs table: {len(repeated)} rows repeat a run and token count and differ in params; give each run its own name, "
            f"such as 'runs.columns={{run: {table.sources.get('run', 'run')}+{table.sources.get('params', 'params')}}}'"
        )
    if given.reduce not in ("best", "last", "mean"):
        first = repeated.iloc[0]
        raise UserError(
            f"runs table: {len(repeated)} rows repeat a run and token count and differ in loss, first run {first['run']}, "
            f"tokens {first['tokens']:.6g}; give runs.reduce={', '.join(RULES[:-1])}, or each run its own name"
        )
    by = list(dict.fromkeys(["run", "tokens", *given.reduce_by]))
    frame = table.frame if "excluded" in table.frame else table.frame.assign(excluded="")
    frame, said = collapse(frame, rows.join(table.further), given.reduce, by)
    return replace(table, frame=frame, about={**table.about, "repeats": said})


def _checked(table: _Table) -> _Table:
    """Whole columns that cannot be what they are taken for are refused, unless their unit was named."""
    rows = _counting_rows(table.frame)
    units.refuse_small_counts(rows, table.named_units)
    if "loss" in table.named_units:
        return table
    units.refuse_no_losses(rows)
    return table.noting(units.odd_losses(rows))


_UNFINISHED = frozenset(["crashed", "failed", "killed", "running", "preempted", "oom", "diverged", "error", "pending"])


def _unfinished(table: _Table) -> str:
    """A note of the rows whose tracker says that their run has not ended as it should."""
    columns = {"status": table.frame.get("status")} | {
        name: table.further.get(name) for name in ("State", "state", "Status")
    }
    for name, values in columns.items():
        if values is not None and (bad := values.astype(str).str.lower().isin(_UNFINISHED)).any():
            said = ", ".join(sorted(values[bad].astype(str).unique()))
            return f"{int(bad.sum())} rows are of runs whose {name} is {said}: leave them out by subset.where"
    return ""
