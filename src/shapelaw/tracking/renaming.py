"""A sweep's run whose jobs have new identities since it was recorded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shapelaw.errors import UserError
from shapelaw.files import read_json
from shapelaw.tracking.store import (
    IDENTITY_TAG,
    JOBS,
    KIND_TAG,
    SWEEP_TAG,
    RunGone,
    StoreAway,
    StoreRefused,
    answers,
    client,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def rename_sweep(
    uri: str, run_id: str, names: Mapping[str, str], identity_of: Callable[[Sequence[str]], str]
) -> str | None:
    """Give a sweep's run the new identities of its jobs and, if all of them have one, its own new identity; returns the
    reason for a failure, in one line, or None.

    Args:
        uri: URI of the store.
        run_id: id of the sweep's run.
        names: former identities of jobs -> their present ones.
        identity_of: the sweep's identity from those of its jobs.
    """
    try:
        with answers():
            _rename(client(uri), run_id, names, identity_of)
    except (StoreAway, StoreRefused, RunGone, UserError) as error:
        return f"tracking: the sweep {run_id} in {uri} keeps its old name ({error})"
    return None


def _rename(
    store: MlflowClient, run_id: str, names: Mapping[str, str], identity_of: Callable[[Sequence[str]], str]
) -> None:
    """Rename; the list of jobs comes last, because everything is repeated as long as it has the former names."""
    run = store.get_run(run_id)
    if run.data.tags.get(KIND_TAG) != "sweep":
        return
    jobs = _jobs_of(store, run_id)
    renamed = {names.get(identity, identity): label for identity, label in jobs.items()}
    if renamed == jobs:
        return
    if all(identity in names for identity in jobs):
        former, identity = run.data.tags[IDENTITY_TAG], identity_of([*renamed])
        for child in _runs_of(store, run.info.experiment_id, former):
            store.set_tag(child.info.run_id, SWEEP_TAG, identity)
        store.set_tag(run_id, IDENTITY_TAG, identity)
        store.update_run(run_id, name=f"sweep of {len(jobs)} {identity}")
    store.log_dict(run_id, renamed, JOBS)


def _runs_of(store: MlflowClient, experiment_id: str, sweep: str) -> list[Run]:
    """The runs of a sweep, from all pages."""
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
