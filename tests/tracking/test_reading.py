"""The runs table read directly out of the database, and by MLflow's interface: the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from mlflow_server import MlflowServer
from shapelaw.tracking import DIVERGED_TAG, VAL_LOSS, client, histories, read_runs, reading
from tracked import tracker


def test_both_ways_give_the_same_table(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With values that are awkward: third digits, NaN, undone rows, a run that diverged, one without device hours."""
    for number in range(4):
        run = tracker(uri, tmp_path, f"run{number}")
        for tokens in range(128, 1281, 128):
            loss = float("nan") if (number, tokens) == (2, 640) else 1.0 / (tokens + number)
            run.log({VAL_LOSS: loss} if number == 1 else {VAL_LOSS: loss, "cost/device_hours": tokens / 3}, tokens)
        if number == 3:
            run.rewind(1, 512, {"spike/rollbacks": 1})
            run.log({VAL_LOSS: 0.5, "cost/device_hours": 7.0, "speed/seconds_per_step": 0.1}, 640)
            run.tag({DIVERGED_TAG: "6"})
        run.finish("FAILED" if number == 3 else "FINISHED")
        run.close()
    direct = read_runs(uri, "tiny")
    monkeypatch.setattr(reading, "histories", lambda uri, store, ids, keys: histories.by_interface(store, ids, keys))
    by_interface = read_runs(uri, "tiny")
    order = ["run", "tokens", "rollbacks", "loss"]
    pd.testing.assert_frame_equal(
        direct.sort_values(order, ignore_index=True),
        by_interface.sort_values(order, ignore_index=True),
        check_exact=True,
    )
    assert len(direct) == 41
    last = direct[direct["run"] == "run3"]
    assert last["diverged_step"].tolist() == [6] * 11
    assert (last["excluded"] == "undone by a rollback").sum() == 6
    assert last["seconds_per_step"].tolist() == [0.1] * 11
    assert direct[direct["run"] == "run1"]["device_hours"].isna().all()


def test_reading_asks_a_database_the_same_few_questions_however_many_runs(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        run = tracker(uri, tmp_path, f"run{number}")
        run.log({VAL_LOSS: 2.0}, 128)
        run.finish("FINISHED")
        run.close()
    monkeypatch.setattr(MlflowClient, "get_metric_history", lambda *_: pytest.fail("a request for every run"))
    assert len(read_runs(uri, "tiny")) == 5


def test_runs_are_found_alike_by_sql_and_by_interface(uri: str, tmp_path: Path) -> None:
    """Parameters, tags, last values (NaN too), names and status, of both kinds; deleted runs are left out."""
    for number in range(3):
        run = tracker(uri, tmp_path, f"run{number}")
        run.log({VAL_LOSS: float("nan") if number == 1 else 2.0 + number, "train/loss": 1.0}, 128)
        run.finish("FINISHED" if number else "FAILED")
        run.close()
    store = MlflowClient(uri)
    experiment = store.get_experiment_by_name("tiny")
    assert experiment is not None
    gone = store.create_run(experiment.experiment_id, run_name="gone")
    store.delete_run(gone.info.run_id)
    store.create_run(experiment.experiment_id, run_name="foreign", start_time=1)
    for kind, count in (("train", 3), (None, 4)):
        both = [
            reading.search(uri, store, experiment.experiment_id, kind),
            reading.search_by_interface(store, experiment.experiment_id, kind),
        ]
        mine, theirs = ([_said(run) for run in runs] for runs in both)
        assert mine == theirs
        assert len(both[0]) == count


def _said(run: Any) -> tuple[Any, ...]:
    last = {key: repr(value) for key, value in run.data.metrics.items()}
    return run.info.run_id, run.info.run_name, run.info.status, run.data.params, run.data.tags, last


LOGGED = {"long": 7, "none": 0, "short": 2, "exact": 3, "one": 1}
"""Values of runs, by what the runs are called."""


def log_lengths(uri: str) -> dict[str, str]:
    """Runs in a store, name -> id."""
    store = client(uri)
    experiment = store.create_experiment("lengths")
    ids = {name: store.create_run(experiment, run_name=name).info.run_id for name in LOGGED}
    for name, run_id in ids.items():
        values = [Metric("loss", 1 / (3 + k) if k else float("nan"), 10, k) for k in range(LOGGED[name])]
        store.log_batch(run_id, metrics=values)
    return ids


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs that are asked for one by one."""
    asked: list[str] = []
    single = MlflowClient.get_metric_history
    monkeypatch.setattr(MlflowClient, "get_metric_history", lambda *args: asked.append(args[1]) or single(*args))
    return asked


def is_read_in_whole(
    uri: str, database: Path, ids: dict[str, str], alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = list(ids.values())
    expected = {place: repr(values) for place, values in histories.by_sql(database, every, ("loss",)).items()}
    expected[ids["none"], "loss"] = "[]"
    for most, block, singly in (
        (25_000, 80, {*()}),
        (25_000, 3, {*()}),
        (3, 80, {*every} - {ids["none"]}),
        (1, 80, {*every}),
        (25_000, 1, {*every}),
    ):
        monkeypatch.setattr(histories, "VALUES_OF_A_REQUEST", most)
        monkeypatch.setattr(histories, "RUNS_OF_A_REQUEST", block)
        alone.clear()
        found = histories.by_interface(client(uri), every, ("loss",))
        assert {place: repr(values) for place, values in found.items()} == expected
        assert len(alone) == len(set(alone))
        assert set(alone) <= singly


def test_histories_of_many_runs_come_in_few_requests_and_whole(
    uri: str, alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a database's interface; what was cut is asked for again."""
    is_read_in_whole(uri, Path(uri.removeprefix("sqlite:///")), log_lengths(uri), alone, monkeypatch)


@pytest.mark.slow
def test_histories_come_in_few_requests_to_a_server_and_whole(
    server: MlflowServer, alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one by one from a server that knows no request for many."""
    server.start()
    ids = log_lengths(server.uri)
    is_read_in_whole(server.uri, server.database, ids, alone, monkeypatch)
    whole = histories.by_interface(client(server.uri), list(ids.values()), ("loss",))
    monkeypatch.setattr(histories, "RUNS_OF_A_REQUEST", 80)
    for path in ("/ajax-api/2.0/mlflow/nosuch", "/health"):
        monkeypatch.setattr(histories, "BULK", path)
        alone.clear()
        assert repr(histories.by_interface(client(server.uri), list(ids.values()), ("loss",))) == repr(whole)
        assert sorted(alone) == sorted(ids.values())
