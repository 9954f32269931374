"""What happens between steps, in this order: validate, record, checkpoint, report, stop if asked."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch

from shapelaw.config import CheckpointConfig, Keep
from shapelaw.data import ValidationSample
from shapelaw.errors import Interrupted
from shapelaw.planned_run import PlannedRun, checkpoint_steps
from shapelaw.tracking import VAL_LOSS, Tracker
from shapelaw.tracking_views import FLOPS, TOKENS
from shapelaw.training import checkpoint
from shapelaw.training.module import RunModule, mean_loss
from shapelaw.training.monitor import SpikeMonitor
from shapelaw.training.reporting import Report
from shapelaw.training.stopping import StopRequest
from shapelaw.training.trial import Trial


class Pruned(Exception):
    """The run is a trial that its search gave up; its newest checkpoint is whole and training it again continues it."""


@dataclass(frozen=True)
class Costs:
    """What a step of the run costs.

    Args:
        flops_per_token: by the exact count.
        devices: over all nodes.
    """

    flops_per_token: float
    devices: int


class Hooks(pl.Callback):
    """Everything that is not the step itself. Its clock stands still meanwhile, so that seconds are seconds of steps.

    Args:
        planned: what is trained.
        samples: held-out sequences by the metrics that are their losses.
        tracker: where metrics go.
        costs: of a step.
        report: the run's state on disk.
        keep: which checkpoints stay.
        log_every: steps between training metrics.
        monitor: what looks out for spikes.
        trial: what this process reports to, if the run is the trial of a search; of several processes, the first does.
    """

    def __init__(
        self,
        planned: PlannedRun,
        samples: Mapping[str, ValidationSample],
        tracker: Tracker,
        costs: Costs,
        report: Report,
        keep: CheckpointConfig,
        log_every: int,
        monitor: SpikeMonitor,
        trial: Trial | None = None,
    ) -> None:
        self.planned, self.samples, self.tracker, self.costs, self.report = planned, samples, tracker, costs, report
        self.keep, self.log_every, self.monitor, self.trial = keep, log_every, monitor, trial
        self.stop = StopRequest()
        self.pruned = False
        self.mark = 0.0
        self.since_log = (0, 0.0)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take the signals (Lightning has set its own by now) and measure a branch where it starts."""
        assert isinstance(module, RunModule)
        self.stop.listen(module.device, trainer.world_size)
        self.since_log = (module.progress.step, module.progress.seconds)
        self.monitor.restore(module)
        step = module.progress.step
        if (
            step == self.planned.first_step > 0 or step == self.planned.last_step
        ):  # killed between its end and its record
            self._validate(module)
            self.tracker.log(self._cost(module), self.planned.first_step * self.planned.batch_tokens)
        self._report(module, force=True)
        self.mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Between two steps."""
        assert isinstance(module, RunModule)
        step = module.progress.step
        validates, checkpoints = self.planned.validates_at(step), self.planned.checkpoints_at(step)
        logs = validates or step % self.log_every == 0
        self.stop.agree()
        if self.monitor.looks_at(step):
            self.monitor.look(module)
        if not (logs or checkpoints or self.stop.number or self.report.is_due):
            return
        train_loss = self._take(module) if logs else None
        self._stop_clock(module)
        if validates:
            self._validate(module)
            self._ask_search(trainer, step)
        if train_loss is not None:
            self._record(module, train_loss)
        if checkpoints or self.stop.number or self.pruned:
            self._checkpoint(module)
        self._report(module, force=validates)
        if self.pruned:
            raise Pruned
        if self.stop.number:
            raise Interrupted(f"stopped by {signal.Signals(self.stop.number).name} after step {step}")
        self.mark = time.perf_counter()

    def _ask_search(self, trainer: pl.Trainer, step: int) -> None:
        """Report the held-out loss, and hear whether the trial is given up; all processes of a run hear the same."""
        loss = self.report.state.val_loss
        assert loss is not None
        hopeless = self.trial is not None and self.trial.is_hopeless(step * self.planned.batch_tokens, loss)
        if trainer.world_size > 1:
            hopeless = trainer.strategy.reduce_boolean_decision(hopeless, all=False)
        self.pruned = hopeless and step < self.planned.last_step

    def _stop_clock(self, module: RunModule) -> None:
        now = time.perf_counter()
        module.progress.seconds += now - self.mark
        self.mark = now

    def _take(self, module: RunModule) -> float:
        loss = module.take_train_loss()
        if module.trainer.world_size > 1:
            loss = float(module.trainer.strategy.reduce(torch.tensor(loss, device=module.device), reduce_op="mean"))
        return loss

    def _validate(self, module: RunModule) -> None:
        module.model.eval()
        losses = {metric: mean_loss(module, sample) for metric, sample in self.samples.items()}
        module.model.train()
        if not math.isfinite(losses[VAL_LOSS]):
            self.monitor.no_number(losses[VAL_LOSS], module)
        self.report.set(val_loss=losses[VAL_LOSS])
        self.tracker.log(losses, module.progress.step * self.planned.batch_tokens)

    def _cost(self, module: RunModule) -> dict[str, float]:
        tokens = module.progress.step * self.planned.batch_tokens
        return {
            TOKENS: tokens,
            FLOPS: tokens * self.costs.flops_per_token,
            "cost/device_hours": module.progress.seconds * self.costs.devices / 3600,
        }

    def _record(self, module: RunModule, train_loss: float) -> None:
        if not math.isfinite(train_loss):
            return  # the monitor sees it within its cadence
        progress = module.progress
        steps, seconds = progress.step - self.since_log[0], progress.seconds - self.since_log[1]
        self.since_log = (progress.step, progress.seconds)
        per_step = seconds / max(steps, 1)
        speed = self.planned.batch_tokens / per_step if per_step else None
        self.report.set(train_loss=train_loss, tokens_per_second=speed)
        metrics = self._cost(module) | {
            "train/loss": train_loss,
            "train/lr": self.planned.lr_at(progress.step - 1) * progress.lr_scale,
            "train/grad_norm": float(module.grad_norm),
            "speed/seconds_per_step": per_step,
        }
        if speed:
            metrics["speed/tokens_per_second"] = speed
        self.tracker.log(metrics, progress.step * self.planned.batch_tokens)

    def _checkpoint(self, module: RunModule) -> None:
        self.tracker.flush()  # a run that continues from here does not measure again what lies before
        self.monitor.keep(module)
        checkpoint.save(self.planned.folder, module.model, module.optimizer, module.counted(), module.placement)
        if module.placement.rank:
            return
        # what an interruption left between the cadence's steps goes with the next checkpoint
        every = [step for step in checkpoint_steps(self.planned.folder) if self.planned.checkpoints_at(step)]
        checkpoint.prune(
            self.planned.folder, 1, keep=every[-self.keep.newest if self.keep.keep is Keep.newest else 0 :]
        )

    def _report(self, module: RunModule, force: bool = False) -> None:
        if not (force or self.report.is_due):
            return
        step = module.progress.step
        self.report.set(
            step=step,
            tokens=step * self.planned.batch_tokens,
            spikes=self.monitor.detector.spikes,
            rollbacks=len(module.progress.rollbacks),
            mlflow_run_id=self.tracker.run_id or self.report.state.mlflow_run_id,
        )
        self.report.write()
