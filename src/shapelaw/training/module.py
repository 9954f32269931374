"""The training step as a LightningModule: one batch is one optimizer step over a world batch."""

from __future__ import annotations

import logging
import math

import lightning.pytorch as pl
import torch

from shapelaw.data import ValidationSample
from shapelaw.errors import UserError
from shapelaw.model import Transformer
from shapelaw.optim import set_lr
from shapelaw.parallel.placement import Placement
from shapelaw.planned_run import PlannedRun
from shapelaw.training.checkpoint import Progress
from shapelaw.training.repeating import refuse_unrepeatable
from shapelaw.wording import counted

log = logging.getLogger(__name__)
OUT_OF_MEMORY_CPU = "DefaultCPUAllocator: can't allocate memory"
"""Part of what torch says where a GPU would raise OutOfMemoryError."""


class RunModule(pl.LightningModule):
    """Trains one run. The loop's batch is what this device has of a world batch; micro-batches are split off inside, so an
    interruption always falls between optimizer steps and their number never changes the order of the data.

    Args:
        planned: what to train.
        model: the transformer, initialised.
        optimizer: AdamW over its parameters.
        progress: where it starts.
        micro_batch: sequences of one forward pass.
        halves: whether half as many are tried where they do not fit the memory.
        clip_norm: global norm to which gradients are clipped; 0 is none.
        placement: how it is shared out over processes.
        needs_norm: whether the gradients' norm is wanted even where nothing is clipped.
    """

    def __init__(
        self,
        planned: PlannedRun,
        model: Transformer,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        micro_batch: int,
        halves: bool,
        clip_norm: float,
        placement: Placement,
        needs_norm: bool = False,
    ) -> None:
        super().__init__()
        self.needs_norm = needs_norm
        self.automatic_optimization = False
        self.planned, self.model, self.optimizer, self.progress = planned, model, optimizer, progress
        self.micro_batch, self.halves, self.clip_norm, self.placement = micro_batch, halves, clip_norm, placement
        self.loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64)
        self.grad_norm = torch.zeros(())
        self.recent: list[tuple[torch.Tensor, torch.Tensor]] = []  # loss and norm of steps nobody has looked at

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer it was given."""
        return self.optimizer

    def training_step(self, batch: torch.Tensor, batch_index: int) -> None:
        """One optimizer step: gradients of the mean loss over the batch, clipped, at the rate of this step."""
        set_lr(self.optimizer, self.planned.lr_at(self.progress.step) * self.progress.lr_scale)
        loss = self._gradients(batch)
        if self.clip_norm or self.needs_norm:
            self.grad_norm = self.placement.clip(self.model, self.clip_norm or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_sum = self.loss_sum.to(loss.device) + loss
        self.recent.append((loss, self.grad_norm.to(loss.device)))
        self.progress.loss_steps += 1
        self.progress.step += 1

    def _gradients(self, batch: torch.Tensor) -> torch.Tensor:
        """Gradients and mean loss of the batch, with half the micro-batch as often as memory runs out."""
        while True:
            try:
                return self._accumulate(batch)
            except RuntimeError as error:
                refuse_unrepeatable(error)
                if not out_of_memory(error):
                    raise
            self._halve(batch.device)  # only here, where the error holds no tensors any more

    def _halve(self, device: torch.device) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        smaller = -(-self.micro_batch // 2)
        verb = "does" if self.micro_batch == 1 else "do"
        words = f"{counted(self.micro_batch, 'sequence')} at a time {verb} not fit the memory of {device}"
        if self.micro_batch == 1 or not self.halves:
            remedy = (
                f"give micro_batch_sequences={smaller}" if self.micro_batch > 1 else "take a smaller shape or context"
            )
            raise UserError(f"{words}; {remedy}, or share the run out over more devices")
        log.warning("%s: going on with %d", words, smaller)
        self.micro_batch = smaller
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def _accumulate(self, batch: torch.Tensor) -> torch.Tensor:
        """Backward over the micro-batches, gradients weighted to the batch's mean; the mean loss, on the device."""
        micros = torch.split(batch, self.micro_batch)
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


def out_of_memory(error: RuntimeError) -> bool:
    """Whether the device had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or OUT_OF_MEMORY_CPU in str(error)


@torch.no_grad()
def mean_loss(module: RunModule, sample: ValidationSample) -> float:
    """Mean loss over the held-out sample, nats per token; every share of the batch takes its share of the windows.

    Shares that have no window left go through the motions with one that does not count: split models compute together.
    """
    trainer, placement = module.trainer, module.placement
    total = torch.zeros(2, dtype=torch.float64, device=module.device)
    size = module.micro_batch
    module.model.eval()  # a user's model may add terms to its loss that are for training alone
    with trainer.precision_plugin.forward_context():
        mine = sample.batches(size, placement.share, placement.shares)
        for _ in range(-(-len(sample.windows) // (size * placement.shares))):  # ceil(ceil(n / shares) / size)
            rows = next(mine, None)
            ids = torch.zeros(1, sample.seq_len + 1, dtype=torch.int64) if rows is None else torch.from_numpy(rows)
            loss, count = module.model.loss(ids.to(module.device)).double(), 0 if rows is None else len(rows)
            total += torch.stack([loss * count, total.new_tensor(count)])
    module.model.train()
    if trainer.world_size > 1:
        total = trainer.strategy.reduce(total, reduce_op="sum")
    return float(total[0] / total[1])
