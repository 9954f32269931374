"""Cross entropy of the next token straight from the features that the head reads, in nats per token.

The logits of a batch are the largest array of a training step (rows x vocabulary, 412 MB in float32 for 2048 tokens of
50,304). They are made for a chunk of rows at a time, turned into their own gradient in place, and multiplied into the
gradients of features and head at once: nothing is recomputed, the full array never exists, and a chunk stays in the
cache of a CPU. The price is one float32 gradient of the head held from the forward pass on. One chunk that holds all
rows is the plain form.

N rows (tokens), C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from shapelaw.model.kernels import fast_path, free_to_look
from shapelaw.thresholds import chunk_rows

SoftmaxGradient = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
"""(logits (N, V), targets (N,), losses (N,) to be written, factor) -> factor * (softmax - onehot), in place if it can."""


def cross_entropy(
    hidden_NC: torch.Tensor,
    head_VC: torch.Tensor,
    targets_N: torch.Tensor,
    rows_per_chunk: int | None = None,
    softmax: SoftmaxGradient | None = None,
) -> torch.Tensor:
    """mean over rows of -log softmax(hidden @ head^T)[target], in nats, a scalar in float32 or better.

    Under autocast the products run in its precision, softmax and sums in float32; float64 stays float64.

    Args:
        hidden_NC: features.
        head_VC: the head's weight.
        targets_N: token ids, int64.
        rows_per_chunk: rows of logits that exist at a time; by default `chunk_rows` chooses.
        softmax: what is done to a chunk's logits; by default `softmax_gradient`.
    """
    device_type = hidden_NC.device.type
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
        hidden_NC, head_VC = hidden_NC.to(dtype), head_VC.to(dtype)
    if rows_per_chunk is None:
        rows_per_chunk = chunk_rows(hidden_NC.shape[0], head_VC.shape[0], device_type)
    chosen = softmax or softmax_gradient
    loss = _ChunkedCrossEntropy.apply(hidden_NC, head_VC, targets_N, rows_per_chunk, chosen)  # type: ignore[no-untyped-call]
    return torch.as_tensor(loss)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NC: torch.Tensor,
        head_VC: torch.Tensor,
        targets_N: torch.Tensor,
        rows_per_chunk: int,
        softmax: SoftmaxGradient,
    ) -> torch.Tensor:
        with torch.autocast(hidden_NC.device.type, enabled=False):
            return _forward(ctx, hidden_NC, head_VC, targets_N, rows_per_chunk, softmax)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None, None]:
        grad_hidden, grad_head = ctx.saved_tensors
        # the factor is 1 unless the loss is scaled
        if not free_to_look(grad) or grad.item() != 1.0:
            grad_hidden, grad_head = grad_hidden * grad, grad_head * grad
        return grad_hidden, grad_head, None, None, None


def _forward(
    ctx: Any,
    hidden_NC: torch.Tensor,
    head_VC: torch.Tensor,
    targets_N: torch.Tensor,
    rows_per_chunk: int,
    softmax: SoftmaxGradient,
) -> torch.Tensor:
    """Losses, and where a gradient is asked for both gradients, for a loss that is the mean over all rows."""
    wants_grad = any(ctx.needs_input_grad[:2])
    rows = hidden_NC.shape[0]
    losses = torch.empty(rows, dtype=_exact_dtype(hidden_NC), device=hidden_NC.device)
    grad_hidden = torch.empty_like(hidden_NC) if wants_grad else None
    grad_head: torch.Tensor | None = None
    # One buffer for all chunks: fresh memory would cost a page fault every 4 KiB.
    buffer = hidden_NC.new_empty(min(rows_per_chunk, rows), head_VC.shape[0])
    for start in range(0, rows, rows_per_chunk):
        part = slice(start, start + rows_per_chunk)
        logits = torch.mm(hidden_NC[part], head_VC.t(), out=buffer[: rows - start])
        grad_logits = softmax(logits, targets_N[part], losses[part], 1.0 / rows if wants_grad else 0.0)
        if grad_hidden is not None:
            torch.mm(grad_logits, head_VC, out=grad_hidden[part])
            grad_head = _accumulate(grad_head, grad_logits, hidden_NC[part])
    if wants_grad:
        assert grad_head is not None
        ctx.save_for_backward(grad_hidden, grad_head.to(head_VC.dtype))
    return losses.mean()


def softmax_gradient(
    logits: torch.Tensor, targets: torch.Tensor, losses_out: torch.Tensor, grad_scale: float
) -> torch.Tensor:
    """Writes the rows' losses; returns grad_scale * (softmax - onehot) in the logits' precision, in their place."""
    if fast_path(logits):
        from shapelaw.model import cpu_kernels

        cpu_kernels.softmax_cross_entropy(logits.numpy(), targets.contiguous().numpy(), grad_scale, losses_out.numpy())
        return logits
    # no second array of the logits' size but their copy in float32, where they have fewer bits
    exact = logits.to(losses_out.dtype)
    exact.sub_(exact.amax(dim=-1, keepdim=True))
    at_target = exact.gather(-1, targets[:, None])
    totals = exact.exp_().sum(dim=-1, keepdim=True)
    losses_out.copy_((totals.log() - at_target).squeeze(-1))
    exact.mul_(grad_scale / totals)
    exact.scatter_add_(-1, targets[:, None], torch.full_like(at_target, -grad_scale))
    return exact if exact.dtype == logits.dtype else logits.copy_(exact)


def _accumulate(total_VC: torch.Tensor | None, grad_logits: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Adds a chunk's gradient of the head, in float32 or better."""
    if total_VC is None:
        return torch.mm(grad_logits.t(), hidden).to(_exact_dtype(hidden))
    if hidden.dtype == total_VC.dtype:
        return total_VC.addmm_(grad_logits.t(), hidden)
    return total_VC.add_(torch.mm(grad_logits.t(), hidden))


def _exact_dtype(x: torch.Tensor) -> torch.dtype:
    """Precision of sums over `x`: float32, or float64 for float64."""
    return torch.promote_types(x.dtype, torch.float32)
