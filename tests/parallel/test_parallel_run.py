"""Runs of several processes through train.py: the same loss as one process, resumed, stopped, killed, refused."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prepared import Started
from shapelaw.config.schema import to_dataclass
from shapelaw.data import load_corpus
from shapelaw.planned_run import PlannedRun, checkpoint_path, checkpoint_steps, corpus_folder, plan_run
from shapelaw.run_state import Status, read_state
from shapelaw.training import processes
from support import ROOT, Compose, Script, Start

COMMON = ("shape=32x1", "accelerator=cpu", "precision=fp32")
AXONN = ("parallel=axonn", "parallel.row=2", "devices=2")


def planned(composed: Compose, *overrides: str) -> PlannedRun:
    config = to_dataclass(composed(*COMMON, *overrides))
    return plan_run(config, load_corpus(corpus_folder(config)).manifest.corpus_hash)


def processes_of(parent: int) -> list[int]:
    """Children of a process, in the order of their ranks."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False)
    return sorted(int(pid) for pid in listed.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("layout", [AXONN, ("parallel=fsdp", "devices=2")], ids=["axonn", "fsdp"])
def test_several_processes_train_as_one(
    composed: Compose, script: Script, tmp_path: Path, layout: tuple[str, ...]
) -> None:
    """Half in several processes, the rest in one: the loss of one process throughout, to float32 sums over 20 steps."""
    alone = f"outputs_dir={tmp_path}/alone"
    assert script("train.py", "tracker=none", *COMMON, alone).returncode == 0
    expected = read_state(planned(composed, alone).folder).val_loss
    done = script("train.py", "tracker=none", *COMMON, *layout)
    assert done.returncode == 0, done.stderr
    state = read_state(planned(composed).folder)
    assert state.status is Status.finished
    assert state.val_loss == pytest.approx(expected, abs=1e-5)
    folder = planned(composed, f"outputs_dir={tmp_path}/alone").folder
    for path in (checkpoint_path(folder, step) for step in checkpoint_steps(folder)[2:]):
        subprocess.run(["rm", "-r", str(path)], check=True)
    (folder / "state.json").unlink()
    resumed = script("train.py", "tracker=none", *COMMON, *layout, alone)
    assert resumed.returncode == 0, resumed.stderr
    assert read_state(folder).val_loss == pytest.approx(expected, abs=1e-5)


def curve(outputs: Path) -> dict[tuple[str, int], float]:
    """Every recorded loss of the only run of a store, by metric and tokens; none is there twice."""
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as store:
        rows = store.execute("select key, step, value from metrics where key like '%loss'").fetchall()
    recorded = {(key, step): value for key, step, value in rows}
    assert len(recorded) == len(rows)
    return recorded


@pytest.mark.slow
def test_a_run_goes_through_every_layout(composed: Compose, script: Script, outputs: Path, tmp_path: Path) -> None:
    """Stopped by a signal in the fifth step of each layout, after its sixth, and continued by the next: the curve of one
    process."""
    common = (*COMMON, "tracker.log_every_steps=1")
    alone = tmp_path / "alone"
    done = script("train.py", *common, f"outputs_dir={alone}", SHAPELAW_OUTPUTS=str(alone))
    assert done.returncode == 0, done.stderr
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os, signal\n"
        "if os.environ.get('RANK') == '1':\n"
        "    from shapelaw.training.module import RunModule\n"
        "    step = RunModule.training_step\n"
        "    def stopped(self, batch, index):\n"
        "        step(self, batch, index)\n"
        "        if index == 4:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "    RunModule.training_step = stopped\n"
    )
    target = planned(composed)
    for number, layout in enumerate((AXONN, ("parallel=fsdp", "devices=2"), ("parallel=ddp", "devices=2")), start=1):
        stopped = script("train.py", *common, *layout, PYTHONPATH=str(hook))
        assert "stopped by" in stopped.stderr, stopped.stderr
        assert checkpoint_steps(target.folder)[-1] == 6 * number
    done = script("train.py", *common)
    assert done.returncode == 0, done.stderr
    assert read_state(target.folder).attempts == 4
    expected, found = curve(alone), curve(outputs)
    assert len(expected) == 20 + 5  # every step's, and a validation every fourth
    assert found == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (("parallel=axonn", "parallel.row=2", "parallel.data=3", "devices=2"), "= 6 processes, but devices"),
        (("parallel=axonn", "parallel.row=4", "devices=4"), "does not divide the 2 key-value heads"),
        (("parallel=axonn", "parallel.row=8", "devices=8"), "does not divide the 4 query heads"),
        (("parallel=axonn", "parallel.column=3", "devices=3"), "does not divide the 32 width"),
        (("parallel=axonn", "parallel.depth=16", "devices=16"), "share a batch of 8 sequences"),
        (("parallel=fsdp",), "fsdp with one process"),
        (("parallel=ddp",), "ddp with one process"),
        (("parallel=single", "devices=2"), "single with 2 processes"),
        (("parallel=fsdp", "parallel.row=2", "devices=2"), "are degrees of parallel=axonn"),
        (("parallel=axonn", "parallel.row=0"), "whole numbers from 1"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(composed: Compose, layout: tuple[str, ...], message: str) -> None:
    """Before a process group starts, by the check that the scripts and the local launcher make first."""
    from shapelaw.errors import UserError
    from shapelaw.verbs.train import TrainTask

    with pytest.raises(UserError, match=message):
        TrainTask().check_machine([composed(*COMMON, *layout)])


def test_axonn_must_be_installed(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    from shapelaw.errors import UserError
    from shapelaw.verbs.train import TrainTask

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed; pip install 'shapelaw\[axonn\]'"):
        TrainTask().plan([composed(*COMMON, "parallel=axonn", "parallel.row=2")])


def test_the_layout_is_no_part_of_a_run(composed: Compose) -> None:
    assert planned(composed, *AXONN).identity == planned(composed).identity


def started(composed: Compose, start: Start, tokens: int) -> tuple[Started, PlannedRun, list[int]]:
    """A long run of two processes, a few steps in."""
    overrides = (*COMMON, *AXONN, f"tokens={tokens}", "data.max_epochs=1000", "tracker=none")
    process = start("train.py", *overrides)
    target = planned(composed, f"tokens={tokens}", "data.max_epochs=1000")
    deadline = time.monotonic() + 120
    while read_state(target.folder).step < 8:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return process, target, processes_of(process.pid)


def ended(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_death_is_noticed_while_the_first_process_waits(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a collective of a GPU that never comes back: the first process would wait for ever."""
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.5)
    code = [sys.executable, "-c", "import time; time.sleep(3600)"]
    ranks = [subprocess.Popen(code, stdin=subprocess.PIPE, start_new_session=True) for _ in range(2)]
    target = planned(composed)
    target.folder.mkdir(parents=True)
    try:
        ranks[1].kill()
        failures = processes._watch(ranks, target, tmp_path, lambda state: None)
    finally:
        processes._end(ranks)
    assert [(failure.rank, failure.message) for failure in failures] == [(1, "killed by SIGKILL")]
    assert [process.returncode for process in ranks] == [-signal.SIGKILL] * 2
    with pytest.raises(processes.RankFailed, match="process 1 of the run: killed by SIGKILL"):
        processes._raise(failures, target)


@pytest.mark.slow
def test_a_killed_process_ends_the_others(composed: Compose, start: Start) -> None:
    process, target, ranks = started(composed, start, 12_800_000)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "process 1 of the run: killed by SIGKILL" in said
    assert ended(ranks)
    assert read_state(target.folder).reason == "process 1 of the run: killed by SIGKILL"


@pytest.mark.slow
def test_a_stopped_run_of_several_processes_continues(composed: Compose, start: Start) -> None:
    process, target, ranks = started(composed, start, 12_800_000)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert "stopped by" in said
    assert ended(ranks)
    assert read_state(target.folder).status is Status.interrupted
    assert checkpoint_steps(target.folder)[-1] >= 8


@pytest.mark.slow
def test_a_process_that_raises_is_heard(composed: Compose, script: Script, tmp_path: Path) -> None:
    """The second process fails in its fifth step by a fault of its own; the first only sees the connection close."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    from shapelaw.training.module import RunModule\n"
        "    step = RunModule.training_step\n"
        "    def broken(self, batch, index):\n"
        "        if index == 5:\n"
        "            raise RuntimeError('the cooling of this node has failed')\n"
        "        step(self, batch, index)\n"
        "    RunModule.training_step = broken\n"
    )
    began = time.monotonic()
    done = script("train.py", "tracker=none", *COMMON, *AXONN, PYTHONPATH=str(hook))
    assert done.returncode != 0
    assert time.monotonic() - began < 60
    assert "process 1 of the run: RuntimeError: the cooling of this node has failed" in done.stderr
    assert "cooling" in read_state(planned(composed).folder).reason


@pytest.mark.slow
def test_a_model_of_ones_own_trains_by_ddp_as_in_one_process(composed: Compose, script: Script, tmp_path: Path) -> None:
    own = f"model={ROOT}/examples/swiglu.py:SwiGLU"
    losses = []
    for number, layout in enumerate(((), ("parallel=ddp", "devices=2"))):
        place = f"outputs_dir={tmp_path}/{number}"
        done = script("train.py", "tracker=none", *COMMON, own, *layout, place)
        assert done.returncode == 0, done.stderr
        losses.append(read_state(planned(composed, own, place).folder).val_loss)
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
