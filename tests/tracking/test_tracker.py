"""MLflow behind the tracker: one run per identity, metrics exactly once, a table of all runs."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from shapelaw.errors import UserError
from shapelaw.tracking import VAL_LOSS, MlflowTracker, client, deliver_left, open_store, read_runs
from shapelaw.tracking import delivery as delivering
from shapelaw.tracking.journal import JOURNAL
from shapelaw.tracking.store import StoreAway
from shapelaw.tracking_views import NOTE, TAG, TRAINED, training
from tracked import PROCESSES, journaled, stored, tracker, write_300


def killed(target: Any, *arguments: Any) -> None:
    """Run a function in a process of its own, which ends by SIGKILL."""
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def _record_and_die(uri: str, root: Path) -> None:
    run = tracker(uri, root, "aaa")
    for tokens in (128, 256, 384):
        run.log({VAL_LOSS: 5.0 - tokens / 1e3, "cost/device_hours": tokens / 1e6}, tokens)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_started_again_is_continued_and_nothing_is_doubled(uri: str, tmp_path: Path) -> None:
    killed(_record_and_die, uri, tmp_path)
    second = tracker(uri, tmp_path, "aaa")
    for tokens in (256, 384, 512):  # resumed from the checkpoint at 128
        second.log({VAL_LOSS: 5.0 - tokens / 1e3, "cost/device_hours": tokens / 1e6}, tokens)
    second.finish("FINISHED")
    second.close()
    every = (128, 256, 384, 512)
    assert stored(uri, "aaa") == sorted(
        [(VAL_LOSS, t, 5.0 - t / 1e3) for t in every] + [("cost/device_hours", t, t / 1e6) for t in every]
    )
    run = client(uri).get_run(second.run_id)
    assert (run.info.status, run.data.params["width"], run.data.tags["shapelaw.kind"]) == ("FINISHED", "16", "train")


def _die_after_sending(uri: str, root: Path, sends: int) -> None:
    """SIGKILL when the store has taken so many messages and nobody has noted the last."""
    noted = delivering.Delivery._note

    def note(self: delivering.Delivery) -> None:
        nonlocal sends
        sends -= 1
        if sends == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        noted(self)

    delivering.Delivery._note = note  # type: ignore[method-assign]
    run = tracker(uri, root, "aaa")
    for tokens in range(1, 2001):
        run.log({VAL_LOSS: 1.0 / tokens}, tokens)
    run.finish("FINISHED")
    run.close()


@pytest.mark.parametrize("sends", [1, 2, 3])
def test_a_kill_between_sending_and_noting_it_loses_and_doubles_nothing(uri: str, tmp_path: Path, sends: int) -> None:
    killed(_die_after_sending, uri, tmp_path, sends)
    assert deliver_left(tmp_path / "aaa") is None
    assert stored(uri, "aaa") == journaled(tmp_path / "aaa") == sorted((VAL_LOSS, t, 1.0 / t) for t in range(1, 2001))


@pytest.mark.parametrize("lost", ["the folder", "the journal", "what was not flushed"])
def test_a_journal_that_is_lost_or_cut_short_misses_and_doubles_nothing(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """The store has more than is left of the journal; it is away during the next attempt, and asked by the one after it."""
    folder = tmp_path / "aaa"
    first = tracker(uri, tmp_path, "aaa")
    _log(first, range(1, 11))
    flushed = (folder / JOURNAL).read_bytes()
    _log(first, range(11, 41))
    first.close()
    match lost:
        case "the folder":
            shutil.rmtree(folder)
        case "the journal":
            (folder / JOURNAL).unlink()
        case _:
            (folder / JOURNAL).write_bytes(flushed + b'{"kind":"metr')
    with monkeypatch.context() as away:
        away.setattr(delivering.Delivery, "deliver", _no_answer)
        second = tracker(uri, tmp_path, "aaa", seconds=0)
        _log(second, range(11, 56), new=1.0)
        second.close()
        second._senders[0].join(60)
    third = tracker(uri, tmp_path, "aaa")
    _log(third, range(11, 61), new=1.0)
    third.finish("FINISHED")
    third.close()
    assert stored(uri, "aaa") == sorted(
        [(VAL_LOSS, t, 1.0 / t) for t in range(1, 61)] + [("new", t, 1.0) for t in range(11, 61)]
    )


def _log(run: MlflowTracker, tokens: range, **others: float) -> None:
    for count in tokens:
        run.log({VAL_LOSS: 1.0 / count, **others}, count)


def _no_answer(delivery: delivering.Delivery) -> None:
    raise StoreAway("Connection refused")


@pytest.mark.parametrize("loss", ["run", "store"])
def test_a_store_that_lost_the_run_gets_everything_again(uri: str, tmp_path: Path, loss: str) -> None:
    run = tracker(uri, tmp_path, "aaa")
    run.log({VAL_LOSS: 2.5}, 128)
    run.finish("FINISHED")
    run.close()
    if loss == "run":
        client(uri).delete_run(run.run_id)
    other = uri if loss == "run" else f"sqlite:///{tmp_path}/other.db"
    again = tracker(other, tmp_path, "aaa")
    again.log({VAL_LOSS: 2.0}, 256)
    again.finish("FINISHED")
    again.close()
    assert stored(other, "aaa") == [(VAL_LOSS, 128, 2.5), (VAL_LOSS, 256, 2.0)]


def test_what_the_store_refuses_stands_in_nobody_s_way(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tracker(uri, tmp_path, "aaa")
    run.log({"no!name": 1.0}, 1)
    run.log({VAL_LOSS: 2.5, "nan": float("nan")}, 2)
    run.artifact(tmp_path / "missing.txt")
    run.finish("FINISHED")
    run.close()
    assert "refused a record" in caplog.text
    assert [(key, tokens) for key, tokens, _ in stored(uri, "aaa")] == [("nan", 2), (VAL_LOSS, 2)]
    assert client(uri).get_run(run.run_id).info.status == "FINISHED"


def test_the_runs_table_has_a_row_per_validation(uri: str, tmp_path: Path) -> None:
    for identity in ("aaa", "bbb", "ccc"):
        run = tracker(uri, tmp_path, identity)
        if identity != "ccc":  # which has no validation yet
            run.log({VAL_LOSS: 3.0, "cost/device_hours": 0.5, "speed/seconds_per_step": 0.1}, 1280)
            run.log({VAL_LOSS: 2.5, "cost/device_hours": 1.0, "speed/seconds_per_step": 0.1}, 2560)
        run.finish("FINISHED")
        run.close()
    table = read_runs(uri, "tiny")
    rows = table[["run", "tokens", "loss", "device_hours"]].sort_values(["run", "tokens"]).to_numpy().tolist()
    halves = [(1280, 3.0, 0.5), (2560, 2.5, 1.0)]
    assert rows == [[identity, *half] for identity in ("aaa", "bbb") for half in halves]
    assert (table["flops"] == table["tokens"] * 3e4).all()
    assert (table["step"] == table["tokens"] // 128).all()


def test_metrics_are_batched(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    sizes: list[int] = []
    real = MlflowClient.log_batch

    def counted(self: MlflowClient, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        sizes.append(len(metrics))
        real(self, run_id, metrics, params, tags)

    run = tracker(uri, tmp_path, "aaa")
    while not run.run_id:
        pass
    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    for tokens in range(1, 2001):
        run.log({"train/loss": 1.0}, tokens)
    run.finish("FINISHED")
    run.close()
    assert sum(sizes) == 2000
    assert len([size for size in sizes if size]) <= 4


@pytest.mark.parametrize("writers", [4, pytest.param(32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("opened", [True, False])
def test_many_processes_share_a_database(uri: str, tmp_path: Path, writers: int, opened: bool) -> None:
    """Also one that none of them has opened before, as after a start without the store."""
    uri = uri if opened else f"sqlite:///{tmp_path}/fresh.db"
    names = [f"run{k}" for k in range(writers)]
    processes = [PROCESSES.Process(target=write_300, args=(uri, tmp_path, name, dict(os.environ))) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * writers
    assert all(deliver_left(tmp_path / name) is None for name in names)
    expected = [(VAL_LOSS, t, 1.0 + 1 / t) for t in range(1, 301)]
    assert all(stored(uri, name) == expected for name in names)
    assert read_runs(uri, "tiny").groupby("run").size().to_dict() == dict.fromkeys(names, 300)


def test_mlflow_looks_its_newest_schema_up_once_a_process(uri: str) -> None:
    """By the private function that its check of a database calls."""
    from mlflow.store.db import utils

    from shapelaw.tracking import mlflow_internals

    assert mlflow_internals.utils is utils
    before = utils._get_latest_schema_revision.cache_info()
    engine = create_engine(uri)
    utils._verify_schema(engine)
    engine.dispose()
    after = utils._get_latest_schema_revision.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, 1)


def test_what_is_not_there_is_said(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such database"):
        read_runs(f"sqlite:///{tmp_path}/missing.db", "tiny")
    open_store(uri, str(tmp_path), "tiny")
    with pytest.raises(UserError, match="no run has a validation"):
        read_runs(uri, "tiny")
    with pytest.raises(UserError, match=r"no such MLflow experiment.*tiny"):
        read_runs(uri, "huge")


def test_an_unreachable_server_is_said_within_seconds() -> None:
    with pytest.raises(UserError, match=r"cannot be reached \(Connection refused\).*when_unreachable=spool"):
        open_store("http://127.0.0.1:9", "", "tiny")


def test_an_experiment_is_described_once_and_its_users_words_stay(uri: str, tmp_path: Path) -> None:
    """Its other tags follow the program."""
    first = open_store(uri, str(tmp_path), "described", training())
    store = client(uri)
    tags = store.get_experiment(first).tags
    assert (tags[NOTE], tags["mlflow.experimentKind"]) == (TRAINED, "custom_model_development")
    store.set_experiment_tag(first, NOTE, "mine")
    store.set_experiment_tag(first, TAG, "{}")
    assert open_store(uri, str(tmp_path), "described", training()) == first
    tags = store.get_experiment(first).tags
    assert (tags[NOTE], tags[TAG]) == ("mine", training()[TAG])
