"""Tracked runs get their new identities: by a record in the journal of each, which is delivered like any other."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shapelaw.errors import UserError
from shapelaw.files import read_json
from shapelaw.migration.planning import OldRun
from shapelaw.sweep.task import Job, sweep_identity
from shapelaw.tracking.delivery import deliver_left
from shapelaw.tracking.journal import JOURNAL, Journal, records
from shapelaw.tracking.store import (
    IDENTITY_TAG,
    KIND_TAG,
    SWEEP_TAG,
    RunGone,
    StoreAway,
    StoreRefused,
    answers,
    client,
    database_file,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

JOBS = "jobs.json"


def note_names(run: OldRun) -> None:
    """Append to a run's journal what its tracked run is called from now on, unless that is there already."""
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


def rename_tracked(folders: Sequence[Path], names: Mapping[str, str]) -> list[str]:
    """Deliver the new names of runs, then those of their sweeps; a line for each that the store does not have yet.

    Args:
        folders: of the runs that were renamed.
        names: former identities -> those of now, of all runs.
    """
    left: list[str] = []
    sweeps: set[tuple[str, str]] = set()
    for folder in folders:
        start = _start(folder)
        if start is None or not _is_there(start["uri"]):
            continue
        left += filter(None, [deliver_left(folder)])
        if start["info"]["parent_run_id"]:
            sweeps.add((start["uri"], start["info"]["parent_run_id"]))
    for uri, run_id in sorted(sweeps):
        try:
            with answers():
                _rename_sweep(client(uri), run_id, names)
        except (StoreAway, StoreRefused, RunGone, UserError) as error:
            left.append(f"tracking: the sweep {run_id} in {uri} keeps its former name ({error})")
    return left


def _start(folder: Path) -> dict[str, Any] | None:
    """The last start that a run recorded."""
    starts = [record for record, _ in records(folder / JOURNAL) if record["kind"] == "start"]
    return starts[-1] if starts else None


def _is_there(uri: str) -> bool:
    """Whether a store may be asked: a database that is missing is not made for it."""
    file = database_file(uri)
    return file is None or file.exists()


def _rename_sweep(store: MlflowClient, run_id: str, names: Mapping[str, str]) -> None:
    """Give a sweep's run the new identities of its jobs and, where all of them have one, its own; the list comes last."""
    run = store.get_run(run_id)
    if run.data.tags.get(KIND_TAG) != "sweep":
        return
    jobs = _jobs_of(store, run_id)
    renamed = {names.get(identity, identity): label for identity, label in jobs.items()}
    if renamed == jobs:
        return
    if all(identity in names for identity in jobs):
        old, new = run.data.tags[IDENTITY_TAG], sweep_identity([Job(identity, "", Path()) for identity in renamed])
        for child in _runs_of(store, run.info.experiment_id, old):
            store.set_tag(child.info.run_id, SWEEP_TAG, new)
        store.set_tag(run_id, IDENTITY_TAG, new)
        store.update_run(run_id, name=f"sweep of {len(jobs)} {new}")
    store.log_dict(run_id, renamed, JOBS)


def _runs_of(store: MlflowClient, experiment_id: str, sweep: str) -> list[Run]:
    """The runs of a sweep, all pages of them."""
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = store.search_runs([experiment_id], f"tags.`{SWEEP_TAG}` = '{sweep}'", page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def _jobs_of(store: MlflowClient, run_id: str) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        return dict(read_json(Path(store.download_artifacts(run_id, JOBS, folder))))
