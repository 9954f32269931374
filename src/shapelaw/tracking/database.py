"""Redundancy within a database file, which reveals damaged pages; SQLite has no checksums of its pages.

For every table behind a runs table, an index holds a copy of all columns that matter. MLflow has such an index for `metrics`,
its primary key; `keep_copies` adds those for the small tables. SQLite keeps them up to date, whoever writes. Before any read,
the small tables are compared with their copies; a metric's history is read from both.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlparse

from shapelaw.errors import Damaged, UserError

COPIES = {
    "experiments": "experiment_id, name, artifact_location, lifecycle_stage",
    "runs": "run_uuid, experiment_id, name, status, lifecycle_stage",
    "params": "run_uuid, key, value",
    "tags": "run_uuid, key, value",
    "latest_metrics": "run_uuid, key, value, timestamp, step, is_nan",
}
"""Table -> the columns that its copy holds."""
HISTORY_COPY, HISTORY_INDEX = "sqlite_autoindex_metrics_1", "index_metrics_run_uuid_key_step"
"""The primary key of `metrics`, which holds the whole table, and the index that finds a run's rows in the table itself."""
LOCK_SECONDS = 60.0
"""How long a reader waits for a database that is being written."""
RUNS_OF_A_QUERY = 4_000
"""Most runs per query: each query reads the whole copy, whose first column is the metric, and must not delay writers long."""
Row = tuple[str, str, int, int, float | None]
"""Run id, metric, tokens, time in milliseconds, value (None for NaN)."""


def keep_copies(path: Path) -> None:
    """Create the missing copies of a database; a database that cannot be written to now stays without."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database,
    ):
        for table in _uncopied(database):
            database.execute(f"CREATE INDEX IF NOT EXISTS shapelaw_{table} ON {table} ({COPIES[table]})")
        database.commit()


def follow(path: Path, artifacts: Path) -> list[str]:
    """Let experiments find artifacts again that were moved along with the database; returns one line per change.

    Args:
        path: path of the database.
        artifacts: present root of the artifacts.
    """
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database,
    ):
        rows = database.execute("SELECT experiment_id, name, artifact_location FROM experiments").fetchall()
        moved = [(number, old, new) for number, name, old in rows if (new := _moved(old, artifacts / name))]
        for number, old, new in moved:
            database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, number))
            database.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND instr(artifact_uri, ?) = 1",
                (new, len(old) + 1, number, old),
            )
        database.commit()
        return [f"the artifacts of {old} are now in {new}" for _, old, new in moved]
    return []


def _moved(old: str, place: Path) -> str | None:
    """The new place of artifacts that are no longer at the old one; None if nothing was moved."""
    there = Path(unquote(urlparse(old).path)) if old.startswith("file:") else place
    return place.absolute().as_uri() if place.is_dir() and not there.exists() else None


def check(path: Path) -> bool:
    """Compare the small tables with their copies; returns whether all copies exist.

    Raises:
        Damaged: if they differ, or cannot be read.
    """
    with opened(path) as database:
        for table in _tables(database):
            (found, *_), *_ = database.execute(f"PRAGMA integrity_check({table})").fetchall()
            if found != "ok":
                raise damaged(path, f"table {table}: {found}")
        return not _uncopied(database)


def history(path: Path, run_ids: Sequence[str], keys: Sequence[str]) -> Iterator[Row]:
    """All values of some metrics of some runs, by run, metric, tokens and time.

    Raises:
        Damaged: if the table and its copy differ, or cannot be read.
    """
    with opened(path) as database:
        known = {name for _, name, *_ in database.execute("PRAGMA index_list(metrics)")}
        table = f"INDEXED BY {HISTORY_INDEX}" if HISTORY_INDEX in known else "NOT INDEXED"
        sources = (table, f"INDEXED BY {HISTORY_COPY}")
        most = min(RUNS_OF_A_QUERY, database.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) - len(keys))
        for start in range(0, len(run_ids), most):
            some = run_ids[start : start + most]
            database.execute("BEGIN")  # so that no run writes between the two reads
            both = [_rows(database, source, some, keys) for source in sources]
            for row, copy in zip_longest(*both):
                if row is None or row != copy:
                    table_rows, copied = (set(_rows(database, source, some, keys)) for source in sources)
                    raise damaged(path, f"table metrics: {len(table_rows ^ copied)} rows differ from its index")
                yield row
            database.rollback()


class Recorded(NamedTuple):
    """A run in the small tables.

    Args:
        run: id, name, status, start in milliseconds.
        params, tags: name -> text.
        metrics: name -> last value.
    """

    run: tuple[str, str, str, int]
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]


def recorded_runs(path: Path, experiment_id: str) -> list[Recorded]:
    """The active runs of an experiment, the newest first, in one query per table.

    Raises:
        Damaged: if the database cannot be read.
    """
    chosen = "SELECT run_uuid FROM runs WHERE experiment_id = ? AND lifecycle_stage = 'active'"
    found: dict[str, Recorded] = {}
    with opened(path) as database:
        database.execute("BEGIN")
        for row in database.execute(
            f"SELECT run_uuid, name, status, start_time FROM runs WHERE run_uuid IN ({chosen}) "
            "ORDER BY start_time DESC, run_uuid",
            [experiment_id],
        ):
            found[row[0]] = Recorded(row, {}, {}, {})
        for table in ("params", "tags"):
            for run, key, value in database.execute(
                f"SELECT run_uuid, key, value FROM {table} WHERE run_uuid IN ({chosen})", [experiment_id]
            ):
                getattr(found[run], table)[key] = value
        for run, key, value, is_nan in database.execute(
            f"SELECT run_uuid, key, value, is_nan FROM latest_metrics WHERE run_uuid IN ({chosen})", [experiment_id]
        ):
            found[run].metrics[key] = float("nan") if is_nan else value
        database.rollback()
    return list(found.values())


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database read-only.

    Raises:
        Damaged: if it is not a database, or is incomplete.
        UserError: if another process holds it.
    """
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=LOCK_SECONDS)
    try:
        yield database
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise UserError(f"{path}: another process has locked it for {LOCK_SECONDS:g} s; try again later") from error
        raise damaged(path, str(error)) from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise damaged(path, str(error)) from error
    finally:
        database.close()


def damaged(path: Path, what: str) -> Damaged:
    """The error for a database that was damaged."""
    return Damaged(
        f"{path} is damaged ({' '.join(what.split())[:120]}): restore a copy, or move it away and rebuild it from the "
        f"records in the runs' folders with shapelaw replay uri=sqlite:///{path}"
    )


def _tables(database: sqlite3.Connection) -> list[str]:
    """Existing tables that should have a copy; a database that MLflow has not created yet has none."""
    there = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return [table for table in COPIES if table in there]


def _uncopied(database: sqlite3.Connection) -> list[str]:
    there = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    return [table for table in _tables(database) if f"shapelaw_{table}" not in there]


def _rows(database: sqlite3.Connection, source: str, run_ids: Sequence[str], keys: Sequence[str]) -> Iterator[Row]:
    query = (
        f"SELECT run_uuid, key, step, timestamp, CASE WHEN is_nan THEN NULL ELSE value END FROM metrics {source} "
        f"WHERE run_uuid IN ({_marks(run_ids)}) AND key IN ({_marks(keys)}) ORDER BY run_uuid, key, step, timestamp, value"
    )
    return database.execute(query, [*run_ids, *keys])


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))
