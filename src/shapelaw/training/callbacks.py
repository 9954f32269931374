"""What happens between steps, in this order: validate, record, checkpoint, report, stop if asked."""

from __future__ import annotations

import math
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch

from shapelaw.cell import Cell, checkpoint_steps
from shapelaw.cell_state import State, Status, write_state
from shapelaw.config import CheckpointConfig, Keep
from shapelaw.data import ValidationSample
from shapelaw.errors import Interrupted
from shapelaw.tracking import VAL_LOSS, Tracker, further_loss
from shapelaw.tracking_views import FLOPS, TOKENS
from shapelaw.training import checkpoint
from shapelaw.training.agreement import Agreement
from shapelaw.training.module import CellModule, mean_loss
from shapelaw.training.trial import Trial
from shapelaw.training.watch import Watch

REPORT_SECONDS = 1.0


class Pruned(Exception):
    """The run is a trial that its search gave up; its newest checkpoint is whole and training it again continues it."""


@dataclass(frozen=True)
class Costs:
    """What a step of the cell costs.

    Args:
        flops_per_token: by the exact count.
        devices: over all nodes.
    """

    flops_per_token: float
    devices: int


class Between(pl.Callback):
    """Everything that is not the step itself. Its clock stands still meanwhile, so that seconds are seconds of steps.

    Args:
        cell: what is trained.
        sample: the held-out sequences.
        tracker: where metrics go.
        costs: of a step.
        state: the cell's state on disk, refreshed about once a second.
        keep: which checkpoints stay.
        log_every: steps between training metrics.
        watch: what looks out for spikes.
        show: called with every refreshed state.
        further: further held-out sequences by name.
        trial: what this process reports to, if the run is the trial of a search; of several processes, the first does.
    """

    def __init__(
        self,
        cell: Cell,
        sample: ValidationSample,
        tracker: Tracker,
        costs: Costs,
        state: State,
        keep: CheckpointConfig,
        log_every: int,
        watch: Watch,
        show: Callable[[State], None],
        further: Mapping[str, ValidationSample] | None = None,
        trial: Trial | None = None,
    ) -> None:
        self.trial, self.pruned = trial, False
        self.cell, self.sample, self.tracker, self.costs, self.state = cell, sample, tracker, costs, state
        self.further = further or {}
        self.keep, self.log_every, self.watch, self.show = keep, log_every, watch, show
        self.signalled: int | None = None
        self.asked_to_stop: int | None = None
        self.agreement: Agreement | None = None
        self.mark = self.reported = 0.0
        self.since_log = (0, 0.0)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take the signals (Lightning has set its own by now) and measure a branch where it starts."""
        assert isinstance(module, CellModule)
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._ask)
        self.agreement = Agreement(module.device) if trainer.world_size > 1 else None
        self.since_log = (module.progress.step, module.progress.seconds)
        self.watch.restore(module)
        step = module.progress.step
        if step == self.cell.first_step > 0 or step == self.cell.last_step:  # killed between its end and its record
            self._validate(module)
            self.tracker.log(self._cost(module), self.cell.first_step * self.cell.batch_tokens)
        self._report(module, force=True)
        self.mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Between two steps."""
        assert isinstance(module, CellModule)
        step = module.progress.step
        validates, checkpoints = self.cell.validates_at(step), self.cell.checkpoints_at(step)
        logs = validates or step % self.log_every == 0
        self._agree()
        if self.watch.looks_at(step):
            self.watch.look(module)
        if not (logs or checkpoints or self.asked_to_stop or time.perf_counter() - self.reported > REPORT_SECONDS):
            return
        train_loss = self._take(module) if logs else None
        self._stop_clock(module)
        if validates:
            self._validate(module)
            self._ask_search(trainer, step)
        if train_loss is not None:
            self._record(module, train_loss)
        if checkpoints or self.asked_to_stop or self.pruned:
            self._checkpoint(module)
        self._report(module, force=validates)
        if self.pruned:
            raise Pruned
        if self.asked_to_stop:
            raise Interrupted(f"stopped by {signal.Signals(self.asked_to_stop).name} after step {step}")
        self.mark = time.perf_counter()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.signalled = number

    def _agree(self) -> None:
        """Processes of one cell stop after the same step: the one after the step in which one of them was asked to."""
        if self.agreement:
            asked = self.agreement.ask(self.signalled is not None)
            self.asked_to_stop = (self.signalled or signal.SIGUSR2) if asked else None
        else:
            self.asked_to_stop = self.signalled

    def _ask_search(self, trainer: pl.Trainer, step: int) -> None:
        """Report the held-out loss, and hear whether the trial is given up; all processes of a cell hear the same."""
        loss = self.state.val_loss
        assert loss is not None
        hopeless = self.trial is not None and self.trial.is_hopeless(step * self.cell.batch_tokens, loss)
        if trainer.world_size > 1:
            hopeless = trainer.strategy.reduce_boolean_decision(hopeless, all=False)
        self.pruned = hopeless and step < self.cell.last_step

    def _stop_clock(self, module: CellModule) -> None:
        now = time.perf_counter()
        module.progress.seconds += now - self.mark
        self.mark = now

    def _take(self, module: CellModule) -> float:
        loss = module.take_train_loss()
        if module.trainer.world_size > 1:
            loss = float(module.trainer.strategy.reduce(torch.tensor(loss, device=module.device), reduce_op="mean"))
        return loss

    def _validate(self, module: CellModule) -> None:
        module.model.eval()
        loss = mean_loss(module, self.sample)
        losses = {name: mean_loss(module, sample) for name, sample in self.further.items()}
        module.model.train()
        if not math.isfinite(loss):
            self.watch.no_number(loss, module)
        self.state = replace(self.state, val_loss=loss)
        further = {further_loss(name): value for name, value in losses.items()}
        self.tracker.log({VAL_LOSS: loss, **further}, module.progress.step * self.cell.batch_tokens)

    def _cost(self, module: CellModule) -> dict[str, float]:
        tokens = module.progress.step * self.cell.batch_tokens
        return {
            TOKENS: tokens,
            FLOPS: tokens * self.costs.flops_per_token,
            "cost/device_hours": module.progress.seconds * self.costs.devices / 3600,
        }

    def _record(self, module: CellModule, train_loss: float) -> None:
        if not math.isfinite(train_loss):
            return  # the watch has it within its cadence
        progress = module.progress
        steps, seconds = progress.step - self.since_log[0], progress.seconds - self.since_log[1]
        self.since_log = (progress.step, progress.seconds)
        per_step = seconds / max(steps, 1)
        speed = self.cell.batch_tokens / per_step if per_step else None
        self.state = replace(self.state, train_loss=train_loss, tokens_per_second=speed)
        metrics = self._cost(module) | {
            "train/loss": train_loss,
            "train/lr": self.cell.lr_at(progress.step - 1) * progress.lr_scale,
            "train/grad_norm": float(module.grad_norm),
            "speed/seconds_per_step": per_step,
        }
        if speed:
            metrics["speed/tokens_per_second"] = speed
        self.tracker.log(metrics, progress.step * self.cell.batch_tokens)

    def _checkpoint(self, module: CellModule) -> None:
        self.tracker.flush()  # a run that continues from here does not measure again what lies before
        self.watch.keep(module)
        checkpoint.save(self.cell.folder, module.model, module.optimizer, module.counted(), module.placement)
        if module.placement.rank:
            return
        # what an interruption left between the cadence's steps goes with the next checkpoint
        every = [step for step in checkpoint_steps(self.cell.folder) if self.cell.checkpoints_at(step)]
        checkpoint.prune(self.cell.folder, 1, keep=every[-self.keep.newest if self.keep.keep is Keep.newest else 0 :])

    def _report(self, module: CellModule, force: bool = False) -> None:
        if not force and time.perf_counter() - self.reported < REPORT_SECONDS:
            return
        self.reported = time.perf_counter()
        if module.trainer.is_global_zero:
            step = module.progress.step
            tokens, run_id = step * self.cell.batch_tokens, self.tracker.run_id or self.state.mlflow_run_id
            spikes, rollbacks = self.watch.detector.spikes, len(module.progress.rollbacks)
            self.state = replace(self.state, step=step, tokens=tokens, spikes=spikes, rollbacks=rollbacks)
            self.state = replace(self.state, mlflow_run_id=run_id)
            write_state(self.cell.folder, self.state)
            self.show(self.state)


def running(state: State, cell: Cell, run_id: str | None) -> State:
    """The state of a cell that a process has just taken up."""
    return replace(
        state,
        status=Status.running,
        steps=cell.last_step,
        attempts=state.attempts + 1,
        reason="",
        host=socket.gethostname(),
        pid=os.getpid(),
        mlflow_run_id=run_id,
    )
