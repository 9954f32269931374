"""Tracked runs of nothing, for tests of the tracker."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from pathlib import Path

from shapelaw.tracking import VAL_LOSS, MlflowTracker, RunInfo, Store, client
from shapelaw.tracking.journal import JOURNAL, records

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["mlflow", "tracked"])
Row = tuple[str, int, float]
"""A metric, the tokens it was measured after, its value."""
PARAMS = {
    "suite": "tiny",
    "width": 16,
    "depth": 1,
    "head_size": 8,
    "params": 5000,
    "vocab_size": 256,
    "seq_len": 16,
    "batch_tokens": 128,
    "lr_base": 5.0,
    "tokens": 2560,
    "cooldown": 0.0,
    "flops_per_token": 3e4,
    "num_devices": 1,
}


def info(identity: str) -> RunInfo:
    return RunInfo(identity, "train", f"run {identity}", PARAMS)


def store_of(uri: str, root: Path) -> Store:
    return Store(uri, str(root / "artifacts"), "tiny")


def tracker(uri: str, root: Path, identity: str, seconds: float = 60.0) -> MlflowTracker:
    """The tracker of a run in its own folder under a root."""
    return MlflowTracker(store_of(uri, root), info(identity), root / identity, seconds)


def write_300(uri: str, root: Path, identity: str, environment: Mapping[str, str]) -> None:
    """A run of 300 values: what one of several processes that write a store at once does.

    Its environment is given, as the server that it is forked from may be another test's.
    """
    os.environ.update(environment)
    run = tracker(uri, root, identity, seconds=300)
    for tokens in range(1, 301):
        run.log({VAL_LOSS: 1.0 + 1 / tokens}, tokens)
    run.finish("FINISHED")
    run.close()


def write_undelivered(root: Path, identity: str) -> None:
    """A run of one value that ends while its store is away."""
    run = tracker("http://127.0.0.1:9", root, identity, seconds=0.1)
    run.log({VAL_LOSS: 2.5}, 128)
    run.finish("FINISHED")
    run.close()


def stored(uri: str, identity: str) -> list[Row]:
    """Every value that the store has of a run, sorted; doubled ones twice."""
    store = client(uri)
    experiment = store.get_experiment_by_name("tiny")
    assert experiment is not None
    found = store.search_runs([experiment.experiment_id], f"tags.`shapelaw.identity` = '{identity}'")
    assert len(found) == 1, found
    run_id, keys = found[0].info.run_id, found[0].data.metrics
    return sorted((m.key, m.step, m.value) for key in keys for m in store.get_metric_history(run_id, key))


def journaled(folder: Path) -> list[Row]:
    """Every value of a run's journal, sorted."""
    made = (record for record, _ in records(folder / JOURNAL) if "tokens" in record)
    return sorted((key, record["tokens"], float(value)) for record in made for key, value in record["values"].items())
