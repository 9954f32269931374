"""Outputs that several people and launchers share."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shapelaw.errors import UserError
from shapelaw.export.folder import export
from shapelaw.run_state import State, Status, is_locked, lock, read_state, write_state
from shapelaw.sweep.holding import held, stopped_by_sigterm
from shapelaw.tracking import client
from shapelaw.training.checkpoint import write_tensors
from support import Compose, Door, Script, Start, train

NOBODY = 65534
IDENTITY = "0123456789ab"
SWEPT = (
    "-m",
    "shape=16x1",
    "lr_base=5,4",
    "tokens=128000",
    "checkpoint.every_tokens=12800",
    "hydra.launcher.workers=2",
)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may read and this one writes."""
    folder = Path(tempfile.mkdtemp(prefix="shapelaw-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def in_child(work: Callable[[], bool], user: int | None = None) -> bool:
    """What a process of its own, of another user, finds."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            if user is not None:
                os.setresuid(user, user, user)
            code = 0 if work() else 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1), "it raised"
    return code == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_run_of_somebody_else_is_seen_to_run_or_not(public: Path) -> None:
    """Its state and lock are readable and no more."""
    run = public / "run"
    with lock(run):
        write_state(run, State(Status.running, step=3))
        for path in (run, *run.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        assert in_child(lambda: not os.access(run / "lock", os.W_OK) and is_locked(run), NOBODY)
        assert in_child(lambda: read_state(run).status is Status.running, NOBODY)
    assert in_child(lambda: read_state(run).status is Status.interrupted, NOBODY)


def test_who_looks_takes_nothing_from_a_run(tmp_path: Path) -> None:
    """Two that look at once do not take each other for a run."""
    with lock(tmp_path):
        assert in_child(lambda: is_locked(tmp_path))
    with (tmp_path / "lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert not is_locked(tmp_path)


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o027, 0o077])
def test_tensors_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(3)})
    finally:
        os.umask(before)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask


def test_checkpoints_and_exports_follow_the_umask(composed: Compose, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        planned = train(composed)
        export(planned.folder, tmp_path / "model")
    finally:
        os.umask(before)
    files = [path for folder in (planned.folder, tmp_path / "model") for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}


def test_one_launcher_holds_a_sweep(tmp_path: Path) -> None:
    def refused(identity: str) -> bool:
        try:
            with held(tmp_path, identity):
                return False
        except UserError as error:
            return "running elsewhere" in str(error)

    with held(tmp_path, IDENTITY):
        assert in_child(lambda: refused(IDENTITY))
        assert not in_child(lambda: refused("f" + IDENTITY[1:])), "another sweep is another matter"
    assert not in_child(lambda: refused(IDENTITY))


def test_sigterm_ends_as_ctrl_c_does_and_is_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def stopped() -> None:
        with stopped_by_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_second_launcher_leaves_a_sweep_alone_and_sigterm_closes_it(
    outputs: Path, script: Script, start: Start
) -> None:
    """The sweep's own run in the store says how it ended: stopped, not failed."""
    first = start("train.py", *SWEPT)
    deadline = time.monotonic() + 120
    while not any(read_state(path.parent).step for path in outputs.glob("runs/*/*/state.json")):
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    second = script("train.py", *SWEPT)
    assert (second.returncode, len(second.stderr.splitlines())) == (2, 1), second.stderr
    assert "is running elsewhere" in second.stderr
    assert status_of_sweep(outputs) == "RUNNING"
    first.send_signal(signal.SIGTERM)
    said = first.communicate(timeout=120)[1]
    assert (first.returncode, "Traceback" in said) == (130, False), said
    assert status_of_sweep(outputs) == "KILLED"
    states = [read_state(path.parent) for path in outputs.glob("runs/*/*/state.json")]
    assert {state.status for state in states} == {Status.interrupted}
    assert replace(states[0], reason="").step > 0


@pytest.mark.parametrize("words", [(), ("-m",)])
@pytest.mark.parametrize(("mode", "said"), [(0o777, True), (0o1777, True), (0o775, False)])
def test_outputs_that_anybody_may_write_to_are_said(
    door: Door, outputs: Path, words: tuple[str, ...], mode: int, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    outputs.mkdir()
    outputs.chmod(mode)
    assert door("train", *words, "data=jsonl")[0] == 2
    assert ("anybody can write to this folder" in caplog.text) is said


def status_of_sweep(outputs: Path) -> str:
    store = client(f"sqlite:///{outputs}/mlflow.db")
    experiment = store.get_experiment_by_name("tiny")
    (run,) = store.search_runs([experiment.experiment_id], "tags.`shapelaw.kind` = 'sweep'")
    return str(run.info.status)
