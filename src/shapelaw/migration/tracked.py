"""Gives tracked runs their new identities, by a record in the journal of each, which is delivered like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shapelaw.migration.planning import OldRun
from shapelaw.sweep.task import Job, sweep_identity
from shapelaw.tracking.addresses import database_file
from shapelaw.tracking.delivery import deliver_left
from shapelaw.tracking.journal import JOURNAL, Journal, records
from shapelaw.tracking.renaming import rename_sweep
from shapelaw.tracking.store import IDENTITY_TAG


def note_names(run: OldRun) -> None:
    """Append the new name of a tracked run to its journal, unless it is there already."""
    path = run.folder / JOURNAL
    if not path.exists():
        return
    tags = {IDENTITY_TAG: run.identity, "shapelaw.folder": str(run.new_folder.absolute())}
    if run.continues:
        tags["shapelaw.continues"] = run.continues
    if any(record["kind"] == "tags" and record["values"] == tags for record, _ in records(path)):
        return
    journal = Journal(run.folder)
    try:
        journal.append("tags", values=tags)
        journal.sync()
    finally:
        journal.close()


def rename_tracked(folders: Sequence[Path], names: Mapping[str, str], is_own: Callable[[str], bool]) -> list[str]:
    """Deliver the new names of runs, then those of their sweeps; returns a line for each name that the store lacks.

    Args:
        folders: folders of the renamed runs.
        names: former identities -> present ones, for all runs.
        is_own: whether a store may be written to, because the store that a journal names may be anybody's.
    """
    left: list[str] = []
    sweeps: set[tuple[str, str]] = set()
    for folder in folders:
        start = _start(folder)
        if start is None or not is_own(start["uri"]) or not _is_there(start["uri"]):
            continue
        left += filter(None, [deliver_left(folder)])
        if start["info"]["parent_run_id"]:
            sweeps.add((start["uri"], start["info"]["parent_run_id"]))
    return left + [line for place in sorted(sweeps) if (line := rename_sweep(*place, names, _sweep_of))]


def _start(folder: Path) -> dict[str, Any] | None:
    """The last start that a run recorded."""
    starts = [record for record, _ in records(folder / JOURNAL) if record["kind"] == "start"]
    return starts[-1] if starts else None


def _is_there(uri: str) -> bool:
    """Whether a store may be queried; a missing database is not created for it."""
    file = database_file(uri)
    return file is None or file.exists()


def _sweep_of(identities: Sequence[str]) -> str:
    return sweep_identity([Job(identity, "", Path()) for identity in identities])
