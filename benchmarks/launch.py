"""A thousand runs planned and submitted to SLURM: seconds, and calls to its programs; and a job's start to its first step.

Needs a cluster; scripts/slurm_sandbox.sh up makes one. The thousand are held and cancelled.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from shapelaw.run_state import read_state

ROOT = Path(__file__).resolve().parents[1]
RUNS = 1000
COUNTED = ("sbatch", "sacct", "squeue", "scontrol")


def main() -> None:
    """Print the figures."""
    if shutil.which("sbatch") is None or subprocess.run(["sinfo"], capture_output=True, check=False).returncode:
        print("no SLURM here: scripts/slurm_sandbox.sh up")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = (
            os.environ | counting(folder) | {"SHAPELAW_OUTPUTS": str(folder / "outputs"), "SHAPELAW_SUITE": "nano_wide"}
        )
        subprocess.run([sys.executable, ROOT / "prepare.py"], env=environment, check=True, capture_output=True)
        thousand(folder, environment)
        first_step(folder, environment)


def counting(folder: Path) -> dict[str, str]:
    """The PATH on which calls to SLURM's programs are noted in FOLDER/calls: program and time in seconds, a line each."""
    (folder / "bin").mkdir()
    for program in COUNTED:
        real, stand_in = shutil.which(program), folder / "bin" / program
        stand_in.write_text(f'#!/bin/sh\necho {program} $(date +%s.%N) >> {folder}/calls\nexec {real} "$@"\n')
        stand_in.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def thousand(folder: Path, environment: dict[str, str]) -> None:
    """Submit, and start the same sweep again."""
    rates = ",".join(f"{5 + number / 1000:g}" for number in range(RUNS // 10))
    shapes = "32x2,32x4,32x8,32x16,64x1,64x2,64x4,64x8,128x1,128x2"
    sweep = [f"shape={shapes}", f"lr_base={rates}", "hydra/launcher=slurm", "+hydra.launcher.sbatch.hold=true"]
    for what in ("submitted", "found again"):
        start = time.perf_counter()
        done = launch(sweep, environment)
        seconds = time.perf_counter() - start
        calls = [line.split()[0] for line in (folder / "calls").read_text().splitlines()]
        (folder / "calls").unlink()
        counts = ", ".join(f"{calls.count(program)} {program}" for program in COUNTED)
        print(f"{what}: {seconds:.0f} s ({seconds / RUNS * 1000:.0f} ms a run), calls: {counts}")
        print(f"  {done.splitlines()[0]}")
    arrays = [path.read_text() for path in (folder / "outputs" / "slurm").glob("*/job_id")]
    subprocess.run(["scancel", *arrays], check=True)


def first_step(folder: Path, environment: dict[str, str]) -> None:
    """Seconds from a job's start, by SLURM's clock, to its first step."""
    launch(["shape=32x2", "lr_base=1", "hydra/launcher=slurm"], environment)
    record = max((folder / "outputs" / "slurm").glob("*/job_id"), key=lambda path: path.stat().st_mtime)
    runs = folder / "outputs" / "runs" / "nano_wide"
    while not (stepped := [path for path in runs.iterdir() if read_state(path).step > 0]):
        time.sleep(0.2)
    assert len(stepped) == 1
    reached = time.time()
    words = ["sacct", "-X", "-n", "-P", "-j", record.read_text(), "-o", "Start"]
    started = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    print(f"a job's start to its first steps: {reached - datetime.fromisoformat(started).timestamp():.0f} s")


def launch(arguments: list[str], environment: dict[str, str]) -> str:
    """What the launcher says."""
    command = [sys.executable, str(ROOT / "train.py"), "-m", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stderr


if __name__ == "__main__":
    main()
