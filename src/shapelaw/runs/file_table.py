"""A file on its way to a runs table: how it is read, its columns so far, and notes on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

OF_FILES = ("columns", "units", "constants", "wide", "decimal", "sheet", "tokens_from")
"""Options that no other source has."""


@dataclass(frozen=True)
class FileOptions:
    """How to read a file.

    Args:
        columns: canonical name -> name in the file; a canonical name that the file holds, in capitals or not, needs no entry.
        units: canonical name -> factor, or a unit that the column's rules name, by which its values are multiplied.
        constants: canonical name -> a value of every row, or run -> value.
        wide: the quantity that names the columns of a wide table (`shapelaw.runs.wide.WIDE`).
        decimal: the file's decimal sign, `dot` or `comma`; None infers it from the numbers.
        sheet: sheet of an Excel file; None takes the first.
        tokens_from: `6n`: tokens = FLOPs / (6 * params) if the file has none.
        reduce, reduce_by: how to treat rows that repeat a run and token count (`shapelaw.runs.reduce`).
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
        """The options that only files have."""
        return {name: getattr(self, name) for name in OF_FILES}


@dataclass(frozen=True)
class FileTable:
    """A file's columns on their way to a runs table.

    Args:
        frame: canonical columns.
        further: the other columns, with the same index.
        sources: canonical name -> name in the file.
        notes: how the file was read, for people.
        about: facts of the table (`shapelaw.runs.RunsTable`).
        named_units: columns whose unit was named, by the user or by their own name.
        suffixed: column -> mask of rows whose values had a suffix, and so cannot be in another unit, (rows,).
    """

    frame: pd.DataFrame
    further: pd.DataFrame
    sources: Mapping[str, str]
    notes: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)
    named_units: frozenset[str] = frozenset()
    suffixed: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def noting(self, *notes: str) -> FileTable:
        """The table with further notes, without empty ones."""
        return replace(self, notes=(*self.notes, *filter(None, notes)))


def excluding(frame: pd.DataFrame, reasons: pd.Series) -> pd.DataFrame:
    """The frame with the given reasons added to the column `excluded`; earlier reasons stay."""
    own = frame["excluded"].fillna("").astype(str) if "excluded" in frame else pd.Series("", index=frame.index)
    return frame.assign(excluded=own.where(own != "", reasons)) if (reasons != "").any() else frame
