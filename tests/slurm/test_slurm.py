"""Sweeps on a real scheduler: the four-node sandbox of scripts/slurm_sandbox.sh, or whatever cluster this machine belongs to.

Slow things overlap: the sweep that outlives its time limit is submitted first and looked at last.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

from shapelaw.cell import State, Status, checkpoint_steps, read_state
from shapelaw.tracking import read_runs
from support import ROOT, TINY

REQUIRED = os.environ.get("SHAPELAW_REQUIRE_SLURM") == "1"
"""Where this is set a missing scheduler fails the tests instead of skipping them."""
LAUNCH = ("-m", "hydra/launcher=slurm")
LONG = 300.0
SANDBOX = Path("/var/lib/slurm_sandbox")
Done = subprocess.CompletedProcess[str]


def scheduler_answers() -> bool:
    try:
        return subprocess.run(["sinfo"], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


pytestmark = [
    pytest.mark.slurm,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(
        not REQUIRED and not (shutil.which("sbatch") and scheduler_answers()),
        reason="no SLURM here: scripts/slurm_sandbox.sh up",
    ),
]


def slurm(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Bench:
    """A folder of outputs and the commands that work on it."""

    outputs: Path
    corpora: Path

    def command(self, *overrides: str) -> list[str]:
        return [sys.executable, str(ROOT / "train.py"), *LAUNCH, *overrides, f"data_dir={self.corpora}"]

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "SHAPELAW_OUTPUTS": str(self.outputs),
            "SHAPELAW_SUITE": str(TINY),
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *overrides: str) -> Done:
        command = self.command(*overrides)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG, env=self.environment)

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command(*overrides), stderr=subprocess.PIPE, text=True, env=self.environment)

    @property
    def states(self) -> dict[str, State]:
        folder = self.outputs / "runs" / "tiny"
        return {path.name: read_state(path) for path in sorted(folder.iterdir())} if folder.exists() else {}

    def statuses(self) -> list[Status]:
        return [state.status for state in self.states.values()]

    def arrays(self) -> list[str]:
        return [path.read_text() for path in (self.outputs / "slurm").glob("*/job_id")]

    def job_of(self, cell: str) -> str:
        import json

        record = json.loads((self.outputs / "runs" / "tiny" / cell / "job.json").read_text())
        return f"{(Path(record['batch']) / 'job_id').read_text()}_{record['task']}"

    def table(self) -> pd.DataFrame:
        return read_runs(f"sqlite:///{self.outputs}/mlflow.db", "tiny")

    def all_finished(self, cells: int) -> Callable[[], bool]:
        def ready() -> bool:
            hurry(self.arrays())
            return self.statuses() == [Status.finished] * cells

        return ready


PENDING_SINCE: dict[str, float] = {}


def hurry(arrays: list[str]) -> None:
    """After a requeue SLURM holds a job back for two minutes; here ten seconds, in which its former processes are gone."""
    if arrays:
        done = subprocess.run(
            ["squeue", "-h", "-r", "-t", "PENDING", "-j", ",".join(arrays), "-o", "%i %r"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        for line in done.stdout.splitlines():
            job, reason = line.split(maxsplit=1)
            if reason != "BeginTime":
                PENDING_SINCE.pop(job, None)
            elif time.monotonic() - PENDING_SINCE.setdefault(job, time.monotonic()) > 10:
                PENDING_SINCE.pop(job)
                subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], check=False, timeout=60)


def await_(condition: Callable[[], bool], seconds: float = LONG, what: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s; {what()}\n{slurm('squeue', '-a')}"
        time.sleep(0.5)


@pytest.fixture
def bench(tmp_path: Path, corpora: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "outputs", corpora)
    yield bench
    with contextlib.suppress(OSError):
        for array in bench.arrays():
            subprocess.run(["scancel", array], check=False, timeout=60)


@pytest.fixture(scope="module")
def short_of_time(tmp_path_factory: pytest.TempPathFactory, corpora: Path) -> Iterator[Bench]:
    """A run that needs several jobs of one minute each; it goes on while the other tests run."""
    bench = Bench(tmp_path_factory.mktemp("short") / "outputs", corpora)
    slow = [sys.executable, "-c", "import slow_task; slow_task.main()"]
    environment = bench.environment | {"PYTHONPATH": str(Path(__file__).parent)}
    command = slow + bench.command(*SHORT, *LIMIT)[1:]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG, env=environment)
    assert done.returncode == 0, done.stderr
    yield bench
    for array in bench.arrays():
        subprocess.run(["scancel", array], check=False, timeout=60)


STEPS = 6400  # at least 160 s of training, by the slow task, in jobs of less than 60
SHORT = (
    "shape=16x1",
    "lr_base=5",
    f"tokens={STEPS * 128}",
    f"validation.every_tokens={160 * 128}",
    f"checkpoint.every_tokens={1000 * 128}",
    "data.max_epochs=1000",
)
LIMIT = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_seconds=1")


@pytest.mark.usefixtures("short_of_time")
def test_submitted_left_killed_and_reattached(bench: Bench) -> None:
    """Twelve cells in arrays of at most five; the launcher is killed while it waits; the same command takes up again."""
    sweep = ("shape=glob(*)", "lr_base=5,2.5,1,0.5", "hydra.launcher.max_array_size=5")
    launcher = bench.start(*sweep, "hydra.launcher.wait=true")
    await_(lambda: len(bench.arrays()) == 3)
    launcher.send_signal(signal.SIGKILL)
    launcher.communicate(timeout=60)
    assert len(bench.arrays()) == 3
    again = bench.run(*sweep)
    assert again.returncode == 0, again.stderr
    assert re.search(r"12 cells: .*; 0 submitted now", again.stderr)
    final = bench.run(*sweep, "hydra.launcher.wait=true")
    assert final.returncode == 0, final.stderr
    assert bench.statuses() == [Status.finished] * 12
    assert {state.attempts for state in bench.states.values()} == {1}
    rows = bench.table()
    assert rows.groupby("run").size().tolist() == [5] * 12
    sizes = {a: len(slurm("sacct", "-X", "-n", "-P", "-j", a, "-o", "JobID").split()) for a in bench.arrays()}
    assert sorted(sizes.values()) == [2, 5, 5]
    last = bench.run(*sweep)
    assert "12 cells: 12 finished; 0 submitted now" in last.stderr


def test_two_launchers_at_once_submit_every_cell_once(bench: Bench) -> None:
    """And branches sent together with what they continue start when its checkpoint is there."""
    sweep = ("shape=16x1,16x2", "cooldown=none,linear10", "cooldown.from_tokens=2048,2560")
    launchers = [bench.start(*sweep) for _ in range(2)]
    said = [launcher.communicate(timeout=LONG)[1] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], said
    counts = sorted(int(re.search(r"(\d+) submitted now", text)[1]) for text in said)  # type: ignore[index]
    assert counts == [0, 6]
    assert len(bench.arrays()) == 3, "the runs, their first branches, their second branches"
    await_(bench.all_finished(6), what=lambda: bench.states)
    assert {state.attempts for state in bench.states.values()} == {1}
    rows = bench.table()
    ends = rows.groupby(["width", "depth", "run"]).tokens.max().groupby(["width", "depth"]).apply(sorted)
    assert ends.tolist() == [[17 * 128, 20 * 128, 21 * 128]] * 2


def test_a_cancelled_cell_is_seen_and_submitted_again(bench: Bench) -> None:
    sweep = ("shape=16x1", "lr_base=5,2.5", "tokens=1280000", "data.max_epochs=1000", "tracker=none")
    assert bench.run(*sweep).returncode == 0
    await_(lambda: bench.statuses().count(Status.running) == 2 and min(s.step for s in bench.states.values()) > 0)
    cell = next(iter(bench.states))
    slurm("scancel", bench.job_of(cell))
    cancelled = time.monotonic()
    await_(lambda: bench.states[cell].status is not Status.running, 30)
    await_(lambda: "CANCELLED" in slurm("sacct", "-X", "-n", "-P", "-j", bench.job_of(cell), "-o", "State"), 30)
    again = bench.run(*sweep, "hydra.launcher.max_attempts=1")
    assert time.monotonic() - cancelled < 30
    assert again.returncode == 1
    assert re.search(r"1 running, 1 failed; 0 submitted now", again.stderr), again.stderr
    assert "SLURM: CANCELLED" in again.stderr
    assert "log.txt" in again.stderr
    stopped_at = bench.states[cell].step
    assert stopped_at > 0
    again = bench.run(*sweep)
    assert again.returncode == 0, again.stderr
    assert "1 submitted now" in again.stderr
    await_(lambda: bench.states[cell].status is Status.running and bench.states[cell].step > stopped_at)
    assert bench.states[cell].attempts == 2


def test_a_failing_cell_says_why(bench: Bench) -> None:
    sweep = ("shape=16x1", "lr_base=1e30,5", "optim.clip_norm=0", "tracker=none", "hydra.launcher.wait=true")
    done = bench.run(*sweep)
    assert done.returncode == 1
    assert "the training loss is" in done.stderr
    assert "1 of 2 cells failed; run the same command again" in done.stderr
    assert sorted(status.value for status in bench.statuses()) == ["failed", "finished"]


def test_a_preempted_cell_continues(bench: Bench) -> None:
    """A job of a higher partition takes the node: checkpoint, requeue, continue."""
    sweep = (
        "shape=16x1", "lr_base=5", "tokens=2560000", "checkpoint.every_tokens=25600", "data.max_epochs=1000",
        "tracker=none", "hydra.launcher.partition=batch", "+hydra.launcher.sbatch.nodelist=c4", "resources.cpus_per_task=4",
    )  # fmt: skip
    assert bench.run(*sweep).returncode == 0
    await_(lambda: any(state.step > 0 for state in bench.states.values()))
    cell = next(iter(bench.states))
    slurm("sbatch", "-p", "urgent", "-w", "c4", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3")
    await_(lambda: bench.states[cell].status is Status.interrupted, 60)
    state = bench.states[cell]
    assert "SIGUSR2" in state.reason or "SIGTERM" in state.reason

    def continued() -> bool:
        hurry(bench.arrays())
        return bench.states[cell].status is Status.running and bench.states[cell].step > state.step

    await_(continued)
    assert bench.states[cell].attempts == 2


@pytest.mark.skipif(not SANDBOX.exists(), reason="kills a node's processes, so only a node of the sandbox")
def test_a_lost_node_costs_at_most_one_interval(bench: Bench) -> None:
    """A node's daemon and a job's processes are killed without a signal: SLURM notices, the job starts on another node from
    its newest checkpoint."""
    every = 200
    sweep = (
        "shape=16x1",
        "lr_base=5",
        "tokens=2560000",
        f"checkpoint.every_tokens={every * 128}",
        "data.max_epochs=1000",
    )
    assert bench.run(*sweep, "tracker=none").returncode == 0
    await_(lambda: any(state.step > 2 * every for state in bench.states.values()))
    (array,) = bench.arrays()
    node = slurm("squeue", "-h", "-j", array, "-o", "%N").strip()
    try:
        kill_node(node, f"slurmstepd: \\[{array}\\.", str(bench.outputs / "slurm"))
        await_(lambda: next(iter(bench.states.values())).status is Status.interrupted, 10)
        (name,), (lost,) = bench.states, bench.states.values()
        newest = checkpoint_steps(bench.outputs / "runs" / "tiny" / name)[-1]
        assert lost.step - newest <= every

        def continued() -> bool:
            hurry([array])
            return bench.states[name].status is Status.running

        await_(continued, what=lambda: slurm("sinfo"))
        assert bench.states[name].attempts == 2
        assert bench.states[name].step >= newest
        assert slurm("squeue", "-h", "-j", array, "-o", "%N").strip() != node
    finally:
        subprocess.run([str(ROOT / "scripts" / "slurm_sandbox.sh"), "up"], check=True, timeout=180, capture_output=True)


def kill_node(node: str, *patterns: str) -> None:
    """Kill a node's daemon, then what its job runs."""
    os.kill(int((SANDBOX / "run" / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)
    for pattern in patterns:
        found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
        for pid in map(int, found.stdout.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_two_nodes_train_one_cell(bench: Bench) -> None:
    """Two tasks on two nodes by gloo: the same losses as one process, up to the order of sums."""
    one = bench.run("shape=16x1", "lr_base=5", "hydra.launcher.wait=true", "tracker=none")
    assert one.returncode == 0, one.stderr
    (alone,) = bench.states.values()
    shutil.rmtree(bench.outputs)
    two = bench.run(
        "shape=16x1", "lr_base=5", "resources.nodes=2", "accelerator=cpu", "hydra.launcher.wait=true", "tracker=none"
    )
    assert two.returncode == 0, two.stderr + "".join(
        path.read_text() for path in bench.outputs.rglob("*log*") if path.is_file()
    )
    (together,) = bench.states.values()
    assert together.step == alone.step == 20
    assert together.val_loss == pytest.approx(alone.val_loss, rel=1e-5)
    nodes = slurm("sacct", "-X", "-n", "-P", "-j", bench.arrays()[0], "-o", "NNodes,NTasks")
    assert nodes.startswith("2")


def test_packed_cells_share_a_job(bench: Bench) -> None:
    done = bench.run("shape=16x1", "lr_base=5,2.5", "hydra.launcher.pack=2", "hydra.launcher.wait=true", "tracker=none")
    assert done.returncode == 0, done.stderr
    assert bench.statuses() == [Status.finished] * 2
    (array,) = bench.arrays()
    assert slurm("sacct", "-X", "-n", "-P", "-j", array, "-o", "JobID").split() == [f"{array}_0"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("hydra.launcher.partition=nowhere", "invalid partition specified: nowhere"),
        ("resources.nodes=64", "is refused, nothing was queued: sbatch:"),
        ("hydra.launcher.gpus_per_node=9", "is refused, nothing was queued: sbatch:"),
        ("hydra.launcher.pack=0", "hydra.launcher.pack=0: allowed are whole numbers from 1"),
    ],
)
def test_what_the_site_refuses_is_said_before_anything_is_queued(bench: Bench, override: str, words: str) -> None:
    sizes = ("batch_tokens=1024", "tokens=2048", "resources.tasks_per_node=1")
    done = bench.run("shape=16x1", "lr_base=5,2.5", "tracker=none", *sizes, override)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert bench.arrays() == []
    assert bench.states == {}


def test_time_limits_chain_until_the_tokens_are_done(short_of_time: Bench) -> None:
    """Three and more requeues by a real limit of one minute; the curve equals that of a run that was never stopped."""
    bench = short_of_time
    await_(bench.all_finished(1), 2 * LONG, what=lambda: bench.states)
    (state,) = bench.states.values()
    assert state.attempts >= 4
    curve = bench.table().set_index("tokens").loss
    local = replace(bench, outputs=bench.outputs.parent / "local")
    done = local.run(*SHORT, "hydra/launcher=local")
    assert done.returncode == 0, done.stderr
    pd.testing.assert_series_equal(curve, local.table().set_index("tokens").loss, check_exact=True)
