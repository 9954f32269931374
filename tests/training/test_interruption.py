"""A run that is interrupted in the middle of an accumulation, by a signal or by death, and continued, also with another number
of micro-batches; and what a damaged checkpoint costs."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from shapelaw.config import TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.data import load_corpus
from shapelaw.errors import Interrupted
from shapelaw.model import Transformer
from shapelaw.planned_run import PlannedRun, checkpoint_path, checkpoint_steps, corpus_folder, plan_run
from shapelaw.run_state import Status, read_state
from shapelaw.training import checkpoint
from support import Compose, train_run

FOUR = "micro_batch_sequences=2"  # of 8 sequences a step
LAST = 20


@dataclass(frozen=True)
class Train:
    """Trains the tiny run in a named folder of outputs."""

    composed: Compose
    root: Path

    def prepared(self, name: str, *overrides: str) -> tuple[TrainConfig, PlannedRun]:
        config: TrainConfig = to_dataclass(
            self.composed("accelerator=cpu", f"outputs_dir={self.root / name}", *overrides)
        )
        return config, plan_run(config, load_corpus(corpus_folder(config)).manifest.corpus_hash)

    def __call__(self, name: str, *overrides: str) -> PlannedRun:
        config, planned = self.prepared(name, *overrides)
        train_run(config, planned)
        return planned


@pytest.fixture
def train(composed: Compose, tmp_path: Path) -> Train:
    return Train(composed, tmp_path)


class Killed(BaseException):
    """Stands for the end of the process: nothing of the run's own survives it."""


def during(monkeypatch: pytest.MonkeyPatch, micro_batch: int, act: Callable[[], None]) -> None:
    """Do something in the forward pass of a micro-batch, counted over all steps from 1."""
    loss, count = Transformer.loss, 0

    def counting(model: Transformer, *arguments: Any) -> Any:
        nonlocal count
        count += model.training
        if model.training and count == micro_batch:
            act()
        return loss(model, *arguments)

    monkeypatch.setattr(Transformer, "loss", counting)


def tensors(planned: PlannedRun) -> dict[str, torch.Tensor]:
    """Weights and optimizer of the last checkpoint."""
    path = checkpoint_path(planned.folder, LAST)
    return {
        f"{file}.{k}": v for file in (checkpoint.MODEL, checkpoint.OPTIMIZER) for k, v in load_file(path / file).items()
    }


def assert_same_bits(planned: PlannedRun, whole: PlannedRun) -> None:
    ours, theirs = tensors(planned), tensors(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert read_state(planned.folder).val_loss == read_state(whole.folder).val_loss


@pytest.mark.parametrize("micro_batch", [1, 22, 27, 40])
def test_a_signal_in_an_accumulation_ends_the_step_first(
    train: Train, monkeypatch: pytest.MonkeyPatch, micro_batch: int
) -> None:
    """The step in which it comes is done whole, and the continued run is the uninterrupted one to the last bit."""
    whole = train("whole", FOUR)
    with monkeypatch.context() as patch:
        during(patch, micro_batch, lambda: os.kill(os.getpid(), signal.SIGUSR2))
        with pytest.raises(Interrupted, match=f"stopped by SIGUSR2 after step {-(-micro_batch // 4)}$"):
            train("cut", FOUR)
    planned = train("cut", FOUR)
    assert read_state(planned.folder).attempts == 2
    assert_same_bits(planned, whole)


def test_death_in_an_accumulation_costs_the_steps_since_the_checkpoint(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train("whole", FOUR)

    def die() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        during(patch, 4 * 10 + 3, die)
        with pytest.raises(Killed):
            train("cut", FOUR)
    planned = train("cut", FOUR)
    assert_same_bits(planned, whole)


@pytest.mark.parametrize("after", ["micro_batch_sequences=0", "micro_batch_sequences=1", "micro_batch_sequences=3"])
def test_continued_with_another_number_of_micro_batches(
    train: Train, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """Equal up to the order of float32 sums: the step's gradient is the same mean over the same sequences. 1e-5 in the loss,
    where one update moves it by 1e-1 and another order of the data by 1e-3."""
    whole = train("whole", FOUR)
    with monkeypatch.context() as patch:
        during(patch, 4 * 10 + 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            train("cut", FOUR)
    planned = train("cut", after)
    state = read_state(planned.folder)
    assert (state.status, state.step, state.attempts) == (Status.finished, LAST, 2)
    assert state.val_loss == pytest.approx(read_state(whole.folder).val_loss, abs=1e-5)
    ours, theirs = tensors(planned), tensors(whole)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (checkpoint.MODEL, "cut short"),
        (checkpoint.OPTIMIZER, "cut short"),
        (checkpoint.MODEL, "empty"),
        (checkpoint.OPTIMIZER, "gone"),
        (checkpoint.MODEL, "one bit"),
    ],
)
def test_a_damaged_newest_checkpoint_costs_one_interval(
    train: Train, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, file: str, damage: str
) -> None:
    """The one before it is used, with a warning that names it; the end is the same to the last bit."""
    whole = train("whole")
    with monkeypatch.context() as patch:
        during(patch, 14, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            train("cut")
    folder = train.prepared("cut")[1].folder
    assert checkpoint_steps(folder) == [4, 8, 12, 14]
    path = checkpoint_path(folder, 14) / file
    content = path.read_bytes()
    match damage:
        case "gone":
            path.unlink()
        case "one bit":
            path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        case _:
            path.write_bytes(content[: len(content) // 2 if damage == "cut short" else 0])
    with caplog.at_level(logging.WARNING):
        planned = train("cut")
    assert "passing over a damaged checkpoint" in caplog.text
    assert "step-00000014" in caplog.text
    assert "step-00000012" not in caplog.text
    assert_same_bits(planned, whole)


def test_keep_rules_bound_the_disk_at_every_moment(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `newest` at most so many checkpoints and the one being written; what a killed writer left is removed."""
    most = 0
    save = checkpoint.save

    def watched(folder: Path, *arguments: Any) -> Path:
        nonlocal most
        path = save(folder, *arguments)
        most = max(most, len(checkpoint_steps(folder)))
        return path

    monkeypatch.setattr(checkpoint, "save", watched)
    rules = ("checkpoint.keep=newest", "checkpoint.newest=2", "checkpoint.every_tokens=128")
    with monkeypatch.context() as patch:
        during(patch, 9, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            train("run", *rules)
    (train.prepared("run")[1].folder / "checkpoints" / ".step-00000010.1.tmp").mkdir()
    planned = train("run", *rules)
    assert most == 3
    assert checkpoint_steps(planned.folder) == [19, 20]
    assert not list((planned.folder / "checkpoints").glob(".*"))
