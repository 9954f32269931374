"""The gradient noise scale of a run, from gradients of two batch sizes that a step has anyway (McCandlish et al. 2018,
arXiv 1812.06162, appendix A).

G is the true gradient, Sigma the covariance of one sequence's gradient, and g the mean over b sequences:

    E |g|^2 = |G|^2 + tr(Sigma) / b

so that the mean squared norm of micro-batches and that of the whole batch give both. Nothing is computed twice: micro-batch
gradients are looked at on their way into the sum, before it is clipped. B_simple = tr(Sigma) / |G|^2; counts are in tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from shapelaw.tracking import NOISE_GRAD_SQ, NOISE_SCALE, NOISE_TRACE, Tracker
from shapelaw.training.module import RunModule


@dataclass(frozen=True)
class Moments:
    """What a step says of the gradient's distribution.

    Args:
        grad_sq: |G|^2, in squared nats per parameter unit; an unbiased estimate may be below 0.
        trace: tr(Sigma) of one token, in the same unit: that of a mean over b tokens is trace / b.
    """

    grad_sq: float
    trace: float

    @property
    def scale_tokens(self) -> float:
        """B_simple = tr(Sigma) / |G|^2, in tokens; NaN where |G|^2 is not above 0."""
        return self.trace / self.grad_sq if self.grad_sq > 0 else float("nan")


def moments(small_sq: float, big_sq: float, small_tokens: float, big_tokens: float) -> Moments:
    """|G|^2 and tr(Sigma) from the squared gradient norms of two batch sizes, both unbiased (appendix A.1).

    Args:
        small_sq, big_sq: mean squared norm of the gradient of a small and of a big batch.
        small_tokens, big_tokens: their sizes.

    |G|^2     = (B_big |G_big|^2 - B_small |G_small|^2) / (B_big - B_small)
    tr(Sigma) = (|G_small|^2 - |G_big|^2) / (1 / B_small - 1 / B_big)
    """
    grad_sq = (big_tokens * big_sq - small_tokens * small_sq) / (big_tokens - small_tokens)
    return Moments(grad_sq, (small_sq - big_sq) / (1 / small_tokens - 1 / big_tokens))


class RunningMoments:
    """Exponential means of |G|^2 and of tr(Sigma), each by itself: a mean of ratios would be biased.

    Args:
        measurements: over about how many measurements.
    """

    def __init__(self, measurements: int) -> None:
        self.keep = 1 - 1 / measurements
        self.weight = self.grad_sq = self.trace = 0.0

    def add(self, new: Moments) -> Moments:
        """Take a measurement in; the means, free of the bias of their start."""
        self.weight = self.keep * self.weight + (1 - self.keep)
        self.grad_sq = self.keep * self.grad_sq + (1 - self.keep) * new.grad_sq
        self.trace = self.keep * self.trace + (1 - self.keep) * new.trace
        return Moments(self.grad_sq / self.weight, self.trace / self.weight)


class MicroNorms:
    """The squared norms of a step's micro-batch gradients, weighted as they are in the batch's mean.

    With w_i the share of micro-batch i, autograd hands over w_i g_i; the sum of w_i |g_i|^2 is kept. Its expectation is
    |G|^2 + tr(Sigma) m / B for m micro-batches of whatever sizes in a batch of B, so it counts as of size B / m.

    Args:
        parameters: those of the model.
        weights: shares of the micro-batches, in their order.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], weights: Sequence[float]) -> None:
        held = [parameter for parameter in parameters if parameter.requires_grad]
        self.weights, self.seen = weights, [0] * len(held)
        self.total = torch.zeros((), dtype=torch.float64, device=held[0].device)
        self.handles: list[Any] = [
            parameter.register_hook(self._hook(index))  # type: ignore[no-untyped-call]
            for index, parameter in enumerate(held)
        ]

    def _hook(self, index: int) -> Any:
        def look(gradient: torch.Tensor) -> None:
            self.seen[index] += 1
            if self.seen[index] > len(self.weights):
                return
            weight = self.weights[self.seen[index] - 1]
            norm = torch.linalg.vector_norm(gradient.detach())
            self.total += norm.double().square() / weight

        return look

    @property
    def whole(self) -> bool:
        """Whether every parameter's gradient came once a micro-batch."""
        return set(self.seen) == {len(self.weights)}

    def close(self) -> torch.Tensor:
        """Look no longer; the weighted mean squared norm."""
        for handle in self.handles:
            handle.remove()
        return self.total


class NoiseScale(pl.Callback):
    """Measures and records the noise scale every so many steps. Between two of them it costs nothing.

    Raw estimates are recorded, and the ratio of their running means, which start anew where a run is continued.

    Args:
        tracker: where metrics go.
        batch_tokens: tokens of one optimizer step.
        every: steps from one measurement to the next.
        average: measurements over which the recorded ratio is smoothed.
    """

    def __init__(self, tracker: Tracker, batch_tokens: int, every: int, average: int) -> None:
        self.tracker, self.batch_tokens, self.every = tracker, batch_tokens, every
        self.running = RunningMoments(average)
        self.norms: MicroNorms | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: torch.Tensor, batch_index: int
    ) -> None:
        """Before a step that is measured."""
        assert isinstance(module, RunModule)
        if (module.progress.step + 1) % self.every == 0:
            sizes = [len(micro) for micro in torch.split(batch, module.micro_batch)]
            self.norms = MicroNorms(module.model.parameters(), [size / len(batch) for size in sizes])

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: torch.Tensor, batch_index: int
    ) -> None:
        """After it: the module keeps the norm that the whole batch's gradient had before it was clipped."""
        assert isinstance(module, RunModule)
        if self.norms is None:
            return
        norms, self.norms = self.norms, None
        small_sq, micros = norms.close(), len(norms.weights) * module.placement.shares
        if not norms.whole:  # the step was tried again with smaller micro-batches
            return
        if trainer.world_size > 1:
            small_sq = trainer.strategy.reduce(small_sq, reduce_op="mean")
        found = moments(float(small_sq), float(module.grad_norm) ** 2, self.batch_tokens / micros, self.batch_tokens)
        smooth = self.running.add(found)
        metrics = {NOISE_GRAD_SQ: found.grad_sq, NOISE_TRACE: found.trace}
        if smooth.grad_sq > 0:
            metrics[NOISE_SCALE] = smooth.scale_tokens
        self.tracker.log(metrics, module.progress.step * self.batch_tokens)
