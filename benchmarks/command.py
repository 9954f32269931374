"""What a run costs of our own where a program trains it: CPU seconds and wall-clock seconds, beside the program alone.

    python benchmarks/command.py

The program is Python that writes one line. 1. In one process, a run after the other: from the plan to the finished state.
2. A sweep by the command line, one run at a time: seconds of the whole command with 21 runs less those with 1, over 20. Each
with MLflow (a SQLite file) and without a tracker; a target is 0.3 s.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = "import json, sys; open(sys.argv[1], 'a').write(json.dumps(dict(tokens=int(sys.argv[2]), loss=3.0)) + chr(10))"
TEMPLATE = f'trainer.command="{{python}} -c \\"{CODE}\\" {{metrics}} {{tokens}} {{seed}}"'
RUNS = 20
TARGET_SECONDS = 0.3


PR_SET_CHILD_SUBREAPER = 36


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds, children included, and wall-clock seconds of a piece of work."""

    def cpu() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(each.ru_utime + each.ru_stime for each in used)

    before, begun = cpu(), time.perf_counter()
    work()
    seconds = time.perf_counter() - begun
    with contextlib.suppress(
        ChildProcessError
    ):  # a sweep leaves the server that forked its jobs, which is about to end
        while True:
            os.wait()
    return cpu() - before, seconds


def sweep(runs: int, tracker: str, folder: Path) -> None:
    """Train so many runs by the command line, one at a time."""
    words = ["-m", "trainer=command", TEMPLATE, "shape=16x1", f"seed={','.join(map(str, range(runs)))}"]
    words += ["hydra.launcher.workers=1", f"tracker={tracker}"]
    environment = {**os.environ, "SHAPELAW_OUTPUTS": str(folder), "SHAPELAW_SUITE": "nano"}
    subprocess.run([sys.executable, str(ROOT / "train.py"), *words], env=environment, check=True, capture_output=True)


def alone(folder: Path) -> None:
    """The program without us."""
    for number in range(RUNS):
        subprocess.run([sys.executable, "-c", CODE, str(folder / "alone"), str(number)], check=True)


def ours(tracker: str, folder: Path, program: Sequence[float]) -> tuple[float, float]:
    """CPU seconds and seconds of a run, beyond those of its program."""
    many = spent(lambda: sweep(RUNS + 1, tracker, folder / "many"))
    one = spent(lambda: sweep(1, tracker, folder / "one"))
    cpu, wall = ((many[n] - one[n]) / RUNS - program[n] for n in (0, 1))
    return cpu, wall


def main() -> None:
    """Print the figures."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # so that no process's time is missed (Linux)
    with tempfile.TemporaryDirectory() as name:
        program = [each / RUNS for each in spent(lambda: alone(Path(name)))]
        print(f"the program alone: {program[0]:.3f} CPU s, {program[1]:.3f} s a run")
        for tracker in ("none", "mlflow"):
            cpu, wall = ours(tracker, Path(name) / tracker, program)
            print(f"tracker={tracker}: {cpu:.3f} CPU s, {wall:.3f} s a run of our own (target: {TARGET_SECONDS} s)")


if __name__ == "__main__":
    main()
