"""Files of tables, recognised by their endings: delimited text of any dialect, JSON, Parquet and Excel, plain or compressed."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shapelaw.errors import UserError
from shapelaw.runs import headers, log_lines, names
from shapelaw.runs.delimited import parse
from shapelaw.runs.sealing import read_parquet

HEADER_AGAIN = "the header again"
SUMMARY = "a summary of the rows above"
SUMMARIES = frozenset(["mean", "average", "avg", "median", "std", "sum", "total"])
"""Names of the last rows of a spreadsheet that summarise the others."""


@dataclass(frozen=True)
class RawTable:
    """The unchanged content of a file.

    Args:
        frame: its columns; for delimited text, all are texts.
        delimiter: delimiter of delimited text, else None.
        reasons: why a row does not belong to the table, else empty, (rows,).
        notes: notes for a reader of the fit.
        holder: owner of the columns, for messages.
    """

    frame: pd.DataFrame
    delimiter: str | None = None
    reasons: pd.Series | None = None
    notes: tuple[str, ...] = ()
    holder: str = "the file has"


def _delimited(path: Path, sheet: str | None) -> RawTable:
    text, encoding = _decoded(path)
    if (rows := log_lines.rows_of(text)) is not None:  # before JSON: lines may begin with a time in brackets
        return RawTable(rows[0], " ", notes=(rows[1],))
    if text.lstrip()[:1] in ("[", "{"):
        return RawTable(_of_json(text))
    frame, delimiter, notes = parse(text)
    again = (frame == list(frame.columns)).all(axis=1)
    reasons = pd.Series(np.where(again, HEADER_AGAIN, ""), dtype=object)
    reasons.iloc[_first_summary(frame) :] = SUMMARY
    said = [*([f"text as {encoding}"] if encoding != "utf-8" else []), *notes]
    return RawTable(frame, delimiter, reasons, tuple(said))


def _first_summary(frame: pd.DataFrame) -> int:
    """Index of the first of the last rows that summarise the others, according to their first non-empty field."""
    first = len(frame)
    while first and next((v for v in frame.iloc[first - 1] if v.strip()), "").strip().lower().rstrip(":") in SUMMARIES:
        first -= 1
    return first


def _json(path: Path, sheet: str | None) -> RawTable:
    return RawTable(_of_json(_decoded(path)[0]))


def _parquet(path: Path, sheet: str | None) -> RawTable:
    return RawTable(_flat(read_parquet(path)[0]))


def _feather(path: Path, sheet: str | None) -> RawTable:
    return RawTable(_flat(pd.read_feather(path)))


def _excel(path: Path, sheet: str | None) -> RawTable:
    """A sheet, the first by default; its header is the first row with two cells or more."""
    try:
        book = pd.ExcelFile(path, engine_kwargs={"read_only": False})
    except ImportError:
        raise UserError(
            f"runs.path={path}: Excel files need openpyxl; install it (pip install openpyxl), or save the sheet as CSV"
        ) from None
    with book:
        names = [str(name) for name in book.sheet_names]
        if sheet is not None and sheet not in names:
            raise UserError(f"runs.sheet={sheet}: the file has {', '.join(names)}")
        cells = pd.read_excel(book, sheet_name=sheet or names[0], header=None, dtype=object)
        page = book.book[sheet or names[0]]
        hidden = [number - 1 for number, row in page.row_dimensions.items() if row.hidden and number <= len(cells)]
        merged = [part.bounds for part in page.merged_cells.ranges]
    heads = cells.index[cells.notna().sum(axis=1) >= min(2, cells.dropna(how="all", axis=1).shape[1])]
    if not len(heads):
        raise ValueError("the sheet is empty")
    cells = _with_merged(cells, merged, heads[0]).dropna(how="all").dropna(how="all", axis=1)
    below = cells.loc[cells.index >= heads[0]]
    texts = [
        ["" if pd.isna(cell) else str(cell) for cell in row]
        for row in below.head(headers.LOOKED_AT).itertuples(index=False)
    ]
    header, taken = headers.join(texts)
    body = below.iloc[taken:].set_axis(header, axis=1)
    seen = [row for row in hidden if row in body.index]
    said = [
        f"sheet {sheet or names[0]!r} of {len(names)}" if len(names) > 1 else "",
        headers.note(header, taken),
        f"{len(seen)} rows that the sheet hides are also read" if seen else "",
    ]
    return RawTable(body.reset_index(drop=True), notes=tuple(filter(None, said)))


def _with_merged(cells: pd.DataFrame, merged: list[tuple[int, int, int, int]], header: int) -> pd.DataFrame:
    """The cells, with merged ones filled with their value: those of the header, and those that span rows.

    Args:
        merged: first column, first row, last column and last row of each, from 1.
        header: index of the header's row; titles above it stay unchanged.
    """
    values = cells.to_numpy(dtype=object, copy=True)
    for left, top, right, bottom in merged:
        if top - 1 >= header and (bottom > top or top - 1 == header):
            values[top - 1 : bottom, left - 1 : right] = values[top - 1, left - 1]
    return pd.DataFrame(values, cells.index, cells.columns)


READERS: dict[str, Callable[[Path, str | None], RawTable]] = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt", ".dat", ".md", ".log"), _delimited),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), _json),
    **dict.fromkeys((".parquet", ".pq"), _parquet),
    ".feather": _feather,
    ".xlsx": _excel,
}
"""Ending of a file's name -> its reader; text may be compressed."""


_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}


def read_raw(path: Path, sheet: str | None = None) -> RawTable:
    """A file's table.

    Args:
        path: path of the file.
        sheet: sheet of an Excel file; None takes the first.

    Raises:
        UserError: for an ending without a reader, a damaged or missing file, or an unknown sheet.
    """
    kind = next((suffix.lower() for suffix in path.suffixes[::-1] if suffix.lower() in READERS), None)
    if kind is None:
        raise UserError(f"runs.path={path}: allowed values are files ending {', '.join(READERS)}")
    try:
        raw = READERS[kind](path, sheet)
    except UserError:
        raise
    except Exception as error:  # pandas passes on whatever its parsers and the decompressors raise
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"runs.path={path}: cannot be read ({said}); give an undamaged file of named columns") from None
    _refuse_twins(path, raw.frame)
    return raw


def _refuse_twins(path: Path, frame: pd.DataFrame) -> None:
    """Refuse two columns with the same name and different values."""
    for name in frame.columns[frame.columns.duplicated()].unique():
        alike = frame.loc[:, [str(own) == name for own in frame.columns]]
        if name != "" and not all(alike.iloc[:, 0].equals(alike.iloc[:, k]) for k in range(1, alike.shape[1])):
            raise UserError(
                f"runs.path={path}: {alike.shape[1]} columns are named {name} and differ; give each its own name"
            )


def _decoded(path: Path) -> tuple[str, str]:
    """The file's text without its byte-order mark, and its encoding."""
    content = _content(path)
    for mark, encoding in (
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe\0\0", "utf-32-le"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
    ):
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding), encoding
    if b"\0" in content[:64]:
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
        return content.decode(encoding), encoding
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return content.decode("cp1252"), "cp1252 (latin-1)"


def _content(path: Path) -> bytes:
    """The file's bytes, decompressed."""
    ending = path.suffix.lower()
    if ending == ".zip":
        with zipfile.ZipFile(path) as archive:
            return archive.read(_only(archive.namelist()))
    if ending in (".zst", ".lz4"):
        import pyarrow

        with pyarrow.input_stream(str(path), compression="detect") as stream:
            return bytes(stream.read())
    content = path.read_bytes()
    return _DECOMPRESS[ending](content) if ending in _DECOMPRESS else content


def _only(names: list[str]) -> str:
    if len(names) != 1:
        raise ValueError(f"the archive holds {len(names)} files; give one of them")
    return names[0]


def _of_json(text: str) -> pd.DataFrame:
    """A table in JSON: records, lines, split, columns or index, as pandas writes and loggers append them."""
    try:
        return _of_value(json.loads(text))
    except json.JSONDecodeError:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        return _of_records(rows)


def _of_value(value: Any) -> pd.DataFrame:
    if isinstance(value, list):
        whole = value and all(isinstance(row, list) for row in value)
        return pd.DataFrame(value[1:], columns=[str(name) for name in value[0]]) if whole else _of_records(value)
    if not isinstance(value, dict) or not value:
        raise ValueError("JSON without a table")
    if {"columns", "data"} <= set(value):
        return pd.DataFrame(value["data"], columns=[str(name) for name in value["columns"]])
    tables = [part for part in value.values() if isinstance(part, list) and part and isinstance(part[0], dict)]
    if len(tables) == 1:
        return _of_records(tables[0])
    if all(isinstance(part, Mapping) for part in value.values()):
        return _of_mappings(value)
    if all(isinstance(part, list) for part in value.values()):
        return pd.DataFrame(value)
    return _of_records([value])


def _of_mappings(value: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Name of a column -> row -> value if rows are numbered; else name of a run -> column -> value."""
    if all(key.isdigit() for part in value.values() for key in part):
        return pd.DataFrame(value)
    named = [row if "run" in row else {**row, "run": name} for name, row in value.items()]
    return _of_records(named)


def _of_records(rows: list[Any]) -> pd.DataFrame:
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError("JSON whose rows have no column names")
    return _flat(pd.json_normalize(rows))


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of plain values with text names; a named index and parts of structures become columns."""
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    out = {
        str(name): values.astype(object) if isinstance(values.dtype, pd.CategoricalDtype) else values
        for name, values in frame.items()
    }
    nested = [name for name, values in out.items() if any(isinstance(value, dict) for value in values[:1])]
    table = pd.DataFrame(out).reset_index(drop=True)
    if nested:
        parts = [pd.json_normalize([v or {} for v in table[name]]).add_prefix(f"{name}.") for name in nested]
        table = pd.concat([table.drop(columns=nested), *parts], axis=1)
    return _a_row_a_value(table)


def _a_row_a_value(table: pd.DataFrame) -> pd.DataFrame:
    """Curves that a record holds as lists beside its settings, with one row per value; other lists become JSON."""
    lengths = {
        str(name): [len(value) if isinstance(value, list | np.ndarray) else -1 for value in values]
        for name, values in table.items()
        if values.dtype == object and any(isinstance(value, list | np.ndarray) for value in values)
    }
    losses = names.likely("loss", list(lengths)) or ("y" if {"x", "y"} <= set(lengths) else None)
    curves = [name for name in lengths if losses and lengths[name] == lengths[losses] and min(lengths[name]) >= 0]
    for name in set(lengths) - set(curves):
        table[name] = [
            json.dumps(list(v), default=str) if lengths[name][k] >= 0 else v for k, v in enumerate(table[name])
        ]
    if not curves:
        return table
    named = names.likely("run", [str(name) for name in table.columns])
    whole = table if named else table.assign(run=[f"row-{k:05d}" for k in range(len(table))])
    return whole.explode(curves, ignore_index=True)
