"""A user's own table: CSV, Parquet or JSON lines, with a mapping of columns and units."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.counting import params_total
from shapelaw.errors import UserError
from shapelaw.runs.columns import CANONICAL, REQUIRED, as_numbers, is_canonical, rules_of
from shapelaw.runs.sealing import read_parquet
from shapelaw.runs.table import RunsTable
from shapelaw.shapes import HEAD_SIZE

_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": pd.read_csv,
    ".parquet": lambda path: read_parquet(path)[0],
    ".jsonl": lambda path: pd.read_json(path, lines=True),
}
USUAL = {
    "params": ("n", "n_params", "num_params", "parameters"),
    "tokens": ("d", "n_tokens", "num_tokens", "training_tokens"),
    "loss": ("l", "final_loss", "val_loss", "eval_loss", "validation_loss"),
}
"""Canonical name -> names, in small letters, by which files often hold it."""


def from_file(
    path: str | os.PathLike[str] | None,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str | float] | None = None,
    *,
    exclude_faults: bool = False,
) -> RunsTable:
    """Read a table of runs.

    Args:
        path: a .csv, .parquet or .jsonl file (.gz and the like are read too).
        columns: canonical name -> name in the file; a canonical name that the file holds needs no entry.
        units: canonical name -> factor, or a unit that the column's rules name, by which its values are multiplied.
        exclude_faults: exclude invalid and repeated rows with a reason instead of raising.

    Without `params`, parameters are counted from width, depth, vocab_size and head_size. Without `run`, each row counts
    as a run of its own, which `about` says: intervals from the table are then those of independent rows.

    Raises:
        UserError: if the file, a column or a unit cannot be found, or a value is invalid.
    """
    if path is None:
        raise UserError("path: none given; name a .csv, .parquet or .jsonl file")
    raw = _read(Path(path))
    about = {"source": str(path), "loss_unit": "nats per token"}
    frame = _scale(_rename(raw, columns or {}), units or {})
    frame = _with_error(frame)
    if "run" not in frame:
        frame = frame.assign(run=[f"row-{i:05d}" for i in range(len(frame))])
        about["runs"] = "the file names no runs: each row counts as a run of its own"
    if "params" not in frame and {"width", "depth", "vocab_size"} <= set(frame):
        frame = frame.assign(params=_counted(frame))
        about["params_counting"] = "total: counted from width, depth, vocab_size and head_size (128 where not named)"
    _refuse_unmapped(path, frame, raw)
    return RunsTable.excluding_faults(frame, about) if exclude_faults else RunsTable(frame, about)


def _read(path: Path) -> pd.DataFrame:
    """The raw file."""
    kind = next((suffix for suffix in path.suffixes[::-1] if suffix in _READERS), None)
    if kind is None:
        raise UserError(f"path={path}: allowed are files ending {', '.join(_READERS)}")
    try:
        return _READERS[kind](path)
    except UserError:
        raise
    except Exception as error:  # pandas hands on whatever its parsers and the decompressors raise
        raise UserError(f"path={path}: cannot be read ({error}); give an undamaged file of named columns") from None


def _rename(raw: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Mapped columns under their canonical names, and those that bear one already."""
    for ours, theirs in columns.items():
        if not is_canonical(str(ours)):
            allowed = ", ".join([*CANONICAL, "loss_NAME"])
            raise UserError(f"columns: {ours} is not canonical (a mapping is canonical: source); allowed are {allowed}")
        if theirs not in raw:
            raise UserError(f"columns: {ours}={theirs}, but the file has {', '.join(map(str, raw.columns))}")
    own = {str(name): name for name in raw.columns if is_canonical(str(name))}
    return pd.DataFrame({ours: raw[theirs] for ours, theirs in {**own, **columns}.items()})


def _refuse_unmapped(path: str | os.PathLike[str], frame: pd.DataFrame, raw: pd.DataFrame) -> None:
    """Raise what is missing, with the mapping that would name it as far as the file's own names tell."""
    missing = [name for name in REQUIRED if name not in frame]
    if missing:
        mapping = ", ".join(f"{name}: {_likely(name, raw) or 'COLUMN'}" for name in missing)
        raise UserError(
            f"path={path}: no column {', '.join(missing)}; the file has {', '.join(map(str, raw.columns)) or 'none'}; map "
            f"them: 'runs.columns={{{mapping}}}'"
        )


def _likely(name: str, raw: pd.DataFrame) -> str | None:
    """The one column of the file that usually means this."""
    found = [str(own) for own in raw.columns if str(own).lower() in USUAL.get(name, ())]
    return found[0] if len(found) == 1 else None


def _counted(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Parameters of each row's shape, embedding and head included; of invalid sizes, which are refused as such, anything.

    Raises:
        UserError: if a size is not a number.
    """
    width, depth, vocab = (as_numbers(name, frame[name]) for name in ("width", "depth", "vocab_size"))
    head = as_numbers("head_size", frame["head_size"]) if "head_size" in frame else np.zeros(len(frame))
    with np.errstate(invalid="ignore"):
        return params_total(width, depth, vocab, np.where(head > 0, head, HEAD_SIZE))


def _scale(frame: pd.DataFrame, units: Mapping[str, str | float]) -> pd.DataFrame:
    """Columns times the factor of their unit."""
    out = frame.copy()
    for name, unit in units.items():
        if name not in out or rules_of(name).text:
            raise UserError(f"units: {name} is no numeric column; the table has {', '.join(map(str, out.columns))}")
        out[name] = as_numbers(name, out[name]) * _factor(name, unit)
    return out


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


def _factor(name: str, unit: str | float) -> float:
    """Factor of one of the column's named units, or a positive number."""
    named = rules_of(name).units
    if isinstance(unit, str) and unit in named:
        return named[unit]
    if not isinstance(unit, int | float) or not (math.isfinite(unit) and unit > 0):
        raise UserError(f"units: {name}={unit}; allowed are {', '.join(['positive numbers', *named])}")
    return float(unit)
