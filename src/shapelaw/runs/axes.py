"""Further axes of shapes, such as heads or experts: columns beside the canonical ones that a law reads as predictors.

A table keeps a column NAME that a law reads as `axis_NAME`, so that it is part of the content and is saved with a fit.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pandas as pd

from shapelaw.errors import UserError
from shapelaw.runs.columns import AXIS, is_canonical
from shapelaw.runs.schedules import COURSE, RATES, with_course_areas
from shapelaw.runs.table import RunsTable

if TYPE_CHECKING:
    from shapelaw.laws import Law


def with_axes(table: RunsTable, law: Law) -> RunsTable:
    """The table with the further columns that a law reads as part of its content.

    Raises:
        UserError: if a column is missing, or does not hold numbers.
    """
    table = _with_recorded_rates(table, law)
    new = [name for name in law.axes if not table.has(f"{AXIS}{name}")]
    if not new:
        return table
    return dataclasses.replace(
        table, frame=table.frame.assign(**{f"{AXIS}{name}": _axis(table, law, name) for name in new})
    )


def _with_recorded_rates(table: RunsTable, law: Law) -> RunsTable:
    """The table with the exact sums of the rate that a law of whole curves reads, if its runs recorded their schedules."""
    further = table.further
    if further is None or COURSE not in further or table.has("lr_area") or not {*RATES} & {*law.predictors}:
        return table
    return dataclasses.replace(table, frame=with_course_areas(table.frame, further[COURSE]))


def table_of(frame: pd.DataFrame) -> RunsTable:
    """The runs table of a frame; laws can read its other columns, and conditions can use them."""
    own = [name for name in frame if not is_canonical(str(name))]
    return RunsTable(frame, further=frame[own].reset_index(drop=True) if own else None)


def _axis(table: RunsTable, law: Law, name: str) -> pd.Series:
    """A further column as numbers, missing in rows that fits ignore."""
    further = table.further
    if further is None or name not in further:
        has = ", ".join([*(one for one in table if one != "excluded"), *map(str, () if further is None else further)])
        raise UserError(
            f"law={law.name}: reads {name}, which is not a column of the table; it has {has}; record the column with "
            "the runs, or add it to the file"
        )
    values = pd.to_numeric(further[name], errors="coerce").astype(float)
    kept = (table.frame["excluded"] == "").to_numpy()
    bad = int((~(values[kept] > 0)).sum())
    if bad:
        raise UserError(
            f"law={law.name}: reads {name}, and {bad} of {int(kept.sum())} rows have no positive number there; leave "
            "them out with subset.where, or correct them"
        )
    return values.where(values > 0)
