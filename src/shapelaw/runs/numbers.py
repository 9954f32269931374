"""Numbers as people write them: thousands separators, a decimal comma, K/M/B/T, percent, and words for missing values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError

MISSING_WORDS = frozenset(["", "-", "--", "\u2013", "\u2014", ".", "n/a", "#n/a", "na", "<na>", "null", "none", "nan"])
"""Words for a missing number, in lower case; any other text is not a number."""
SUFFIXES = {
    **{"k": 1e3, "m": 1e6, "b": 1e9, "bn": 1e9, "g": 1e9, "t": 1e12},
    **{"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12},
}
"""Suffix in lower case -> factor."""
SUFFIXED = "suffixes, to as many digits as the file has"
DECIMAL = {"dot": ".", "comma": ","}
_SIGNS = str.maketrans({"\u2212": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2019": "'", "\u066b": ","})
_POWER = re.compile(r" ?[x\u00d7\u00b7*] ?10 ?(?:\^|\*\*) ?")
_PARTS = re.compile(
    r"([+-]?)([0-9][0-9., '_]*|[.,][0-9]+)(e[+-]?[0-9]+)? ?"
    rf"({'|'.join(sorted(SUFFIXES, key=len, reverse=True))})?(?: ?tokens?| ?param(?:eter)?s?)? ?(%?)"
)
_BOLD = re.compile(r"\*\*(.*)\*\*$")
_SPREAD = re.compile(r"(?<=[0-9%]) ?(?:\u00b1|\+/-|\+-) ?[0-9.,]+(?:e[+-]?[0-9]+)?%?$")
"""An uncertainty after a number, which is ignored."""
_GROUPS = r"[1-9][0-9]{0,2}(?:%s[0-9]{3})+"
_LAKHS = r"[1-9][0-9]?(?:,[0-9]{2})*,[0-9]{3}"
"""The Indian way: 1,00,00,000."""


@dataclass(frozen=True)
class Numbers:
    """A column read as numbers.

    Args:
        values: missing and unreadable ones as NaN, (n,).
        unreadable: text of values that are neither a number nor a word for a missing one, else empty, (n,).
        notes: how texts were read, for people.
        suffixed: whether the text has a suffix, which its value already includes; empty if none has, (n,).
    """

    values: NDArray[np.float64]
    unreadable: NDArray[np.object_]
    notes: tuple[str, ...] = ()
    suffixed: NDArray[np.bool_] | None = None


def decimal_of(columns: Mapping[str, Iterable[object]], delimiter: str | None, given: str | None) -> str:
    """The decimal sign of a file: `.` or `,`.

    A comma is decimal if a text can be read in no other way (`3,9`, `1.234,5`) or a dot must separate thousands
    (`1.000.000`); a dot likewise. If all texts can be read in both ways, a comma in a file delimited by commas separates
    thousands.

    Args:
        columns: name -> texts of the columns that hold numbers.
        delimiter: delimiter of the file; None if it has none.
        given: the user's choice: a key of `DECIMAL`.

    Raises:
        UserError: if the file has evidence for both, or for neither.
    """
    if given is not None:
        return DECIMAL[given]
    proofs: dict[str, str] = {}
    doubtful = ""
    for name, texts in columns.items():
        for text in texts:
            sign = _proven(str(text)) if isinstance(text, str) else ""
            if sign == "?":
                doubtful = doubtful or f"{text!r} ({name})"
            elif sign:
                proofs.setdefault(sign, f"{text!r} ({name})")
    if len(proofs) == 2:
        raise UserError(
            f"decimal signs: {proofs['.']} takes the dot for it and {proofs[',']} the comma; write the file in one way, or "
            "give runs.decimal=dot or comma"
        )
    if proofs:
        return next(iter(proofs))
    if doubtful and delimiter != ",":
        raise UserError(
            f"decimal signs: {doubtful} may be thousands or a decimal comma; give runs.decimal=dot or comma"
        )
    return "."


def _proven(text: str) -> str:
    """The decimal sign that a text proves, `?` if its comma may be either, empty if it shows nothing."""
    body = _SPREAD.sub("", _BOLD.sub(r"\1", text.strip()).translate(_SIGNS))
    dots, commas = body.count("."), body.count(",")
    if not commas and dots < 2:
        return "." if dots and not re.search(r"(?<![0-9])[1-9][0-9]{0,2}\.[0-9]{3}(?![0-9])", body) else ""
    if not (match := _PARTS.fullmatch(body.lower())):
        return ""
    number = match[2]
    if dots and commas:
        return "." if number.rfind(".") > number.rfind(",") else ","
    if commas > 1 or dots > 1:
        return "." if commas else ","
    return "?" if re.fullmatch(_GROUPS % ",", number) else ","


def as_is(values: pd.Series) -> NDArray[np.float64] | None:
    """A column that needs no parsing: numbers, or texts that Python accepts as numbers; None for any other."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
    plain = values.to_numpy(dtype=object, na_value="nan")
    try:
        return np.asarray(np.where(plain == "", "nan", plain).astype(np.float64))
    except (TypeError, ValueError, OverflowError):
        return None


def read(name: str, values: pd.Series, decimal: str = ".", *, counts: bool = False, shares: bool = False) -> Numbers:
    """A column as numbers.

    Args:
        name: name of the column, for the notes.
        values: numbers, or texts.
        decimal: the file's decimal sign; the other of dot and comma separates thousands.
        counts: whether K, M, B, T may follow.
        shares: whether % may follow.

    >>> read("tokens", pd.Series(["1,000,000", "2.5B", "-"]), counts=True).values.tolist()
    [1000000.0, 2500000000.0, nan]
    >>> read("loss", pd.Series(["3,97", "diverged"]), decimal=",").unreadable.tolist()
    ['', 'diverged']
    """
    found = as_is(values) if decimal == "." or pd.api.types.is_numeric_dtype(values) else None
    if found is not None:
        return Numbers(found, np.full(len(values), "", dtype=object))
    kinds: dict[str, str] = {}
    codes, distinct = _distinct(values)
    numbers = [_number(value, decimal, counts, shares, kinds) for value in distinct]
    unreadable = np.array([str(v) if n is None else "" for v, n in zip(distinct, numbers, strict=True)], dtype=object)
    floats = np.array([np.nan if number is None else number for number in numbers], dtype=np.float64)
    notes = tuple(f"{name}: {kind}, such as {text!r}" for kind, text in kinds.items())
    suffixed = [isinstance(value, str) and _suffix(value) for value in distinct] if SUFFIXED in kinds else None
    return Numbers(floats[codes], unreadable[codes], notes, None if suffixed is None else np.array(suffixed)[codes])


def _distinct(values: pd.Series) -> tuple[NDArray[np.intp], NDArray[np.object_]]:
    """Index of each value among the distinct ones, and these; unhashable values such as lists are all distinct."""
    objects = values.to_numpy(dtype=object)
    try:
        codes, distinct = pd.factorize(objects, use_na_sentinel=False)
    except TypeError:
        return np.arange(len(objects)), objects
    return codes, np.asarray(distinct, dtype=object)


def _number(value: object, decimal: str, counts: bool, shares: bool, kinds: dict[str, str]) -> float | None:
    """One value; None if it is not a number. Its special notation is added to `kinds`, with the first example."""
    if not isinstance(value, str):
        return _of_object(value)
    text, spreads = _plainly(value)
    if text.lower() in MISSING_WORDS:
        return np.nan
    match = _PARTS.fullmatch(text.lower())
    if match is None:
        return float(text) if re.fullmatch(r"[+-]?inf(inity)?", text.lower()) else None
    sign, body, power, suffix, percent = match.groups()
    if (suffix and not counts) or (percent and not shares) or (body := _plain(body, decimal)) is None:
        return None
    for kind, applies in (
        ("thousands separators", _separated(match[2], decimal)),
        ("a decimal comma", decimal == "," and "," in match[2]),
        (SUFFIXED, bool(suffix)),
        ("percent", bool(percent)),
        ("without its uncertainty", bool(spreads)),
    ):
        if applies:
            kinds.setdefault(kind, value)
    factor = SUFFIXES[suffix] if suffix else 1.0
    return float(f"{sign}{body}{power or ''}") * factor / (100.0 if percent else 1.0)


def _plainly(text: str) -> tuple[str, int]:
    """A text without bold signs and uncertainty, its power of ten as an exponent; and the number of these changes."""
    return _SPREAD.subn("", _POWER.sub("e", _BOLD.sub(r"\1", text.strip()).translate(_SIGNS)))


def _suffix(text: str) -> bool:
    match = _PARTS.fullmatch(_plainly(text)[0].lower())
    return bool(match and match[4])


def _of_object(value: object) -> float | None:
    """A value that is already a number, such as a Decimal; True and False are not."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return np.nan if value is None or value is pd.NA or value is pd.NaT else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def _separated(body: str, decimal: str) -> bool:
    return any(sign in body for sign in (" ", "'", "_", "," if decimal == "." else "."))


def _plain(body: str, decimal: str) -> str | None:
    """Digits with a dot as the decimal sign; None if separators are in the wrong places."""
    body = body.strip()
    whole, _, fraction = body.partition(decimal)
    if not re.fullmatch(r"[0-9]*", fraction) or not whole + fraction:
        return None
    if not re.fullmatch(r"[0-9]*", whole):
        signs = {sign for sign in whole if not sign.isdigit()}
        comma = "," if decimal == "." else "."
        grouped = len(signs) == 1 and re.fullmatch(_GROUPS % re.escape(next(iter(signs))), whole)
        if not grouped and not (signs == {comma} == {","} and re.fullmatch(_LAKHS, whole)):
            return None
    return f"{re.sub(r'[^0-9]', '', whole)}.{fraction}"
