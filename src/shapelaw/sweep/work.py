"""The program of a cluster job: `python -m shapelaw.sweep.work BATCH` under srun.

The work itself handles signals from its first step to its last. Before that, a signal simply ends the process. If a job is
interrupted while SLURM still lists it as running, it is requeued and continues from its checkpoint.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from shapelaw.collector import collect_seldom
from shapelaw.errors import Damaged, Interrupted, UserError
from shapelaw.files import as_record, read_sealed, write_sealed
from shapelaw.run_state import await_lock, read_state
from shapelaw.sweep.job_process import log_to
from shapelaw.sweep.records import identities_of, read_work
from shapelaw.terminal import prepare_streams, write_error

DONE, FAILED, INTERRUPTED = 0, 1, 75
SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
STALLS = 4
"""Interruptions in a row without a step between them, after which a run counts as failed."""


@dataclass(frozen=True)
class _Interruptions:
    """The step of a run's last interruption, and the number of interruptions in a row at it."""

    step: int = -1
    stalls: int = 0


class Stopped(KeyboardInterrupt):
    """A signal that came before the work handled signals itself."""


def main(arguments: list[str]) -> int:
    """Carry out the runs of this job; the exit code."""
    collect_seldom()
    prepare_streams()
    batch = Path(arguments[0])
    task = int(os.environ["SLURM_ARRAY_TASK_ID"])
    identities = arguments[1:] or identities_of(batch, task)
    code = run_one(batch, identities[0]) if len(identities) == 1 else _side_by_side(batch, identities)
    if code != INTERRUPTED or len(arguments) > 1:
        return code
    if int(os.environ.get("SLURM_PROCID", "0")):
        return DONE  # the first process reports for all; a failure exit here would end it too early
    return requeue(batch, identities)


def run_one(batch: Path, identity: str) -> int:
    """Carry out one run in this process; done, failed or interrupted."""
    first = int(os.environ.get("SLURM_PROCID", "0")) == 0
    try:
        work = read_work(batch, identity)
        if first:
            log_to(work.folder)
        for number in SIGNALS:
            signal.signal(number, _stop)
        if first:
            await_lock(work.folder)
        work.task(work.config)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Interrupted as error:
        _say(str(error))
        return INTERRUPTED
    except UserError as error:
        _say(str(error))
        return FAILED
    except Exception:
        traceback.print_exc()
        return FAILED
    return DONE


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(signal.Signals(number).name)


def _side_by_side(batch: Path, identities: list[str]) -> int:
    """Carry out several runs at once, each in its own process; signals are passed on."""
    command = [sys.executable, "-u", "-m", "shapelaw.sweep.work", str(batch)]
    runs = [subprocess.Popen([*command, identity]) for identity in identities]

    def pass_on(number: int, frame: FrameType | None) -> None:
        for planned in runs:
            planned.send_signal(number)

    for number in SIGNALS:
        signal.signal(number, pass_on)
    codes = [planned.wait() for planned in runs]
    if INTERRUPTED in codes:
        return INTERRUPTED
    return FAILED if any(codes) else DONE


def requeue(batch: Path, identities: list[str]) -> int:
    """Ask SLURM to start this job again, unless SLURM is ending it for good; returns the exit code."""
    folders = [read_work(batch, identity).folder for identity in identities]
    if all([_stalls(folder) >= STALLS for folder in folders]):
        _say(f"interrupted {STALLS} times without a step in between; give a longer resources.timeout_min")
        return FAILED
    job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if _scontrol("show", "job", "-o", job).find("JobState=RUNNING") < 0:
        return INTERRUPTED  # cancelled, or SLURM requeues it itself
    _scontrol("requeue", job)
    return INTERRUPTED


def _stalls(folder: Path) -> int:
    """Interruptions in a row of a run without a step between them, including this one."""
    path, step = folder / "interruptions.json", read_state(folder).step
    before = _interrupted_before(path)
    now = _Interruptions(step, before.stalls + 1 if before.step == step else 0)
    write_sealed(path, asdict(now))
    return now.stalls


def _interrupted_before(path: Path) -> _Interruptions:
    """The record of the last interruption; a damaged one is reported and ignored, and the run goes on."""
    try:
        return as_record(_Interruptions, read_sealed(path), path) if path.exists() else _Interruptions()
    except Damaged as error:
        _say(str(error))
        return _Interruptions()


def _scontrol(*words: str) -> str:
    done = subprocess.run(["scontrol", *words], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        _say(f"scontrol {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _say(text: str) -> None:
    write_error(text + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
