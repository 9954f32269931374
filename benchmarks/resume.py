"""The same run three times beside each other: twice to its end, once killed half-way and started again, compared bit for bit.

    python benchmarks/resume.py [OVERRIDE ...]
    python benchmarks/resume.py shape=64x2 seq_len=2048 batch_tokens=16384 tokens=4915200 checkpoint.every_tokens=819200

Each process compiles for itself, as on a node of its own: what torch compiled for the others is hidden from it. Needs
`SHAPELAW_SUITE=nano python prepare.py`. On the device that train.py chooses: a GPU where there is one. Exit code 1 if a loss or
a weight of the second or the third run differs from the first's.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rivals.case import processor
from safetensors.numpy import load_file

from shapelaw.planned_run import checkpoint_path, checkpoint_steps
from shapelaw.run_state import read_state
from shapelaw.tracking.journal import JOURNAL, records
from shapelaw.training.checkpoint import MODEL

ROOT = Path(__file__).resolve().parents[1]
STEPS, CHECKPOINTS, BATCH_TOKENS = 1200, 6, 512
GIVEN = (
    *("shape=48x2", f"tokens={STEPS * BATCH_TOKENS}", f"checkpoint.every_tokens={STEPS // CHECKPOINTS * BATCH_TOKENS}"),
    *("tracker=none", "progress=false"),
)
CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


class Run:
    """A run in a folder of its own, in a process of its own."""

    def __init__(self, folder: Path, overrides: list[str]) -> None:
        corpora = Path(os.environ.get("SHAPELAW_OUTPUTS", ROOT / "outputs")).resolve() / "corpora"
        self._command = [sys.executable, "train.py", *GIVEN, f"data_dir={corpora}", f"outputs_dir={folder}", *overrides]
        self._folder, self._runs, self._starts = folder, folder / "runs" / "nano", 0
        self.start()

    def start(self) -> None:
        """Begin it, or go on."""
        self._starts += 1
        caches = {name: str(self._folder / f"{name}{self._starts}") for name in CACHES}
        self._process = subprocess.Popen(self._command, cwd=ROOT, env=os.environ | caches | {"SHAPELAW_SUITE": "nano"})

    def kill(self, checkpoints: int) -> None:
        """SIGKILL once that many checkpoints are there."""
        while sum(len(checkpoint_steps(run)) for run in self._runs.glob("*")) < checkpoints:
            if self._process.poll() is not None:
                raise SystemExit("a run ended before it could be killed")
            time.sleep(0.02)
        self._process.kill()
        self._process.wait()

    def result(self) -> dict[str, np.ndarray]:
        """Once it has ended: its losses and the weights of all checkpoints."""
        if self._process.wait():
            raise SystemExit(f"a run ended with code {self._process.returncode}")
        (folder,) = self._runs.glob("*")
        metrics = [record for record, _ in records(folder / JOURNAL) if record["kind"] == "metrics"]
        found = {
            f"{name} at {record['tokens']:,} tokens": np.array(value)
            for record in metrics
            for name, value in record["values"].items()
            if name.endswith("loss")
        }
        for step in checkpoint_steps(folder):
            for name, value in load_file(checkpoint_path(folder, step) / MODEL).items():
                found[f"{name} at step {step}"] = value
        return found | {"held-out loss": np.array(read_state(folder).val_loss)}


def main() -> None:
    """Prints a line for each of the two runs that are compared."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    given = " ".join([*GIVEN, *sys.argv[1:]])
    print(f"{device}; torch {torch.__version__}, Python {platform.python_version()}; nano with {given}")
    with tempfile.TemporaryDirectory() as name:
        first, again, killed = (Run(Path(name) / part, sys.argv[1:]) for part in ("first", "again", "killed"))
        killed.kill(CHECKPOINTS // 3)
        killed.start()
        expected = first.result()
        code = 0
        for words, run in (
            ("the same again", again),
            (f"killed after checkpoint {CHECKPOINTS // 3} and continued", killed),
        ):
            found = run.result()
            differing = [key for key, value in expected.items() if not np.array_equal(value, found.get(key))]
            code = code or int(bool(differing))
            first_of_them = f"; the first is {differing[0]}" if differing else ""
            print(f"{words}: {len(expected)} losses and weights, {len(differing)} differ{first_of_them}")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
