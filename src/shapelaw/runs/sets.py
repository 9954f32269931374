"""Two sets of runs in one table, separated by a condition."""

from __future__ import annotations

import dataclasses

from shapelaw.errors import UserError
from shapelaw.runs.query import matches
from shapelaw.runs.table import RunsTable

SET = "compared_set"


def with_sets(table: RunsTable, where: str) -> RunsTable:
    """The table with the column compared_set: 1 for the rows that meet a condition, 0 for the others.

    Args:
        table: the runs table.
        where: as for `RunsTable.select`, such as `recipe == 'new'`.

    Raises:
        UserError: for an unknown column, or if all kept rows are in one set.
    """
    everything = dataclasses.replace(table, frame=table.frame.assign(excluded=""))
    second = matches(everything.rows, where)
    kept = second[(table.frame["excluded"] == "").to_numpy()]
    if not 0 < kept.sum() < len(kept):
        raise UserError(
            f"speedup={where!r}: {int(kept.sum())} of the {len(kept)} rows that count meet it; give a condition that "
            "some rows meet and others do not"
        )
    return dataclasses.replace(table, frame=table.frame.assign(compared_set=second.astype(float)))
