"""Runs recorded in a real PostgreSQL database that asks for a password: by train.py, by many at once, while it goes away."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postgresql import PASSWORD, PostgresqlServer
from shapelaw.errors import UserError
from shapelaw.secrets import TRACKING_VARIABLE
from shapelaw.tracking import VAL_LOSS, deliver_left, open_store, read_runs
from support import Sweep
from tracked import PROCESSES, journaled, stored, tracker, write_300


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgresqlServer]:
    server = PostgresqlServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def uri(postgresql: PostgresqlServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database of this test, whose password is in the environment alone."""
    name = request.node.originalname.removeprefix("test_")[:40]
    postgresql.make(name)
    monkeypatch.setenv(TRACKING_VARIABLE, postgresql.uri(name, password=True))
    return postgresql.uri(name)


def test_a_sweep_is_recorded_and_its_password_is_kept_nowhere(
    postgresql: PostgresqlServer, uri: str, sweep: Sweep, outputs: Path
) -> None:
    done = sweep("-m", f"tracker.uri={uri}", "seed=3,4")
    assert done.returncode == 0, done.stderr
    for folder in (outputs / "runs" / "tiny").iterdir():
        assert stored(uri, folder.name.split("-")[1]) == journaled(folder)
    assert read_runs(uri, "tiny").groupby("run").size().tolist() == [5, 5]
    kept = [path.read_bytes() for path in outputs.rglob("*") if path.is_file()]
    kept += [path.read_bytes() for path in postgresql.folder.glob("*.log")]
    assert not [text for text in (*kept, done.stdout.encode(), done.stderr.encode()) if PASSWORD.encode() in text]
    assert any(uri.encode() in text for text in kept), "the search finds what is there"


def test_many_at_once_make_an_empty_database(uri: str, tmp_path: Path) -> None:
    """Those that come too late to make its tables try anew."""
    names = [f"run{k}" for k in range(4)]
    processes = [PROCESSES.Process(target=write_300, args=(uri, tmp_path, name, dict(os.environ))) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert all(deliver_left(tmp_path / name) is None for name in names)
    expected = [(VAL_LOSS, t, 1.0 + 1 / t) for t in range(1, 301)]
    assert all(stored(uri, name) == expected for name in names)


def test_a_server_that_goes_away_and_comes_back_misses_and_doubles_nothing(
    postgresql: PostgresqlServer,
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("shapelaw.tracking.sender.POLL_SECONDS", 0.05)
    run = tracker(uri, tmp_path, "flaky", seconds=200)
    for tokens in range(1, 101):
        run.log({VAL_LOSS: 1.0 / tokens}, tokens)
    deadline = time.monotonic() + 100
    while not run.run_id and time.monotonic() < deadline:
        time.sleep(0.05)
    postgresql.kill()
    try:
        for tokens in range(101, 201):
            run.log({VAL_LOSS: 1.0 / tokens}, tokens)
        while "does not answer" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        postgresql.start()
    for tokens in range(201, 301):
        run.log({VAL_LOSS: 1.0 / tokens}, tokens)
    run.finish("FINISHED")
    run.close()
    assert caplog.text.count("does not answer") == 1
    assert stored(uri, "flaky") == sorted((VAL_LOSS, t, 1.0 / t) for t in range(1, 301))


def test_who_is_not_let_in_is_told_in_a_line(
    postgresql: PostgresqlServer, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong password, none, a server that is not there, a database that is not."""
    ways = {
        uri.replace("me@", "me:planted-wrong@"): r"refuses this user \(password authentication failed\)",
        "": r"refuses this user \(no password supplied\); put .* environment variable MLFLOW_TRACKING_URI",
    }
    for whole, words in ways.items():
        monkeypatch.setenv(TRACKING_VARIABLE, whole)
        with pytest.raises(UserError, match=words) as refused:
            open_store(uri, "", "tiny")
        assert "planted" not in str(refused.value)
    elsewhere = f"postgresql://me@127.0.0.1:{postgresql.port}/nosuch"
    monkeypatch.setenv(TRACKING_VARIABLE, postgresql.uri("nosuch", password=True))
    with pytest.raises(UserError, match=r'cannot be reached .*database "nosuch" does not exist'):
        open_store(elsewhere, "", "tiny")
    with pytest.raises(UserError, match=r"cannot be reached \(Connection refused\)"):
        open_store("postgresql://me@127.0.0.1:9/mlflow", "", "tiny")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("postgresql://me@host/mlflow", r"the module psycopg, is not installed; run: pip install 'psycopg\[binary\]'"),
        ("mysql://me@host/mlflow", "the module MySQLdb, is not installed; run: pip install 'mysqlclient'"),
        ("postgresql+nosuch://me@host/mlflow", "postgresql.nosuch; give DATABASE://USER@HOST:PORT/NAME"),
        ("postgresql://me@host:port/mlflow", "'port'; give DATABASE://USER@HOST:PORT/NAME"),
    ],
)
def test_a_driver_that_is_missing_is_named(uri: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("psycopg", "MySQLdb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=words):
        open_store(uri, "", "tiny")
