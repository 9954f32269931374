"""MLflow behind the tracker: one run per identity, metrics exactly once, a table of all runs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from shapelaw import tracking
from shapelaw.errors import UserError
from shapelaw.tracking import VAL_LOSS, MlflowTracker, RunInfo, open_store, read_runs

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


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store/mlflow.db"


def info(identity: str) -> RunInfo:
    return RunInfo(identity, "train", f"run {identity}", PARAMS)


def test_a_run_started_again_is_continued_and_nothing_is_doubled(uri: str, tmp_path: Path) -> None:
    experiment = open_store(uri, str(tmp_path), "tiny")
    first = MlflowTracker(uri, experiment, info("aaa"))
    for tokens in (128, 256, 384):
        first.log({VAL_LOSS: 5.0 - tokens / 1e3, "cost/device_hours": tokens / 1e6}, tokens)
    first.flush()  # and then it is killed: no finish
    second = MlflowTracker(uri, experiment, info("aaa"))
    assert second.run_id == first.run_id
    for tokens in (256, 384, 512):  # resumed from the checkpoint at 128
        second.log({VAL_LOSS: 5.0 - tokens / 1e3, "cost/device_hours": tokens / 1e6}, tokens)
    second.finish("FINISHED")
    history = second.client.get_metric_history(second.run_id, VAL_LOSS)
    assert [(m.step, m.value) for m in history] == [(t, 5.0 - t / 1e3) for t in (128, 256, 384, 512)]
    assert second.client.get_run(second.run_id).info.status == "FINISHED"


def test_the_runs_table_has_a_row_per_validation(uri: str, tmp_path: Path) -> None:
    experiment = open_store(uri, str(tmp_path), "tiny")
    for identity in ("aaa", "bbb"):
        tracker = MlflowTracker(uri, experiment, info(identity))
        tracker.log({VAL_LOSS: 3.0, "cost/device_hours": 0.5, "speed/seconds_per_step": 0.1}, 1280)
        tracker.log({VAL_LOSS: 2.5, "cost/device_hours": 1.0, "speed/seconds_per_step": 0.1}, 2560)
        tracker.finish("FINISHED")
    silent = MlflowTracker(uri, experiment, info("ccc"))  # no validation yet
    silent.flush()
    table = read_runs(uri, "tiny")
    rows = table[["run", "tokens", "loss", "device_hours"]].sort_values(["run", "tokens"]).to_numpy().tolist()
    halves = [(1280, 3.0, 0.5), (2560, 2.5, 1.0)]
    assert rows == [[identity, *half] for identity in ("aaa", "bbb") for half in halves]
    assert (table["flops"] == table["tokens"] * 3e4).all()
    assert (table["step"] == table["tokens"] // 128).all()


def test_metrics_are_batched(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = MlflowTracker(uri, open_store(uri, str(tmp_path), "tiny"), info("aaa"))
    calls: list[int] = []
    monkeypatch.setattr(tracker.client, "log_batch", lambda run_id, metrics: calls.append(len(metrics)))
    for tokens in range(1, 1001):
        tracker.log({"train/loss": 1.0}, tokens)
    tracker.flush()
    assert sum(calls) == 1000
    assert len(calls) <= 1 + 1000 // tracking.BATCH_METRICS


def _write(uri: str, experiment: str, identity: str) -> None:
    tracker = MlflowTracker(uri, experiment, info(identity))
    for tokens in range(1, 301):
        tracker.log({VAL_LOSS: 1.0 + 1 / tokens}, tokens)
    tracker.finish("FINISHED")


def test_four_processes_share_a_store(uri: str, tmp_path: Path) -> None:
    experiment = open_store(uri, str(tmp_path), "tiny")
    processes = multiprocessing.get_context("forkserver")
    writers = [processes.Process(target=_write, args=(uri, experiment, f"run{k}")) for k in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    table = read_runs(uri, "tiny")
    assert table.groupby("run").size().to_dict() == {f"run{k}": 300 for k in range(4)}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server on the loopback address, as `make ui` starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        f"{tmp_path}/artifacts",
    ]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        *store,
    ]
    log = (tmp_path / "server.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for_server(f"{address}/health", process)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        log.close()


def _wait_for_server(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.3)
    pytest.fail("the MLflow server did not come up")


def test_a_server_is_as_good_as_a_database(server: str, tmp_path: Path) -> None:
    experiment = open_store(server, "", "tiny")
    tracker = MlflowTracker(server, experiment, info("aaa"))
    tracker.log({VAL_LOSS: 2.5, "cost/device_hours": 1.0}, 2560)
    note = tmp_path / "note.txt"
    note.write_text("kept")
    tracker.artifact(note)
    tracker.finish("FINISHED")
    assert read_runs(server, "tiny")[["run", "tokens", "loss"]].to_numpy().tolist() == [["aaa", 2560, 2.5]]
    kept = tracker.client.download_artifacts(tracker.run_id, "note.txt")
    assert Path(kept).read_text() == "kept"


def test_what_is_not_there_is_said(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such database"):
        read_runs(uri, "tiny")
    open_store(uri, str(tmp_path), "tiny")
    with pytest.raises(UserError, match="no run has a validation"):
        read_runs(uri, "tiny")
    with pytest.raises(UserError, match=r"no such MLflow experiment.*tiny"):
        read_runs(uri, "huge")


def test_an_unreachable_server_is_said_within_seconds() -> None:
    with pytest.raises(UserError, match="cannot be reached"):
        open_store("http://127.0.0.1:9", "", "tiny")
