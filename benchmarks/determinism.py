"""What the same run differs by when the machine computes it otherwise, printed as a table. Needs `python prepare.py` (nano).

    python benchmarks/determinism.py

Each way trains the same run (64x4 of nano_wide, 100 steps, float32, CPU) by train.py in a process of its own. Its training
losses, its held-out loss and its last weights are compared with those of the first: one process, one thread, the whole batch
at once.
Training amplifies the last bit, so the table also has the first steps, and another seed to compare with.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from shapelaw.planned_run import checkpoint_path
from shapelaw.run_state import read_state
from shapelaw.tracking.journal import JOURNAL, records
from shapelaw.training.checkpoint import MODEL

ROOT = Path(__file__).resolve().parents[1]
STEPS, BATCH_TOKENS = 100, 2048
GIVEN = (
    *("shape=64x4", f"tokens={STEPS * BATCH_TOKENS}", "accelerator=cpu", "progress=false", "precision=fp32"),
    *("tracker.log_every_steps=1", f"data_dir={ROOT}/outputs/corpora"),
)
NO_FLASH = "import torch; torch.backends.cuda.enable_flash_sdp(False); "
"""torch then takes its plain attention on a CPU too."""


@dataclass(frozen=True)
class Way:
    """How the run is computed: its overrides, and code before train.py's."""

    name: str
    overrides: tuple[str, ...] = ()
    before: str = ""


WAYS = [
    Way("one thread, whole batch", ("micro_batch_sequences=0",)),
    Way("the same again", ("micro_batch_sequences=0",)),
    Way("2 threads", ("micro_batch_sequences=0", "threads=2")),
    Way("micro-batches of 4 sequences", ("micro_batch_sequences=4",)),
    Way("micro-batches of 1 sequence", ("micro_batch_sequences=1",)),
    Way("plain attention instead of the flash kernel", ("micro_batch_sequences=0",), NO_FLASH),
    Way("compile=true", ("micro_batch_sequences=0", "compile=true")),
    Way("parallel=ddp, 2 processes", ("parallel=ddp", "devices=2")),
    Way("parallel=fsdp, 2 processes", ("parallel=fsdp", "devices=2")),
    *(
        Way(f"parallel=axonn {degree}=2, 2 processes", ("parallel=axonn", f"parallel.{degree}=2", "devices=2"))
        for degree in ("row", "column", "depth")
    ),
    Way("another seed (seed=1), for scale", ("micro_batch_sequences=0", "seed=1")),
]


@dataclass(frozen=True)
class Result:
    """What a run left: its losses, step by step, its last held-out loss, its weights in the order of their names."""

    losses: np.ndarray
    held_out: float
    weights: np.ndarray


def result_of(way: Way, folder: Path) -> Result:
    """Train and read what was left."""
    code = f"{way.before}import runpy, sys; sys.argv[0] = 'train.py'; runpy.run_path('train.py', run_name='__main__')"
    elsewhere = (f"outputs_dir={folder}", f"tracker.uri=sqlite:///{folder}/mlflow.db")
    environment = os.environ | {"SHAPELAW_SUITE": "nano_wide"}
    command = [sys.executable, "-c", code, *GIVEN, *elsewhere, *way.overrides]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way.name}: {done.stderr}")
    (run,) = (folder / "runs" / "nano_wide").iterdir()
    kept = [record for record, _ in records(run / JOURNAL) if record["kind"] == "metrics"]
    losses = {r["tokens"]: float(r["values"]["train/loss"]) for r in kept if "train/loss" in r["values"]}
    state = read_state(run)
    assert state.val_loss is not None
    weights = load_file(checkpoint_path(run, STEPS) / MODEL)
    return Result(
        np.array([losses[tokens] for tokens in sorted(losses)]),
        state.val_loss,
        np.concatenate([weights[name].ravel() for name in sorted(weights)]),
    )


def main() -> None:
    """Print the table."""
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, {STEPS} steps of 64x4, float32; largest differences")
    heads = (
        "the run, computed otherwise",
        "loss of step 1",
        "of 1 to 10",
        "of all",
        "held-out loss",
        "weights, of their rms",
    )
    print(f"| {' | '.join(heads)} |\n| {' | '.join(['---'] * len(heads))} |")
    first: Result | None = None
    for way in WAYS:
        with tempfile.TemporaryDirectory() as name:
            found = result_of(way, Path(name))
        if first is None:
            first = found
            cells = [f"{value:.7g}" for value in (*found.losses[[0, 9, -1]], found.held_out)] + [""]
        else:
            cells = [f"{value:.1e}" if value else "0" for value in differences(found, first)]
        print(f"| {way.name} | {' | '.join(cells)} |", flush=True)


def differences(found: Result, first: Result) -> tuple[float, ...]:
    """Largest differences: of the first step's loss, of the first ten, of all, held out, of the weights over their rms."""
    losses = np.abs(found.losses - first.losses)
    weights = np.abs(found.weights - first.weights).max() / np.sqrt(np.mean(first.weights**2))
    return losses[0], losses[:10].max(), losses.max(), abs(found.held_out - first.held_out), weights


if __name__ == "__main__":
    main()
