"""The training step as a LightningModule: one batch is one optimiser step over a world batch."""

from __future__ import annotations

import lightning.pytorch as pl
import torch

from shapelaw.cell import Cell
from shapelaw.data import ValidationSample
from shapelaw.model import Transformer
from shapelaw.optim import set_lr
from shapelaw.parallel.placement import Placement
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
        placement: how it is shared out over processes.
    """

    def __init__(
        self,
        cell: Cell,
        model: Transformer,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        micro_batch: int,
        clip_norm: float,
        placement: Placement,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.cell, self.model, self.optimizer, self.progress = cell, model, optimizer, progress
        self.micro_batch, self.clip_norm, self.placement = micro_batch, clip_norm, placement
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
            self.grad_norm = self.placement.clip(self.model, self.clip_norm)
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
            with self.placement.accumulating(self.model, last=index == len(micros) - 1):
                loss = self.model.loss(micro) * (len(micro) / len(batch))
                self.manual_backward(loss)
            total += loss.detach()
        self.placement.sync(self.model)
        return total

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
    """Mean loss over the held-out sample, nats per token; every share of the batch takes its share of the windows.

    Shares that have no window left go through the motions with one that does not count: split models compute together.
    """
    trainer, placement = module.trainer, module.placement
    total = torch.zeros(2, dtype=torch.float64, device=module.device)
    size = micro_batch or VALIDATION_SEQUENCES
    with trainer.precision_plugin.forward_context():
        mine = sample.batches(size, placement.share, placement.shares)
        for _ in range(-(-len(sample.windows) // (size * placement.shares))):  # ceil(ceil(n / shares) / size)
            rows = next(mine, None)
            ids = torch.zeros(1, sample.seq_len + 1, dtype=torch.int64) if rows is None else torch.from_numpy(rows)
            loss, count = module.model.loss(ids.to(module.device)).double(), 0 if rows is None else len(rows)
            total += torch.stack([loss * count, total.new_tensor(count)])
    if trainer.world_size > 1:
        total = trainer.strategy.reduce(total, reduce_op="sum")
    return float(total[0] / total[1])
