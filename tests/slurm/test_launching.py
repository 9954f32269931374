"""Sweeps on a real scheduler: submitted, left, found again; what fails, and what is refused."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from launch import counting
from omegaconf import OmegaConf
from slurm_bench import LONG, ON_SANDBOX, Bench, await_, of_program, slurm

from shapelaw.run_state import Status
from shapelaw.sweep.accounting import max_array_size
from shapelaw.sweep.slurm import POLL_SECONDS

pytestmark = ON_SANDBOX
WAIT = "hydra.launcher.wait=true"
FOUR = 4


def array_size() -> Sequence[str]:
    """At most four jobs an array: the sandbox's own MaxArraySize, or the launcher's setting where that is larger."""
    return () if max_array_size() == FOUR else (f"hydra.launcher.max_array_size={FOUR}",)


def test_submitted_left_killed_and_reattached(bench: Bench, tmp_path: Path) -> None:
    """Six runs in arrays of at most four; the launcher is killed while it waits; the same command takes up again, and
    asks the scheduler no more than once in ten seconds."""
    sweep = (*of_program(1), "shape=glob(*)", "seed=0,1", *array_size())
    launcher = bench.start(*sweep, WAIT)
    await_(lambda: len(bench.arrays()) == 2, what=bench.said.read_text)
    launcher.kill()
    launcher.wait(timeout=60)
    again = bench.run(*sweep, WAIT, **counting(tmp_path))
    assert again.returncode == 0, again.stderr
    assert re.search(r"6 runs: .*; 0 submitted now", again.stderr)
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert {program for program, _ in calls} == {"sacct"}
    assert len(calls) > 1, "it waited for its runs"
    assert min(np.diff([float(second) for _, second in calls])) > POLL_SECONDS - 0.5
    assert bench.statuses() == [Status.finished] * 6
    assert {state.attempts for state in bench.states.values()} == {1}
    assert bench.table().groupby("run").size().tolist() == [20] * 6
    assert sorted(len(bench.accounted(array, "JobID")) for array in bench.arrays()) == [2, 4]
    last = bench.run(*sweep)
    assert last.returncode == 0, last.stderr
    assert "6 runs: 6 finished; 0 submitted now" in last.stderr


def test_two_launchers_at_once_submit_every_run_once(bench: Bench) -> None:
    """And branches sent together with what they continue start when its checkpoint is there."""
    sweep = (*of_program(0.1), "shape=16x1,16x2", "cooldown=none,linear10", "cooldown.from_tokens=2048,2560")
    launchers = [bench.start(*sweep) for _ in range(2)]
    codes = [launcher.wait(timeout=LONG) for launcher in launchers]
    said = bench.said.read_text()
    assert codes == [0, 0], said
    assert sorted(re.findall(r"(\d+) submitted now", said)) == ["0", "6"]
    assert len(bench.arrays()) == 3, "the runs, their first branches, their second branches"
    await_(bench.finished(6), what=lambda: bench.states)
    assert {state.attempts for state in bench.states.values()} == {1}
    rows = bench.table()
    ends = rows.groupby(["width", "depth", "run"]).tokens.max().groupby(["width", "depth"]).apply(sorted)
    assert ends.tolist() == [[17 * 128, 20 * 128, 21 * 128]] * 2
    began = {name: min(bench.accounted(bench.job_of(name), "Start")) for name in bench.states}
    ended = {name: max(bench.accounted(bench.job_of(name), "End")) for name in bench.states}
    parents = {name: parent_of(bench, name) for name in bench.states}
    assert sum(parent is None for parent in parents.values()) == 2
    assert all(ended[parent] <= began[name] for name, parent in parents.items() if parent)


def parent_of(bench: Bench, name: str) -> str | None:
    """The folder of the run that a branch continues: the hot run of its shape."""
    config = OmegaConf.load(bench.folders[name] / "config.yaml")
    if not config.cooldown.fraction:
        return None
    configs = {other: OmegaConf.load(folder / "config.yaml") for other, folder in bench.folders.items()}
    return next(o for o, c in configs.items() if c.shape == config.shape and not c.cooldown.fraction)


def test_a_cancelled_run_is_seen_and_submitted_again(bench: Bench) -> None:
    """scancel: a launcher that watches says so within 30 s; the same command submits that run again, and only that."""
    bench = replace(bench, slow_until=99)
    sweep = ("shape=16x1", "lr_base=5,2.5", "tokens=512000", "data.max_epochs=1000", "tracker=none")
    launcher = bench.start(*sweep, WAIT)
    await_(bench.steps(1, runs=2), what=bench.said.read_text)
    planned = next(iter(bench.states))
    slurm("scancel", bench.job_of(planned))
    cancelled = time.monotonic()
    await_(lambda: "SLURM: CANCELLED" in bench.said.read_text(), 30, what=bench.said.read_text)
    assert time.monotonic() - cancelled < 30
    assert f"its log: {bench.folders[planned] / 'log.txt'}" in bench.said.read_text()
    launcher.kill()
    launcher.wait(timeout=60)
    await_(lambda: bench.states[planned].status is Status.interrupted, 60)
    stopped_at = bench.states[planned].step
    assert stopped_at > 0
    again = bench.run(*sweep)
    assert again.returncode == 0, again.stderr
    assert re.search(r"2 runs: 1 queued, 1 running; 1 submitted now", again.stderr), again.stderr
    await_(lambda: bench.states[planned].status is Status.running and bench.states[planned].step > stopped_at)
    assert bench.states[planned].attempts == 2


def test_the_first_failed_run_can_stop_the_others(bench: Bench) -> None:
    """One clear error with the reason and the end of its log; the jobs that are left are cancelled."""
    bench = replace(bench, slow_until=99)
    sweep = (
        "shape=16x1",
        "lr_base=1e30,5",
        "tokens=512000",
        "data.max_epochs=1000",
        "optim.clip_norm=0",
        "tracker=none",
    )
    done = bench.run(*sweep, WAIT, "hydra.launcher.stop_on_failure=true", "hydra.launcher.max_attempts=1")
    assert done.returncode == 1
    assert "the run diverged at step" in done.stderr
    assert "1 jobs cancelled, because hydra.launcher.stop_on_failure is set" in done.stderr
    assert "2 of 2 runs failed, after hydra.launcher.max_attempts=1" in done.stderr
    assert slurm("squeue", "-h", "-j", ",".join(bench.arrays()), "-t", "PENDING,RUNNING") == ""


def test_packed_runs_share_a_job(bench: Bench, tmp_path: Path) -> None:
    """One of them fails, which does not stop the other; odd characters of values and paths come through as they are."""
    odd = "a 'quoted' $(touch pwned) `id`; \"two\"\nlines"
    bench = replace(bench, outputs=tmp_path / 'it\'s an "odd" $HOME `place`')
    override = "data.path='" + odd.replace("'", "\\'") + "'"
    sweep = ("shape=16x1", "lr_base=1e30,5", "optim.clip_norm=0", "tracker=none", override, "hydra.launcher.pack=2")
    done = bench.run(*sweep, WAIT)
    assert done.returncode == 1
    assert "the run diverged at step" in done.stderr, done.stderr
    assert "1 of 2 runs failed; run the same command again" in done.stderr
    assert sorted(status.value for status in bench.statuses()) == ["failed", "finished"]
    (array,) = bench.arrays()
    assert bench.accounted(array, "JobID") == [f"{array}_0"]
    assert {OmegaConf.load(folder / "config.yaml").data.path for folder in bench.folders.values()} == {odd}
    assert not list(Path().glob("pwned"))


def test_two_nodes_train_one_run(bench: Bench) -> None:
    """Two tasks on two nodes by gloo: the same losses as one process, up to the order of sums."""
    planned = ("shape=16x1", "lr_base=5", "accelerator=cpu", "tracker=none")
    bench.run_here(*planned)
    alone = bench.only
    shutil.rmtree(bench.outputs)
    two = bench.run(*planned, "resources.nodes=2", WAIT)
    assert two.returncode == 0, two.stderr + "".join(p.read_text() for p in bench.outputs.rglob("*log*") if p.is_file())
    assert bench.only.step == alone.step == 20
    assert bench.only.val_loss == pytest.approx(alone.val_loss, rel=1e-5)
    assert bench.accounted(bench.arrays()[0], "NNodes") == ["2"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("hydra.launcher.partition=nowhere", "invalid partition specified: nowhere"),
        ("hydra.launcher.account=nobody", "Invalid account or account/partition combination specified"),
        ("resources.nodes=64", "Requested node configuration is not available"),
        ("hydra.launcher.gpus_per_node=9", "Requested node configuration is not available"),
        ("+hydra.launcher.sbatch.nonsense=1", "unrecognized option '--nonsense=1'"),
    ],
)
def test_what_the_site_refuses_is_said_before_anything_is_queued(bench: Bench, override: str, words: str) -> None:
    """In sbatch's own words."""
    sizes = ("batch_tokens=1024", "tokens=2048", "resources.tasks_per_node=1")
    done = bench.run("shape=16x1", "lr_base=5,2.5", "tracker=none", *sizes, override)
    assert done.returncode == 2, done.stderr
    assert "is refused, nothing was queued: sbatch:" in done.stderr
    assert words in done.stderr
    assert bench.arrays() == []
    assert bench.states == {}


def test_a_branch_without_its_checkpoint_is_refused_with_those_that_exist(bench: Bench) -> None:
    bench.run_here("shape=16x1", "tracker=none", "checkpoint.keep=newest", "checkpoint.newest=1")
    done = bench.run("shape=16x1", "tracker=none", "cooldown=linear10", "cooldown.from_tokens=2048,2560")
    assert done.returncode == 2
    assert "cooldown.from_tokens=2,048" in done.stderr
    assert "it has: 2,560." in done.stderr
    assert bench.arrays() == []
