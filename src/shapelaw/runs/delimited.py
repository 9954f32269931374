"""Delimited text of any dialect as a table of texts: delimiter, comment lines, row names, a header in a comment."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pandas as pd

DELIMITERS = (",", ";", "\t", "|")
COMMENTS = ("#", "//")
_SPACES = r"\s+"
_LOOKED_AT = 20
_NUMBER = re.compile(r"[+-]?[0-9][0-9.,_' ]*(e[+-]?[0-9]+)?[KMBT]?", re.IGNORECASE)


def parse(text: str) -> tuple[pd.DataFrame, str]:
    """The table, every cell a text and a missing one empty, and its delimiter.

    Raises:
        ValueError: if there is none, or a row has more fields than the header.
    """
    lines, comments = _without_comments(text)
    if not lines:
        raise ValueError("it is empty")
    delimiter = _delimiter(lines, comments)
    if delimiter == "|":
        lines = [line.strip().strip("|") for line in lines if not re.fullmatch(r"[|:+\s-]+", line)]
    cells = _cells(lines, delimiter)
    header = _header_in_comment(comments, delimiter, cells)
    body = cells if header else cells.iloc[1:]
    header = header or _stripped(cells.iloc[0])
    return _named(body, header, delimiter), delimiter


def _without_comments(text: str) -> tuple[list[str], list[str]]:
    """Lines of the table, and comment lines before them; only whole lines are comments, as names may hold a #."""
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if lines and re.fullmatch(r"sep=.", lines[0]):  # for Excel
        lines = lines[1:]
    comments = [line.lstrip("#/ \t") for line in lines if line.lstrip().startswith(COMMENTS)]
    return [line for line in lines if not line.lstrip().startswith(COMMENTS)], comments


def _delimiter(lines: list[str], comments: list[str]) -> str:
    """The sign that cuts the header, or the first row under a header in a comment, into the most fields."""
    looked_at = lines[:_LOOKED_AT]
    scores = {sign: _score(looked_at, sign) for sign in DELIMITERS}
    best = max(scores, key=lambda sign: scores[sign])
    if scores[best][1] > 1:
        return best
    return _SPACES if len(lines[0].split()) > 1 else ","


def _score(lines: list[str], sign: str) -> tuple[bool, int]:
    """Whether most lines have as many fields as the header, and how many; a header of one field counts for nothing."""
    counts = [len(row) for row in csv.reader(lines, delimiter=sign, skipinitialspace=sign != "\t")]
    if not counts or counts[0] < 2:
        return False, 0
    alike = sum(abs(count - counts[0]) <= 1 for count in counts)
    return 2 * alike >= len(counts), counts[0]


def _cells(lines: list[str], delimiter: str) -> pd.DataFrame:
    """Every field; rows that are shorter than the longest end in empty ones."""
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
    """Names in the last comment line, as numpy writes them, where the first row holds numbers and so is no header."""
    first = _stripped(cells.iloc[0])
    if not comments or not any(_NUMBER.fullmatch(cell) for cell in first):
        return []
    last = comments[-1].split() if delimiter == _SPACES else next(csv.reader([comments[-1]], delimiter=delimiter))
    names = [name.strip() for name in last]
    return names if len(names) == len(first) and not any(map(_NUMBER.fullmatch, names)) else []


def _stripped(row: pd.Series) -> list[str]:
    """The fields of a row without the empty ones at its end."""
    fields = [str(field).strip() for field in row]
    return fields[: max((k + 1 for k, field in enumerate(fields) if field), default=0)]


def _named(body: pd.DataFrame, header: list[str], delimiter: str) -> pd.DataFrame:
    """The body under its header; where each row has one field more, the first holds row names, as R writes them.

    Not so between commas or semicolons: there it is a number whose own comma is not quoted.
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
    return body.reindex(columns=range(len(header)), fill_value="").set_axis(header, axis=1).reset_index(drop=True)
