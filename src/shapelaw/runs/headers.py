"""Headers of several rows: groups above names, as merged cells produce them, and a row of units below the names."""

from __future__ import annotations

import re
from collections.abc import Sequence

_VALUE = re.compile(r"[+-]?[0-9][0-9.,:/_'TZ+ -]*(e[+-]?[0-9]+)?\s?[KMBT]?", re.IGNORECASE)
"""A number, a date or a time."""
_BRACKETED = re.compile(r"[(\[].*[)\]]")
_MOST = 4
LOOKED_AT = 6
"""Rows to give to `join`, so that some remain below the longest header."""


def is_value(field: str) -> bool:
    """Whether a field holds a number, a date or a time, and so cannot be a name.

    >>> is_value("1e9"), is_value("2024-05-01T10:11:12.000Z"), is_value("loss"), is_value("20M tokens")
    (True, True, False, False)
    """
    return bool(_VALUE.fullmatch(field.strip()))


def note(names: Sequence[str], taken: int) -> str:
    """A note on a header of several rows; empty for one row."""
    return f"a header of {taken} rows: {', '.join(names)}" if taken > 1 else ""


def join(rows: Sequence[Sequence[str]]) -> tuple[list[str], int]:
    """The names of the columns, and the number of leading rows that they come from.

    A row below the first belongs to the header if it holds no value, and either names columns that the row above leaves empty
    or repeats, or holds only units in brackets. Its names follow those of their groups.

    >>> join([["Model", "", "", "Loss"], ["name", "params", "tokens", ""], ["a", "1e9", "1e10", "3"]])
    (['Model name', 'Model params', 'Model tokens', 'Loss'], 2)
    >>> join([["params", "loss"], ["(M)", "(nats)"], ["20", "3.9"]])
    (['params (M)', 'loss (nats)'], 2)
    >>> join([["run", "loss"], ["a", "diverged"], ["b", "3.9"]])
    (['run', 'loss'], 1)
    """
    names = [field.strip() for field in rows[0]]
    for count, row in enumerate(rows[1:_MOST], start=1):
        below = [field.strip() for field in row]
        if count + 1 >= len(rows) or not _belongs(names, below):
            return names, count
        names = _both(names, below)
    return names, min(len(rows), _MOST)


def _belongs(names: Sequence[str], below: Sequence[str]) -> bool:
    filled = [k for k, field in enumerate(below) if field]
    if not filled or any(is_value(below[k]) or not re.search("[A-Za-z]", below[k]) for k in filled):
        return False
    if all(_BRACKETED.fullmatch(below[k]) for k in filled):
        return True
    upper = [names[k] for k in range(len(names)) if names[k]]
    gaps = [k for k in filled if not names[k]]
    groups = len(set(upper)) < len(upper) or len(gaps) > 1
    pairs = list(zip(_filled_on(names, below), below, strict=True))
    return groups and len({pairs[k] for k in filled}) == len(filled)


def _both(names: Sequence[str], below: Sequence[str]) -> list[str]:
    over = _filled_on(names, below)
    return [name if low in ("", name) else f"{name} {low}".strip() for name, low in zip(over, below, strict=True)]


def _filled_on(names: Sequence[str], below: Sequence[str]) -> list[str]:
    """Names of groups, extended to the empty cells on their right that have a name below."""
    out: list[str] = []
    for name, low in zip(names, below, strict=True):
        out.append(name or (out[-1] if out and low else ""))
    return out
