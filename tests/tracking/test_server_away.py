"""A real server that is down at the start, killed in the middle and started again; a real train.py meanwhile."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_server import MlflowServer, gate
from prepared import Started
from shapelaw.run_state import Status, read_state
from shapelaw.tracking import VAL_LOSS, client, deliver_left, read_runs
from support import Program, Script, Start, Sweep
from tracked import journaled, stored, tracker

LONG = (
    "shape=16x1",
    "tokens=64000",
    "validation.every_tokens=1280",
    "checkpoint.every_tokens=12800",
    "accelerator=cpu",
)
"""500 steps of the tiny suite."""


def wait_for(condition: Callable[[], bool], process: Started, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def the_run(outputs: Path) -> Path:
    (folder,) = (outputs / "runs" / "tiny").iterdir()
    return folder


def test_a_server_that_is_down_at_the_start_is_said_or_waited_for(
    server: MlflowServer, script: Script, program: Program, outputs: Path
) -> None:
    server.kill()
    refused = script("train.py", f"tracker.uri={server.uri}", "progress=false")
    assert (refused.returncode, (outputs / "runs").exists()) == (2, False)
    assert f"tracker.uri={server.uri}: cannot be reached (Connection refused)" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    spooled = script(
        "train.py",
        f"tracker.uri={server.uri}",
        *("progress=false", "tracker.when_unreachable=spool", "tracker.finish_seconds=1"),
    )
    folder = the_run(outputs)
    assert (spooled.returncode, read_state(folder).status) == (0, Status.finished), spooled.stderr
    assert "values of" in spooled.stderr.splitlines()[-1]
    assert "shapelaw replay" in spooled.stderr.splitlines()[-1]
    deliver = ("replay", f"folders=[{outputs}]", f"tracker.uri={server.uri}")
    left = program(*deliver)
    assert (left.returncode, left.stdout) == (1, "1 runs, 1 with undelivered records\n"), left.stderr
    server.start()
    done = program(*deliver)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 runs, 0 with undelivered records\n", "")
    identity = folder.name.split("-")[1]
    assert stored(server.uri, identity) == journaled(folder)
    rows = read_runs(server.uri, "tiny")
    assert rows[rows["run"] == identity]["tokens"].tolist() == [512, 1024, 1536, 2048, 2560]
    run_id = rows[rows["run"] == identity]["mlflow_run_id"].iloc[0]
    assert "width: 16" in Path(client(server.uri).download_artifacts(run_id, "config.yaml")).read_text()
    assert client(server.uri).get_run(run_id).info.status == "FINISHED"


def test_a_run_outlives_its_server_and_loses_nothing(server: MlflowServer, outputs: Path, start: Start) -> None:
    """train.py while the server is killed, stays away, and is started again."""
    server.start()
    train = start("train.py", *LONG, f"tracker.uri={server.uri}", "progress=false", "tracker.finish_seconds=200")
    wait_for(lambda: any((outputs / "runs").glob("*/*/tracking.sent.json")), train)
    folder = the_run(outputs)
    wait_for(lambda: read_state(folder).step >= 50, train)
    server.kill()
    step = read_state(folder).step
    wait_for(lambda: read_state(folder).step >= min(step + 200, 500), train)  # it goes on without
    server.start()
    _, said = train.communicate(timeout=400)
    assert (train.returncode, read_state(folder).status) == (0, Status.finished), said
    rows = stored(server.uri, folder.name.split("-")[1])
    assert rows == journaled(folder)
    assert [tokens for key, tokens, _ in rows if key == VAL_LOSS] == list(range(1280, 64_001, 1280))


def test_what_a_tracker_records_while_the_server_is_away_comes_once(
    server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shapelaw.tracking.sender.POLL_SECONDS", 0.05)
    server.start()
    run = tracker(server.uri, tmp_path, "flaky", seconds=200)
    for part in range(3):
        for tokens in range(100 * part + 1, 100 * part + 101):
            run.log({VAL_LOSS: 1.0 / tokens}, tokens)
        if part == 0:
            deadline = time.monotonic() + 100
            while not run.run_id and time.monotonic() < deadline:
                time.sleep(0.05)
            server.kill()
        elif part == 1:
            while "does not answer" not in caplog.text and time.monotonic() < deadline + 100:
                time.sleep(0.05)
            server.start()
    run.finish("FINISHED")
    run.close()
    reason = "Connection (refused|reset|broken|aborted)|Broken pipe|Remote end closed connection without response"
    assert len(re.findall(rf"does not answer \(({reason})\);", caplog.text)) == 1, caplog.text
    assert caplog.text.count("answers again") == 1
    assert stored(server.uri, "flaky") == sorted((VAL_LOSS, t, 1.0 / t) for t in range(1, 301))


def test_a_server_that_hangs_delays_the_end_by_no_more_than_asked(server: MlflowServer, tmp_path: Path) -> None:
    """It takes connections and says nothing."""
    server.start()
    assert server._process is not None
    os.killpg(server._process.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        run = tracker(server.uri, tmp_path, "hung", seconds=1)
        for tokens in range(1, 1001):
            run.log({VAL_LOSS: 1.0}, tokens)
        run.finish("FINISHED")
        assert time.monotonic() - started < 15  # nothing waited for the 2 x 20 s of a request
        run.close()
        assert len(journaled(tmp_path / "hung")) == 1000
    finally:
        os.killpg(server._process.pid, signal.SIGCONT)
    run._senders[0].join(100)
    assert deliver_left(tmp_path / "hung") is None
    assert len(stored(server.uri, "hung")) == 1000


def test_a_password_of_the_environment_opens_the_server_and_is_kept_nowhere(
    server: MlflowServer, script: Script, sweep: Sweep, outputs: Path
) -> None:
    """A run that the server's gate keeps out and a sweep that it lets in; all that they left is searched byte by byte."""
    server.start()
    secret = "planted-pass-3b7e"
    with gate(server.port, "me", secret) as port:
        named = f"tracker.uri=http://me@127.0.0.1:{port}"
        whole = {"MLFLOW_TRACKING_URI": f"http://me:{secret}@127.0.0.1:{port}"}
        spooled = script(
            "train.py", named, "seed=3", "progress=false", "tracker.when_unreachable=spool", "tracker.finish_seconds=1"
        )
        assert "shapelaw replay" in spooled.stderr
        again = sweep("-m", named, "seed=3,4", **whole)
        assert (spooled.returncode, again.returncode) == (0, 0), again.stderr
    for folder in (outputs / "runs" / "tiny").iterdir():
        assert stored(server.uri, folder.name.split("-")[1]) == journaled(folder)
    said = [text for done in (spooled, again) for text in (done.stdout, done.stderr)]
    kept = [path.read_bytes().decode("latin-1") for path in _files(outputs, server.folder)]
    assert not [text for text in (*said, *kept) if secret in text]
    assert any(f"me@127.0.0.1:{port}" in text for text in kept), "the search finds what is there"


def _files(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]
