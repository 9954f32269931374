"""What the system adds to training and to the wait before it, printed as ratios and seconds of one run on one machine.

    python benchmarks/overhead.py

1. tracking and callbacks: share of a nano step's time (32x2, the cheapest, where it weighs most)
2. the same run with its MLflow server away from the first step to the last: its process's CPU time, and wall-clock time, over
   those of the run with its store and of one without tracking, rounds interleaved
3. `python train.py --help`, and the composition of the 44 runs of SHAPELAW_SUITE=gemstones, as wall-clock seconds
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from shapelaw.config import TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.planned_run import plan_run
from shapelaw.tracking import open_store
from shapelaw.training.corpora import Library
from shapelaw.training.hooks import Hooks
from shapelaw.training.module import RunModule
from shapelaw.training.run import train
from shapelaw.verbs.doors import store_schemas
from shapelaw.verbs.main import set_environment

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3


def seconds_of_steps(config: TrainConfig) -> tuple[float, float]:
    """(seconds between two steps, seconds inside one) of one run, on average."""
    corpora = Library().of(config)
    planned = plan_run(config, corpora.hash)
    inside: list[float] = []
    marks: list[float] = []
    step = RunModule.training_step
    between = Hooks.on_train_batch_end

    def timed(module: RunModule, batch: torch.Tensor, index: int) -> None:
        start = time.perf_counter()
        step(module, batch, index)
        inside.append(time.perf_counter() - start)

    def watched(self: Hooks, *arguments: object) -> None:
        start = time.perf_counter()
        between(self, *arguments)  # type: ignore[arg-type]
        marks.append(time.perf_counter() - start)

    RunModule.training_step, Hooks.on_train_batch_end = timed, watched  # type: ignore[method-assign]
    try:
        train(config, planned, corpora, {}, lambda state: None)
    finally:
        RunModule.training_step, Hooks.on_train_batch_end = step, between  # type: ignore[method-assign]
    return statistics.mean(marks[:-1]), statistics.mean(
        inside
    )  # the last step is followed by a validation and a checkpoint, whatever is asked


def overhead() -> None:
    """Time in tracking and callbacks, without the validations and checkpoints themselves, over the time in steps."""
    shares = []
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            uri = f"sqlite:///{folder}/mlflow.db"
            never = ["validation.every_tokens=1e12", "checkpoint.every_tokens=1e12", "shape=32x2", "accelerator=cpu"]
            with initialize_config_dir(str(ROOT / "conf")):
                composed = compose("train", [*never, f"outputs_dir={folder}", f"tracker.uri={uri}", f"seed={number}"])
            composed.data_dir = str(ROOT / "outputs" / "corpora")
            config: TrainConfig = to_dataclass(composed)
            experiment = open_store(uri, folder, config.suite.name)
            config = replace(config, tracker=replace(config.tracker, experiment_id=experiment))
            between, inside = seconds_of_steps(config)
            shares.append(between / inside)
            print(f"  run {number + 1}: {1e3 * inside:.2f} ms a step, {1e3 * between:.3f} ms between steps")
    print(f"tracking and callbacks over steps, 32x2: median {statistics.median(shares):.2%} (asked: under 2%)")


def seconds_of_run(number: int, *overrides: str) -> tuple[float, float]:
    """(CPU seconds of this process, wall-clock seconds) per step of a run; tracked or not, its start and end left out."""
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(ROOT / "conf")):
        never = ["validation.every_tokens=1e12", "checkpoint.every_tokens=1e12", "shape=32x2", "accelerator=cpu"]
        composed = compose("train", [*never, f"outputs_dir={folder}", f"seed={number}", *overrides])
        composed.data_dir = str(ROOT / "outputs" / "corpora")
        config: TrainConfig = to_dataclass(composed)
        corpora = Library().of(config)
        marks: list[tuple[float, float]] = []
        between = Hooks.on_train_batch_end

        def watched(self: Hooks, *arguments: object) -> None:
            marks.append((time.process_time(), time.perf_counter()))
            between(self, *arguments)  # type: ignore[arg-type]

        Hooks.on_train_batch_end = watched  # type: ignore[method-assign]
        try:
            train(config, plan_run(config, corpora.hash), corpora, {}, lambda state: None)
        finally:
            Hooks.on_train_batch_end = between  # type: ignore[method-assign]
        steps = len(marks) - 1
        return (marks[-1][0] - marks[0][0]) / steps, (marks[-1][1] - marks[0][1]) / steps


def away() -> None:
    """What a store that is away costs a step, against one that answers and against no tracking at all."""
    ways = {
        "no tracking": ["tracker=none"],
        "store there": [],
        "server away": ["tracker.uri=http://127.0.0.1:9", "tracker.finish_seconds=0.1"],
    }
    spent: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        for way, overrides in ways.items():
            spent[way].append(seconds_of_run(number, *overrides))
    for way in ways:
        ratios = [
            [there[kind] / base[kind] for there, base in zip(spent[way][1:], spent["no tracking"][1:], strict=True)]
            for kind in (0, 1)
        ]
        cpu, wall = (statistics.median(each) for each in ratios)
        print(
            f"{way}: {cpu:.3f} x the CPU time and {wall:.3f} x the time of a step without tracking (asked: below 1.05)"
        )


def waits() -> None:
    """Wall-clock seconds of composition."""
    for title, arguments, suite in (
        ("train.py --help", ["--help"], "nano"),
        ("44 runs composed, priced and refused", ["-m", "shape=glob(*)", "lr_base=5,2.5"], "gemstones"),
    ):
        start = time.perf_counter()
        command = [sys.executable, str(ROOT / "train.py"), *arguments]
        subprocess.run(command, capture_output=True, check=False, env={**os.environ, "SHAPELAW_SUITE": suite})
        print(f"{title}: {time.perf_counter() - start:.2f} s")


def main() -> None:
    os.environ["SHAPELAW_ROOT"] = str(ROOT)
    set_environment(ROOT)
    store_schemas()
    print(f"torch {torch.__version__}, {os.cpu_count()} cores")
    waits()
    overhead()
    away()


if __name__ == "__main__":
    main()
