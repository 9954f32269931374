"""The training step as a LightningModule: one batch is one optimiser step over a world batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch

from shapelaw.cell import Cell
from shapelaw.data import ValidationSample
from shapelaw.model import Transformer
from shapelaw.optim import clip_gradients, set_lr
from shapelaw.training.checkpoint import Progress

VALIDATION_SEQUENCES = 32
"""Sequences of one forward pass of a validation where the micro-batch is not set."""


class CellModule(pl.LightningModule):
    """Trains one cell. The loop's batch is what this device has of a world batch; micro-batches are split off inside, so an
    interruption always falls between optimiser steps and their number never changes the order of the data.

    Args:
        cell: what to train.
        model: the transformer, initialised.
        optimizer: AdamW over its parameters.
        progress: where it starts.
        micro_batch: sequences of one forward pass.
        clip_norm: global norm to which gradients are clipped; 0 is none.
    """

    def __init__(
        self,
        cell: Cell,
        model: Transformer,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        micro_batch: int,
        clip_norm: float,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.cell, self.model, self.optimizer, self.progress = cell, model, optimizer, progress
        self.micro_batch, self.clip_norm = micro_batch, clip_norm
        self.loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64)
        self.grad_norm = torch.zeros(())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser it was given."""
        return self.optimizer

    def training_step(self, batch: torch.Tensor, batch_index: int) -> None:
        """One optimiser step: gradients of the mean loss over the batch, clipped, at the rate of this step."""
        set_lr(self.optimizer, self.cell.lr_at(self.progress.step))
        loss = self._accumulate(batch)
        if self.clip_norm:
            self.grad_norm = clip_gradients(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_sum = self.loss_sum.to(loss.device) + loss
        self.progress.loss_steps += 1
        self.progress.step += 1

    def _accumulate(self, batch: torch.Tensor) -> torch.Tensor:
        """Backward over the micro-batches, gradients weighted to the batch's mean; the mean loss, on the device."""
        micros = torch.split(batch, self.micro_batch or len(batch))
        total = torch.zeros((), device=batch.device)
        for index, micro in enumerate(micros):
            with self._synced(last=index == len(micros) - 1):
                loss = self.model.loss(micro) * (len(micro) / len(batch))
                self.manual_backward(loss)
            total += loss.detach()
        return total

    @contextlib.contextmanager
    def _synced(self, last: bool) -> Iterator[None]:
        """Exchange gradients between devices with the last micro-batch only."""
        no_sync: Any = getattr(self.trainer.strategy.model, "no_sync", None)
        with contextlib.nullcontext() if last or no_sync is None else no_sync():
            yield

    def take_train_loss(self) -> float:
        """Mean training loss since it was last taken (this waits for the device)."""
        mean = float(self.loss_sum) / max(self.progress.loss_steps, 1)
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self.progress.loss_steps = 0
        return mean

    def counted(self) -> Progress:
        """The progress with its device-side sum filled in, for a checkpoint."""
        self.progress.loss_sum = float(self.loss_sum)
        return self.progress


@torch.no_grad()
def mean_loss(module: CellModule, sample: ValidationSample, micro_batch: int) -> float:
    """Mean loss over the held-out sample, nats per token; every device takes its share."""
    trainer = module.trainer
    total = torch.zeros(2, dtype=torch.float64, device=module.device)
    size = micro_batch or VALIDATION_SEQUENCES
    with trainer.precision_plugin.forward_context():
        for rows in sample.batches(size, trainer.global_rank, trainer.world_size):
            ids = torch.from_numpy(rows).to(module.device)
            total += torch.stack([module.model.loss(ids).double() * len(ids), total.new_tensor(len(ids))])
    if trainer.world_size > 1:
        total = trainer.strategy.reduce(total, reduce_op="sum")
    return float(total[0] / total[1])
