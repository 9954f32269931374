"""What the tests on a real scheduler share: a folder of outputs, the commands that work on it, ways to wait."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

from prepared import Prepared
from shapelaw.run_state import State, Status, read_state
from shapelaw.tracking import read_runs
from support import ROOT, TINY

REQUIRED = os.environ.get("SHAPELAW_REQUIRE_SLURM") == "1"
"""Where this is set a missing scheduler fails the tests instead of skipping them."""
SANDBOX = Path("/var/lib/slurm_sandbox")
UP = (str(ROOT / "scripts" / "slurm_sandbox.sh"), "up")
LONG = 300.0
HOLD_SECONDS = 10.0
DOOMED, CONTESTED = "c2", "c4"
"""Nodes of the sandbox that the runs which are disturbed have for themselves."""
Done = subprocess.CompletedProcess[str]
EVERY = 8
"""Steps between two checkpoints of the runs that are disturbed."""
RUN = (
    "shape=16x1",
    "lr_base=5",
    f"tokens={400 * 128}",
    f"validation.every_tokens={20 * 128}",
    f"checkpoint.every_tokens={EVERY * 128}",
    "micro_batch_sequences=2",  # four a step
)
LIMIT = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_seconds=1")


TRAIN = ROOT / "train.py"
OF_LAUNCHERS = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
"""Variables of launchers, and by sbatch of their jobs."""
PROGRAM = ROOT / "tests" / "command" / "program.py"
FIELDS = (
    "width={shape.width} tokens={tokens} batch={batch_tokens} out={folder} metrics={metrics} parent={parent} "
    "first={first_tokens} seed={seed}"
)


def of_program(pause: float) -> tuple[str, ...]:
    """Runs of a program, which start in a fraction of the time: 20 validations, so many seconds apart."""
    return "trainer=command", f'trainer.command="{sys.executable} {PROGRAM} {FIELDS} pause={pause}"'


def slurm(*words: str) -> str:
    """Output of one of SLURM's programs."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def sandbox_answers() -> bool:
    """Whether scripts/slurm_sandbox.sh is up on this machine."""
    try:
        return SANDBOX.exists() and bool(slurm("sinfo"))
    except (OSError, AssertionError, subprocess.TimeoutExpired):
        return False


ON_SANDBOX = [
    pytest.mark.slurm,
    pytest.mark.skipif(not REQUIRED and not sandbox_answers(), reason="no SLURM here: scripts/slurm_sandbox.sh up"),
]


@dataclass(frozen=True)
class Bench:
    """A folder of outputs and the commands that work on it.

    Args:
        outputs: the folder.
        corpora: where the corpus lies.
        slow_until: jobs sleep in every step until they were requeued so often (slow_task); 0 is never.
        exclude: nodes that its jobs stay away from.
        launchers: what those are forked from that nobody disturbs.
    """

    outputs: Path
    corpora: Path
    launchers: Prepared
    slow_until: int = 0
    exclude: str = f"{DOOMED},{CONTESTED}"

    def words(self, *overrides: str) -> list[str]:
        """Of a sweep on SLURM."""
        launcher = ("hydra/launcher=slurm", f"+hydra.launcher.sbatch.exclude='{self.exclude}'")
        return ["-m", *launcher, *overrides, f"data_dir={self.corpora}"]

    def command(self, *overrides: str) -> list[str]:
        """A sweep on SLURM."""
        slow = ("-c", "import slow_task; slow_task.main()") if self.slow_until else ()
        return [sys.executable, *slow, str(TRAIN), *self.words(*overrides)]

    @property
    def environment(self) -> dict[str, str]:
        """Of the launcher, and by sbatch of the jobs."""
        return {
            **os.environ,
            **OF_LAUNCHERS,
            "SHAPELAW_OUTPUTS": str(self.outputs),
            "SHAPELAW_SUITE": str(TINY),
            "SLOW_UNTIL_RESTART": str(self.slow_until),
        }

    def run(self, *overrides: str, **environment: str) -> Done:
        """Run a launcher to its end."""
        env = self.environment | environment
        if not self.slow_until:
            return self.launchers.run(TRAIN, self.words(*overrides), env, LONG)
        command = self.command(*overrides)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG, env=env)

    def run_here(self, *overrides: str) -> None:
        """Train one run without a scheduler."""
        self.launchers.run(TRAIN, [*overrides, f"data_dir={self.corpora}"], self.environment, LONG).check_returncode()

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        """Start a launcher, which writes what it says to said.txt."""
        self.outputs.mkdir(parents=True, exist_ok=True)
        with self.said.open("a") as said:
            return subprocess.Popen(self.command(*overrides), stderr=said, text=True, env=self.environment)

    @property
    def said(self) -> Path:
        """What the started launchers say."""
        return self.outputs / "said.txt"

    @property
    def folders(self) -> dict[str, Path]:
        """The runs' folders by name."""
        root = self.outputs / "runs" / "tiny"
        return {path.name: path for path in sorted(root.iterdir())} if root.exists() else {}

    @property
    def states(self) -> dict[str, State]:
        """The runs' states by name."""
        return {name: read_state(folder) for name, folder in self.folders.items()}

    @property
    def only(self) -> State:
        """The state of the one run there is."""
        (state,) = self.states.values()
        return state

    def statuses(self) -> list[Status]:
        """The runs' states in a word."""
        return [state.status for state in self.states.values()]

    def finished(self, runs: int) -> Callable[[], bool]:
        """Whether so many runs are there and finished."""
        return lambda: self.statuses() == [Status.finished] * runs

    def steps(self, least: int, runs: int = 1) -> Callable[[], bool]:
        """Whether so many runs are under way and have done at least so many steps."""
        return lambda: sum(s.step >= least and s.status is Status.running for s in self.states.values()) == runs

    def arrays(self) -> list[str]:
        """Ids of the arrays submitted."""
        return [path.read_text() for path in (self.outputs / "slurm").glob("*/job_id")]

    def job_of(self, planned: str) -> str:
        """Id of a run's job."""
        record = json.loads((self.folders[planned] / "job.json").read_text())
        return f"{(Path(record['batch']) / 'job_id').read_text()}_{record['task']}"

    def accounted(self, job: str, field: str) -> list[str]:
        """What the accounting says of a job or array: a line for each job, and each time it was started."""
        return slurm("sacct", "-D", "-X", "-n", "-P", "-j", job, "-o", field).split("\n")[:-1]

    def table(self) -> pd.DataFrame:
        """The runs table, once every job has ended: a run is finished shortly before its last metrics are delivered."""
        jobs = ("squeue", "-h", "-j", ",".join(self.arrays()))
        await_(lambda: not self.arrays() or slurm(*jobs) == "")
        return read_runs(f"sqlite:///{self.outputs}/mlflow.db", "tiny")

    def cancel(self) -> None:
        """End what is left of its jobs."""
        for array in self.arrays():
            subprocess.run(["scancel", array], check=False, timeout=60)


@dataclass(frozen=True)
class Disturbed:
    """The same run three times, each with its own disturbance.

    Args:
        limited: has a time limit of a minute; half a second a step until its third requeue.
        preempted: its node is taken by a job of a higher partition.
        lost: its node's daemon and its own processes are killed.
        lost_steps: steps that the lost one had done since its newest checkpoint.
    """

    limited: Bench
    preempted: Bench
    lost: Bench
    lost_steps: int


def bench_in(folder: Path, corpora: Path, launchers: Prepared, **settings: object) -> Bench:
    """A bench whose outputs lie in a folder."""
    return replace(Bench(folder / "outputs", corpora, launchers), **settings)  # type: ignore[arg-type]


def await_(condition: Callable[[], bool], seconds: float = LONG, what: Callable[[], object] = lambda: "") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s; {what()}\n{slurm('squeue', '-a')}\n{slurm('sinfo')}"
        time.sleep(0.5)


class Hurry(threading.Thread):
    """After a requeue SLURM holds a job back for two minutes; this lets it go after ten seconds, in which its former
    processes are gone."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.since: dict[str, float] = {}
        self.commands = {name: shutil.which(name) or name for name in ("squeue", "scontrol")}  # tests change PATH
        self.environment = dict(os.environ)  # a copy: the tests' own thread changes it, in the midst of a start too

    def run(self) -> None:
        """Until `ended` is set."""
        while not self.ended.wait(2.0):
            held = {job for job, reason in self._pending() if reason == "BeginTime"}
            self.since = {job: self.since.get(job, time.monotonic()) for job in held}
            for job in held:
                if time.monotonic() - self.since[job] > HOLD_SECONDS:
                    subprocess.run(
                        [self.commands["scontrol"], "update", f"jobid={job}", "starttime=now"],
                        check=False,
                        timeout=60,
                        env=self.environment,
                    )

    def _pending(self) -> list[tuple[str, str]]:
        words = [self.commands["squeue"], "-h", "-r", "-t", "PENDING", "-o", "%i %r"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env=self.environment)
        return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in done.stdout.splitlines()]


def scheduler_is_needed() -> None:
    """Fail, rather than skip, where the sandbox must be there."""
    assert shutil.which("sbatch"), "SHAPELAW_REQUIRE_SLURM=1, and there is no sbatch"
    assert sandbox_answers(), f"SHAPELAW_REQUIRE_SLURM=1, and the sandbox does not answer: {UP[0]} up"
