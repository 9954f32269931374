"""The journal on disk: torn and damaged lines, full disks, runs that go back; and a store whose disk is full."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shapelaw.errors import UserError
from shapelaw.tracking import VAL_LOSS, deliver_left, read_runs
from shapelaw.tracking import journal as journals
from shapelaw.tracking.journal import JOURNAL, Journal, records
from tracked import journaled, stored, tracker

LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 2 MiB; needs root."""
    folder = tmp_path / "small"
    folder.mkdir()
    if LIBC.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"size=2m"):
        pytest.skip(f"no file system can be mounted here: {os.strerror(ctypes.get_errno())}")
    yield folder
    LIBC.umount2(str(folder).encode(), 2)


def fill(folder: Path) -> Path:
    """Fill a disk to its last byte; the file to remove for room."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (2**16, 1):
            try:
                while True:
                    file.write(b"0" * size)
            except OSError:
                pass
    return path


def test_an_attempt_adds_what_the_last_one_had_not_recorded(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    for tokens in (1, 2, 3):
        first.metrics({"a": tokens, "b": -tokens} if tokens < 3 else {"a": tokens}, tokens)
    second = Journal(tmp_path)
    for tokens in (2, 3, 4):
        second.metrics({"a": tokens, "b": -tokens}, tokens)
    assert journaled(tmp_path) == [("a", t, t) for t in (1, 2, 3, 4)] + [("b", t, -t) for t in (1, 2, 3, 4)]


@pytest.mark.parametrize("torn", [b"{", b'{"kind":"metrics","time":1,"tokens":9,"values":{"a":9}}', b"\x00\xff"])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    Journal(tmp_path).metrics({"a": 1}, 1)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(torn)
    Journal(tmp_path).metrics({"a": 9}, 9)
    assert journaled(tmp_path) == [("a", 1, 1), ("a", 9, 9)]


def test_a_damaged_line_is_said_and_takes_no_other_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Journal(tmp_path)
    for tokens in (1, 2, 3):
        made.metrics({"a": tokens}, tokens)
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    (tmp_path / JOURNAL).write_bytes(lines[0] + lines[1].replace(b'"', b"'") + lines[2])
    assert journaled(tmp_path) == [("a", 1, 1), ("a", 3, 3)]
    assert "is damaged and was skipped" in caplog.text


def test_numbers_keep_every_bit(tmp_path: Path) -> None:
    values = {"third": 1 / 3, "tiny": 5e-324, "nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
    Journal(tmp_path).metrics(values, 1)
    read = {key: value for key, _, value in journaled(tmp_path)}
    assert {key: repr(value) for key, value in read.items()} == {key: repr(value) for key, value in values.items()}
    text = (tmp_path / JOURNAL).read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_time_never_runs_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two values at the same tokens the later one holds, whatever the clock of the machine says."""
    for attempt, now in enumerate((1000.0, 900.0, 950.0)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        Journal(tmp_path).metrics({"a": attempt}, attempt)
    times = [record["time"] for record, _ in records(tmp_path / JOURNAL)]
    assert times == sorted(times)


def test_a_run_that_goes_back_is_measured_again_and_the_undone_rows_are_marked(uri: str, tmp_path: Path) -> None:
    run = tracker(uri, tmp_path, "aaa")
    for tokens in (512, 1024, 1536):
        run.log({VAL_LOSS: 4.0 + tokens, "cost/device_hours": 1.0}, tokens)
    run.rewind(1, 512, {"spike/rollbacks": 1})
    run.rewind(1, 512, {"spike/rollbacks": 1})  # as an interrupted rollback says again
    for tokens in (512, 1024, 1536, 2048):
        run.log({VAL_LOSS: 3.0 - tokens / 1e4, "cost/device_hours": 2.0}, tokens)
    run.finish("FINISHED")
    run.close()
    table = read_runs(uri, "tiny")
    rows = table[["tokens", "loss", "device_hours", "rollbacks", "excluded"]].to_numpy().tolist()
    undone = "undone by a rollback"
    assert sorted(rows) == sorted(
        [[512, 516.0, 1.0, 0, ""], [1024, 1028.0, 1.0, 0, undone], [1536, 1540.0, 1.0, 0, undone]]
        + [[tokens, 3.0 - tokens / 1e4, 2.0, 1, ""] for tokens in (1024, 1536, 2048)]
    )


def test_rows_that_are_undone_and_not_measured_again_yet_are_marked(uri: str, tmp_path: Path) -> None:
    run = tracker(uri, tmp_path, "aaa")
    for tokens in (512, 1024):
        run.log({VAL_LOSS: 4.0}, tokens)
    run.rewind(1, 512, {"spike/rollbacks": 1})
    run.finish("KILLED")
    run.close()
    assert read_runs(uri, "tiny")[["tokens", "excluded"]].to_numpy().tolist() == [
        [512, ""],
        [1024, "undone by a rollback"],
    ]


def test_a_full_disk_of_the_store_costs_nothing(
    uri: str, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The database's disk is really full for a while: all is recorded, and comes when there is room again."""
    monkeypatch.setattr("shapelaw.tracking.sender.POLL_SECONDS", 0.05)
    shutil.copy(uri.removeprefix("sqlite:///"), small_disk / "mlflow.db")
    full = f"sqlite:///{small_disk}/mlflow.db"
    run = tracker(full, tmp_path, "aaa", seconds=2)
    deadline = time.monotonic() + 60
    while not run.run_id and time.monotonic() < deadline:
        time.sleep(0.05)
    room = fill(small_disk)
    for tokens in range(1, 5001):
        run.log({VAL_LOSS: 1.0 / tokens}, tokens)
    run.flush()
    run.finish("FINISHED")
    run.close()
    run._senders[0].join(60)
    assert "database or disk is full" in caplog.text
    expected = sorted((VAL_LOSS, t, 1.0 / t) for t in range(1, 5001))
    assert journaled(tmp_path / "aaa") == expected
    assert "database or disk is full" in str(deliver_left(tmp_path / "aaa"))
    room.unlink()
    monkeypatch.undo()
    LIBC.mount(b"tmpfs", str(small_disk).encode(), b"tmpfs", 32, b"size=32m")  # MS_REMOUNT: a larger disk
    while (left := deliver_left(tmp_path / "aaa")) and time.monotonic() < deadline + 60:
        time.sleep(0.2)
    assert left is None
    assert stored(full, "aaa") == expected


def test_a_full_disk_of_the_run_is_waited_for_then_said(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = Journal(small_disk)
    made.metrics({"a": 0}, 0)
    room = fill(small_disk)
    for tokens in range(1, 2001):
        made.metrics({"a": tokens}, tokens)
    assert caplog.text.count("cannot be written") == 1
    with pytest.raises(UserError, match=r"No space left.*free some space"):
        made.sync()
    room.unlink()
    made.sync()
    assert journaled(small_disk) == [("a", tokens, tokens) for tokens in range(2001)]
    monkeypatch.setattr(journals, "HELD_BYTES", 1000)
    fill(small_disk)
    with pytest.raises(UserError, match="No space left"):
        made.metrics({f"a{number}": 0.0 for number in range(200)}, 2001)
