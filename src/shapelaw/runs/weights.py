"""Weights of rows, from a column of the table or of its file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.runs.columns import ROW_WEIGHT
from shapelaw.runs.table import RunsTable


def weights_of(table: RunsTable, name: str) -> NDArray[np.float64]:
    """Weights of the kept rows, (n,), scaled to a mean of 1.

    Raises:
        UserError: if the column is missing, or its values are not valid weights.
    """
    rows = table.rows.rename(columns={f"{ROW_WEIGHT}{name}": name})
    if name not in rows:
        raise UserError(f"weights={name}: there is no such column; the table has {', '.join(map(str, rows.columns))}")
    values = np.asarray(pd.to_numeric(rows[name], errors="coerce"), dtype=np.float64)
    if not (np.isfinite(values) & (values >= 0)).all() or not values.sum() > 0:
        raise UserError(
            f"weights={name}: allowed values are numbers from 0 in every row, not all of them 0; correct the column"
        )
    return np.asarray(values / values.mean())


def with_weights(table: RunsTable, name: str) -> RunsTable:
    """The table with the column of weights as part of its content, so that it is saved with a fit."""
    if table.further is None or name not in table.further:
        return table
    values = pd.to_numeric(table.further[name], errors="coerce").astype(float)
    return dataclasses.replace(table, frame=table.frame.assign(**{f"{ROW_WEIGHT}{name}": values}))
