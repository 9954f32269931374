"""Real sweeps of the tiny suite: real processes, a real MLflow database, a launcher really killed."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from shapelaw.run_state import State, Status, read_state
from shapelaw.tracking import client, read_runs
from shapelaw.verbs.train import MLFLOW, MODEL, PROGRAM
from support import Start, Sweep

SWEEP = ("-m", "shape=glob(*)", "lr_base=5,2.5")


def states(outputs: Path) -> dict[str, State]:
    return {folder.name: read_state(folder) for folder in (outputs / "runs" / "tiny").iterdir()}


def table(outputs: Path) -> pd.DataFrame:
    return read_runs(f"sqlite:///{outputs}/mlflow.db", "tiny")


def test_a_sweep_trains_every_run_once_and_nests_it(sweep: Sweep, outputs: Path) -> None:
    done = sweep(*SWEEP)
    assert done.returncode == 0, done.stderr
    assert "6 runs to do" in done.stderr
    assert [state.status for state in states(outputs).values()] == [Status.finished] * 6
    rows = table(outputs)
    assert rows.groupby("run").size().tolist() == [5] * 6
    assert sorted(zip(rows.width, rows.depth, rows.lr_base, strict=True))[:2] == [(16, 1, 2.5)] * 2
    assert set(zip(rows.width, rows.depth, rows.lr_base, strict=True)) == {
        (w, d, lr) for w, d in ((16, 1), (16, 2), (32, 1)) for lr in (5.0, 2.5)
    }
    store = client(f"sqlite:///{outputs}/mlflow.db")
    runs = store.search_runs([store.get_experiment_by_name("tiny").experiment_id])
    (parent,) = (run.info for run in runs if run.data.tags["shapelaw.kind"] == "sweep")
    assert len(runs) == 7
    assert {run.data.tags.get("mlflow.parentRunId") for run in runs} == {parent.run_id, None}
    trained = next(run for run in runs if run.data.tags["shapelaw.kind"] == "train")
    assert {"shapelaw.corpus", "shapelaw.git_commit", "shapelaw.host", "shapelaw.identity"} <= set(trained.data.tags)
    assert {"train/loss", "train/lr", "val/loss", "speed/tokens_per_second", "cost/flops"} <= set(trained.data.metrics)
    assert [file.path for file in store.list_artifacts(trained.info.run_id)] == ["config.yaml"]

    store.update_run(parent.run_id, status="RUNNING")  # as a launcher leaves it that was killed, or did not stay
    again = sweep(*SWEEP)
    assert again.returncode == 0, again.stderr
    assert "0 runs to do; 6 already finished, skipped" in again.stderr
    assert store.get_run(parent.run_id).info.status == "FINISHED"
    assert [state.attempts for state in states(outputs).values()] == [1] * 6


def test_a_killed_sweep_is_finished_by_the_same_command(outputs: Path, start: Start, sweep: Sweep) -> None:
    """SIGKILL to the launcher: its runs notice, checkpoint and stop; the rerun trains only what is missing."""
    launcher = start("train.py", *SWEEP, "tokens=12800")
    runs = outputs / "runs" / "tiny"
    _wait_for(lambda: runs.exists() and Status.finished in {state.status for state in states(outputs).values()})
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    _wait_for(lambda: Status.running not in {state.status for state in states(outputs).values()})
    finished = {name: state for name, state in states(outputs).items() if state.status is Status.finished}
    assert 0 < len(finished) < 6

    rerun = sweep(*SWEEP, "tokens=12800")
    assert rerun.returncode == 0, rerun.stderr
    assert f"{len(finished)} already finished, skipped" in rerun.stderr
    after = states(outputs)
    assert [state.status for state in after.values()] == [Status.finished] * 6
    assert all(after[name] == state for name, state in finished.items())
    rows = table(outputs)
    assert rows.groupby("run").size().tolist() == [25] * 6  # 100 steps, a validation every 4: none lost, none doubled
    assert rows.groupby("run")["mlflow_run_id"].nunique().tolist() == [1] * 6


@pytest.mark.parametrize("module", [*MODEL, *PROGRAM, *MLFLOW])
def test_what_the_server_of_processes_imports_is_there(module: str) -> None:
    """It passes over what it cannot import."""
    assert importlib.import_module(module)


def test_one_failing_run_does_not_stop_the_others(sweep: Sweep, outputs: Path) -> None:
    done = sweep("-m", "shape=16x1", "lr_base=5,1e30,2.5", "optim.clip_norm=0")
    assert done.returncode == 1
    assert "diverged" in done.stderr
    assert "log.txt" in done.stderr
    assert "1 of 3 runs failed" in done.stderr
    assert sorted(state.status.value for state in states(outputs).values()) == ["failed", "finished", "finished"]


def test_branches_wait_for_the_run_they_continue(sweep: Sweep, outputs: Path) -> None:
    done = sweep("-m", "shape=16x1", "tokens=12800", "cooldown=linear10,none")
    assert done.returncode == 0, done.stderr
    rows = table(outputs)
    assert rows.groupby("cooldown")["tokens"].max().to_dict() == {0.0: 12800, 0.1: 109 * 128}
    cooled = rows[rows.cooldown > 0]
    assert cooled[cooled.excluded == ""]["tokens"].tolist() == [109 * 128]


def test_a_branch_of_a_failed_run_fails_with_it(sweep: Sweep, outputs: Path) -> None:
    failing = ("shape=16x1", "tokens=12800", "lr_base=1e30", "optim.clip_norm=0")
    done = sweep("-m", *failing, "cooldown=linear10,none", "hydra.launcher.workers=2")
    assert done.returncode == 1
    assert "diverged" in done.stderr
    assert re.search(r"the run it continues \(\w+\) failed", done.stderr), done.stderr
    assert len(states(outputs)) == 1, "the branch is not started, though there is a worker for it"
    assert "2 of 2 runs failed" in done.stderr


def test_no_more_runs_run_at_once_than_workers(sweep: Sweep, outputs: Path) -> None:
    done = sweep(*SWEEP, "hydra.launcher.workers=1", "tracker=none")
    assert done.returncode == 0, done.stderr
    folders = list((outputs / "runs" / "tiny").iterdir())
    spans = sorted(((f / "config.yaml").stat().st_mtime, (f / "state.json").stat().st_mtime) for f in folders)
    assert len(spans) == 6
    assert all(ended <= begun for (_, ended), (begun, _) in itertools.pairwise(spans))


def test_paired_values_advance_together(sweep: Sweep, outputs: Path) -> None:
    done = sweep("-m", "shape=16x1,32x1", "lr_base=5,2.5", "hydra.sweeper.pair=[[shape,lr_base]]")
    assert done.returncode == 0, done.stderr
    rows = table(outputs)
    assert set(zip(rows.width, rows.lr_base, strict=True)) == {(16, 5.0), (32, 2.5)}


def _wait_for(condition: object, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_sweep_with_130(outputs: Path, start: Start) -> None:
    launcher = start("train.py", *SWEEP, "tokens=51200")
    runs = outputs / "runs" / "tiny"
    _wait_for(lambda: runs.exists() and Status.running in {state.status for state in states(outputs).values()})
    launcher.send_signal(signal.SIGINT)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 130
    assert "run the same command again" in said
    assert Status.running not in {state.status for state in states(outputs).values()}
