"""Runs that are killed at random moments, and the same run in several processes: the same metrics to the last bit."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from shapelaw.config import TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.data import BytesChoice, TextSource, load_corpus, prepare
from shapelaw.planned_run import PlannedRun, corpus_folder, plan_run
from shapelaw.run_state import Status, read_state
from shapelaw.tracking import deliver_left
from shapelaw.tracking.journal import JOURNAL
from support import Compose, train_run
from tracked import Row, journaled, stored

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["shapelaw.training.run", "mlflow", __name__])
WALL_CLOCK = ("speed/seconds_per_step", "speed/tokens_per_second", "cost/device_hours")
PLAIN = ("checkpoint.keep=newest",)
"""A checkpoint every 4 steps, training metrics every 2."""
SPIKE = (*PLAIN, "spikes=rollback", "spikes.every_steps=5")
"""The same with a spike in it, that is rolled back."""


def _train(config: TrainConfig, planned: PlannedRun, kill_at: int | None, delay: float, spike: bool) -> None:
    """Body of a process; with kill_at, it ends by SIGKILL soon after the journal has grown to so many bytes."""
    from shapelaw.training import spikes
    from shapelaw.training.module import RunModule

    def kill() -> None:
        journal = planned.folder / JOURNAL
        while not journal.exists() or journal.stat().st_size < (kill_at or 0):
            time.sleep(0.0005)
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    if kill_at is not None:
        threading.Thread(target=kill, daemon=True).start()
    if spike:
        real = RunModule.training_step
        spikes.LEAST_SCALE = 1e-3

        def poisoned(module: RunModule, batch: object, index: int) -> None:
            """Batches 90 to 94 of the order are poison; the rollback leaves them out."""
            real(module, batch, index)  # type: ignore[arg-type]
            if module.progress.step in range(91, 96) and not module.progress.rollbacks:
                loss, norm = module.recent[-1]
                module.recent[-1] = (loss + 50.0, norm)

        RunModule.training_step = poisoned  # type: ignore[method-assign]
    train_run(config, planned)


def process(
    config: TrainConfig, planned: PlannedRun, kill_at: int | None = None, delay: float = 0.0, spike: bool = False
) -> int:
    """Train in a process of its own; its exit code."""
    child = PROCESSES.Process(target=_train, args=(config, planned, kill_at, delay, spike))
    child.start()
    child.join(300)
    assert child.exitcode is not None
    return child.exitcode


def prepared(composed: Compose, root: Path, template: Path, *overrides: str) -> tuple[TrainConfig, PlannedRun]:
    root.mkdir()
    shutil.copy(template, root / "mlflow.db")
    store = f"tracker.uri=sqlite:///{root}/mlflow.db"
    given = (
        "tracker=mlflow",
        store,
        "tracker.finish_seconds=120",
        "accelerator=cpu",
        f"outputs_dir={root}",
        *overrides,
    )
    config: TrainConfig = to_dataclass(composed(*given))
    return config, plan_run(config, load_corpus(corpus_folder(config)).manifest.corpus_hash)


def measured(config: TrainConfig, planned: PlannedRun) -> list[Row]:
    """What the store has of a run, but the wall-clock metrics."""
    rows = stored(config.tracker.uri, planned.identity)
    assert rows == journaled(planned.folder)
    return [row for row in rows if row[0] not in WALL_CLOCK]


@pytest.mark.parametrize(
    ("kills", "spike"),
    [(4, True), pytest.param(50, True, marks=pytest.mark.slow), pytest.param(50, False, marks=pytest.mark.slow)],
)
def test_a_run_that_is_killed_ends_with_the_metrics_of_one_that_is_not(
    composed: Compose, tmp_path: Path, template: Path, kills: int, spike: bool
) -> None:
    steps = 200 if kills < 10 else 1000
    overrides = (f"tokens={128 * steps}", *(SPIKE if spike else PLAIN))
    config, planned = prepared(composed, tmp_path / "whole", template, *overrides)
    assert process(config, planned, spike=spike) == 0
    whole, size = measured(config, planned), (planned.folder / JOURNAL).stat().st_size
    config, planned = prepared(composed, tmp_path / "killed", template, *overrides)
    chance = random.Random(kills)
    targets = sorted(chance.randrange(int(0.8 * size)) for _ in range(kills))
    for number, target in enumerate(targets):
        grown = journal.stat().st_size + 1 if (journal := planned.folder / JOURNAL).exists() else 0
        early = number % 5 == 3 and number < 0.8 * kills  # at any moment of its start
        moment = (0, chance.uniform(0, 0.5)) if early else (max(target, grown), chance.choice([0.0, 0.003, 0.03]))
        assert process(config, planned, *moment, spike) == -signal.SIGKILL
    assert process(config, planned, spike=spike) == 0
    assert deliver_left(planned.folder) is None
    state = read_state(planned.folder)
    assert (state.status, state.rollbacks) == (Status.finished, int(spike))
    assert state.attempts > kills / 2  # the others died before they had written that they had started
    assert measured(config, planned) == whole


def test_two_processes_give_the_same_bits(composed: Compose, tmp_path: Path, template: Path) -> None:
    """Also from a corpus that another number of workers has made: the same losses, norms and weights."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(12):
        (texts / f"{number}.txt").write_text(" ".join(str(number * k * k) for k in range(2000)))
    rows = []
    for workers in (1, 3):
        folder = tmp_path / f"corpora{workers}"
        prepare(
            TextSource((str(texts),)),
            BytesChoice(),
            folder / "text-bytes",
            val_fraction=0.3,
            shard_tokens=2**14,
            workers=workers,
        )
        config, planned = prepared(composed, tmp_path / f"run{workers}", template, f"data_dir={folder}", "tokens=6400")
        assert process(config, planned) == 0
        rows.append((planned.identity, measured(config, planned)))
    assert rows[0] == rows[1]
    assert len(rows[0][1]) > 100
