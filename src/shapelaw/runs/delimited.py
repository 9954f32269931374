"""Delimited text of any dialect as a table of texts: delimiter, comment lines, row names, a header in a comment."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from shapelaw.runs import headers

DELIMITERS = (",", ";", "\t", "|", "&", "^", "~", ":")
COMMENTS = ("#", "//")
_SPACES = r"\s+"
_LOOKED_AT = 20
_QUOTED = re.compile(r'(?<![^,;\t|\r\n])"(?:[^"]|"")*"(?=[,;\t|\r\n]|$)')
"""A quoted field, which may hold line breaks."""
_NUMBER = re.compile(r"[+-]?[0-9][0-9.,_' ]*(e[+-]?[0-9]+)?[KMBT]?", re.IGNORECASE)


def parse(text: str) -> tuple[pd.DataFrame, str, list[str]]:
    """The table, with all cells as text and missing ones empty, its delimiter, and notes for a reader of the fit.

    Raises:
        ValueError: if there is no table, or a row has more fields than the header.
    """
    lines, comments, below = _without_comments(text)
    if not lines:
        raise ValueError("it is empty")
    delimiter = _delimiter(lines)
    if delimiter == "|":
        lines = [line.strip().strip("|") for line in lines if not re.fullmatch(r"[|:+\s-]+", line)]
    if delimiter == "&":
        lines = [plain for line in lines if (plain := _of_latex(line))]
    if delimiter in DELIMITERS:
        lines = lines[_titles(lines, delimiter) :]
    cells = _cells(lines, delimiter)
    cells = cells[(cells != "").any(axis=1)]
    header, taken = _header_in_comment(comments, delimiter, cells), 0
    if not header:
        names, taken = headers.join(
            [_stripped(row, cells.shape[1]) for _, row in cells.head(headers.LOOKED_AT).iterrows()]
        )
        header = _stripped(pd.Series(names))
    if all(headers.is_value(name) for name in header if name):
        raise ValueError("its first row has values instead of names: put a line of names above it")
    left_out = f"{below} lines below the header that begin with # or //, like comments, are left out" if below else ""
    if below and taken == len(cells):
        raise ValueError(f"no rows: {left_out}")
    said = [left_out, headers.note(header, taken)]
    return _named(cells.iloc[taken:], header, delimiter), delimiter, [note for note in said if note]


def _of_latex(line: str) -> str:
    """A row of a LaTeX table without its rules, its end and the markup of its fields."""
    bare = re.sub(
        r"\\\\(\[.*?\])?\s*$", "", re.sub(r"\\(?:hline|(?:top|mid|bottom)rule|cline\{.*?\})", "", line).strip()
    )
    return (
        re.sub(r"\\(?:textbf|mathbf|textit|underline)\{(.*?)\}", r"\1", bare)
        .replace("$", "")
        .replace("\\%", "%")
        .strip()
    )


def _without_comments(text: str) -> tuple[list[str], list[str], int]:
    """Lines of the table, comment lines, and the number of these below the table's first line.

    Only whole lines count as comments, because names may hold a #.
    """
    whole = _QUOTED.sub(lambda field: re.sub(r"\s*[\r\n]+\s*", " ", field[0]), text) if '"' in text else text
    lines = [line for line in re.split(r"\r\n|\r|\n", whole) if line.strip()]
    if lines and re.fullmatch(r"sep=.", lines[0]):  # for Excel
        lines = lines[1:]
    marked = [line.lstrip().startswith(COMMENTS) for line in lines]
    first = marked.index(False) if False in marked else len(lines)
    comments = [line.lstrip("#/ \t") for line, is_comment in zip(lines, marked, strict=True) if is_comment]
    return (
        [line for line, is_comment in zip(lines, marked, strict=True) if not is_comment],
        comments,
        sum(marked[first:]),
    )


def _delimiter(lines: list[str]) -> str:
    """The sign that cuts the header into the most fields; for a header under titles, one that leaves no number in it."""
    looked_at = lines[:_LOOKED_AT]
    first, last = (len(row) for row in _rows([lines[0], lines[-1]], " "))
    if sign := _best({sign: looked_at for sign in DELIMITERS}):
        return sign
    if first > 1 and first == last:
        return _SPACES
    sign = _best({sign: _under_titles(looked_at, sign) for sign in DELIMITERS})
    return sign or (_SPACES if first > 1 else ",")


def _best(lines: Mapping[str, list[str]]) -> str:
    """The sign with the best score; nothing if none cuts the first line."""
    scores = {sign: _score(shown, sign) for sign, shown in lines.items()}
    best = max(scores, key=lambda sign: scores[sign])
    return best if scores[best][1] > 1 else ""


def _score(lines: list[str], sign: str) -> tuple[bool, int]:
    """Whether most lines have as many fields as the header, and that number; a header of one field scores nothing."""
    counts = [len(row) for row in _rows(lines, sign)]
    if not counts or counts[0] < 2:
        return False, 0
    alike = sum(abs(count - counts[0]) <= 1 for count in counts)
    return 2 * alike >= len(counts), counts[0]


def _under_titles(lines: list[str], sign: str) -> list[str]:
    """The lines from a header below titles on; none if the line there is not a header."""
    rest = lines[_titles(lines, sign) :]
    return [] if any(_NUMBER.fullmatch(field.strip()) for row in _rows(rest[:1], sign) for field in row) else rest


def _rows(lines: list[str], sign: str) -> list[list[str]]:
    return list(csv.reader(lines, delimiter=sign, skipinitialspace=sign != "\t"))


def _titles(lines: list[str], sign: str) -> int:
    """Number of leading lines with one field, which are a spreadsheet's titles."""
    filled = [sum(bool(field.strip()) for field in row) for row in _rows(lines[:_LOOKED_AT], sign)]
    return next((k for k, count in enumerate(filled) if count > 1), 0)


def _cells(lines: list[str], delimiter: str) -> pd.DataFrame:
    """Every field; shorter rows are padded with empty ones."""
    spaces = delimiter == _SPACES
    width = max(len(line.split()) if spaces else line.count(delimiter) + 1 for line in lines)
    cells = pd.read_csv(
        io.StringIO("\n".join(lines)),
        sep=delimiter,
        header=None,
        names=range(width),
        dtype=object,
        keep_default_na=False,
        skipinitialspace=delimiter != "\t",
    )
    return cells.fillna("")


def _header_in_comment(comments: list[str], delimiter: str, cells: pd.DataFrame) -> list[str]:
    """Names in the last comment line, as numpy writes them, if the first row holds numbers and so is not a header."""
    first = _stripped(cells.iloc[0])
    if not comments or not any(_NUMBER.fullmatch(cell) for cell in first):
        return []
    last = comments[-1].split() if delimiter == _SPACES else next(csv.reader([comments[-1]], delimiter=delimiter))
    names = [name.strip() for name in last]
    return names if len(names) == len(first) and not any(map(_NUMBER.fullmatch, names)) else []


def _stripped(row: pd.Series, at_least: int = 0) -> list[str]:
    """The fields of a row without the empty ones at its end."""
    fields = [str(field).strip() for field in row]
    return fields[: max([at_least, *(k + 1 for k, field in enumerate(fields) if field)])]


def _named(body: pd.DataFrame, header: list[str], delimiter: str) -> pd.DataFrame:
    """The body under its header. If each row has one more field, the first holds row names, as R writes them.

    This does not apply to commas or semicolons: there the extra field comes from a number whose comma is not quoted.
    """
    filled = (body != "").to_numpy()
    widths = np.where(filled.any(axis=1), filled.shape[1] - filled[:, ::-1].argmax(axis=1), 0)
    if delimiter in ("\t", _SPACES) and len(widths) and (widths == len(header) + 1).all():
        header = ["", *header]
    if (long := widths > len(header)).any():
        row = int(long.argmax())
        raise ValueError(
            f"row {row + 1} has {widths[row]} fields, the header {len(header)}: quote fields that hold the delimiter"
        )
    if delimiter == _SPACES and (short := widths < len(header)).any():
        row = int(short.argmax())
        raise ValueError(
            f"row {row + 1} has {widths[row]} fields, the header {len(header)}: an empty field between spaces cannot "
            "be seen; write - in it, or separate the fields by commas"
        )
    return body.reindex(columns=range(len(header)), fill_value="").set_axis(header, axis=1).reset_index(drop=True)
