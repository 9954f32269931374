"""One door to every table of runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from shapelaw.config import RunsConfig
from shapelaw.config.option import check_option
from shapelaw.errors import UserError
from shapelaw.runs.files import from_file
from shapelaw.runs.published import chinchilla, gemstones
from shapelaw.runs.schedules import midway as rows_midway
from shapelaw.runs.table import RunsTable

SOURCES = ("gemstones", "chinchilla", "csv", "mlflow")


def load_runs(
    source: str,
    *,
    subset: str | None = None,
    where: str | None = None,
    path: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str | float] | None = None,
    loss: str | None = None,
    bad_rows: str = "raise",
    diverged: str = "exclude",
    rolled_back: str = "keep",
    midway: str = "exclude",
    **options: Any,
) -> RunsTable:
    """Load a table of runs.

    Args:
        source: `gemstones`, `chinchilla`, `csv` (also .parquet and .jsonl) or `mlflow`.
        subset: gemstones only: suffix of the published file, such as `hot_100b+` (the default) or `cool_end`.
        where: keep the rows that meet a condition, such as `width == 512 and tokens <= 1e11`; the others are excluded.
        path: csv only: the file.
        columns: csv only: canonical name -> name in the file, such as {"tokens": "D", "loss": "final_loss"}.
        units: csv only: canonical name -> factor or named unit, such as {"tokens": "B"}.
        loss: NAME of a further loss, the column loss_NAME, that takes the place of loss.
        bad_rows: csv and mlflow: `raise` on invalid or repeated rows, or `exclude` them with a reason.
        diverged: `exclude` the rows of runs that diverged in the end, with that reason, or `keep` them, which a fit flags.
        rolled_back: `keep` the rows that runs measured after a rollback, which a fit flags, or `exclude` them.
        midway: `exclude` the rows at which the rate is on its way up or down a schedule, with that reason, or `keep` them for
            a law that has a term for it; a fit by any other law flags them.
        options: mlflow only: passed to `shapelaw.tracking.read_runs` (uri and experiment).

    Returns:
        a validated table; excluded rows are part of it, with their reasons.

    Raises:
        UserError: for an unknown source, data set, column or option, an invalid table, or a selection of nothing.

    >>> from pathlib import Path
    >>> _ = Path("mine.csv").write_text("run,D,params,loss\\na,1,2e8,3.1\\nb,2,4e8,2.9\\n")
    >>> table = load_runs("csv", path="mine.csv", columns={"tokens": "D"}, units={"tokens": "B"}, where="params < 3e8")
    >>> table.kept["tokens"].tolist(), table.exclusions
    ([1000000000.0], ...)
    """
    choices = {"bad_rows": bad_rows, "diverged": diverged, "rolled_back": rolled_back, "midway": midway}
    for name, value in choices.items():
        check_option(RunsConfig, name, value)
    _refuse_foreign(source, {"subset": subset, "path": path, "columns": columns, "units": units, **options})
    if source == "gemstones":
        table = gemstones(subset)
    elif source == "chinchilla":
        table = chinchilla()
    elif source == "csv":
        table = from_file(path, columns, units, exclude_faults=bad_rows == "exclude")
    else:
        table = _from_tracker(options, bad_rows == "exclude")
    if diverged == "exclude" and table.has("diverged_step"):
        table = table.exclude(table.frame["diverged_step"].notna(), "of a run that diverged")
    if rolled_back == "exclude" and table.has("rollbacks"):
        table = table.exclude(table.frame["rollbacks"] > 0, "after a rollback")
    if midway == "exclude":
        for reason, rows in rows_midway(table.frame).items():
            table = table.exclude(rows, reason)
    if not len(table):
        raise UserError(f"runs={source}: holds no rows to fit; excluded are {table.exclusions or 'none'}")
    table = table.with_loss(loss) if loss else table
    return table.select(where) if where else table


def _refuse_foreign(source: str, given: Mapping[str, Any]) -> None:
    """Refuse unknown sources and options of another source."""
    allowed = {"gemstones": {"subset"}, "chinchilla": set(), "csv": {"path", "columns", "units"}}
    if source not in SOURCES:
        raise UserError(f"runs={source}: allowed are {', '.join(SOURCES)}")
    if source == "mlflow":
        foreign = [name for name in ("subset", "path", "columns", "units") if given.get(name) is not None]
    else:
        foreign = [name for name, value in given.items() if value is not None and name not in allowed[source]]
    if foreign:
        meant = ", ".join(sorted(allowed.get(source, {"uri", "experiment"}))) or "none of its own"
        raise UserError(f"runs={source}: does not take {', '.join(foreign)}; it takes {meant}, where and bad_rows")


def _from_tracker(options: Mapping[str, Any], exclude_faults: bool) -> RunsTable:
    """Validations of tracked runs; the tracker's libraries are imported only now."""
    from shapelaw.tracking import read_table

    frame, suites = read_table(**options)
    about = {
        "source": "mlflow " + ", ".join(f"{k}={v}" for k, v in sorted(options.items())),
        "loss_unit": "nats per token",
    }
    return (RunsTable.excluding_faults if exclude_faults else RunsTable)(frame, about, suites)
