"""The transformer with its matrices split by AxoNN's layers, in its expert mode: activations stay split between layers.

The residual stream is split by features over the column group and the same in every process of a row group; heads, the
MLP's hidden features and the vocabulary of the head are split over the row group. Depth and data groups share the batch.

N rows (tokens), C width, V vocabulary; local sizes are full ones divided by the degrees.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from axonn import axonn as ax
from axonn.intra_layer import Gather, Linear
from axonn.intra_layer.communication import ForwardGather_BackwardReduceScatter
from torch import nn
from torch.autograd.function import once_differentiable

from shapelaw.model.transformer import Block, ModelSpec, Norm, Transformer
from shapelaw.parallel.layout import Layout
from shapelaw.thresholds import chunk_rows


class AxonnTransformer(Transformer):
    """The same function as `Transformer`, for this process's part of the weights. Call `axonn.init` first.

    Args:
        spec: sizes of the full model.
        layout: the degrees.
    """

    def __init__(self, spec: ModelSpec, layout: Layout) -> None:
        with torch.device("meta"):
            super().__init__(spec)
        shape = spec.shape
        self.embedding = ColumnEmbedding(spec.vocab_size, shape.width, layout)  # type: ignore[assignment]
        self.norm = ColumnNorm(shape.width, spec.norm_eps, layout)
        self.head = _linear(self.head)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.norm_1 = ColumnNorm(shape.width, spec.norm_eps, layout)
            block.norm_2 = ColumnNorm(shape.width, spec.norm_eps, layout)
            attention, mlp = block.attention, block.mlp
            attention.n_head, attention.n_kv_head = shape.n_head // layout.row, shape.n_kv_head // layout.row
            attention.qkv, attention.out = _linear(attention.qkv), _linear(attention.out, transpose=True)
            mlp.gate_up, mlp.down = _linear(mlp.gate_up), _linear(mlp.down, transpose=True)
        self.reset_tables()

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Full logits (B, T, V) in every process."""
        logits: torch.Tensor = Gather.apply(super().forward(tokens_BT), self.head.outer_group)
        return logits

    def loss(self, tokens_and_targets_BT1: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy of this process's sequences, nats per token; the same over row and column groups."""
        self._check_length(tokens_and_targets_BT1.shape[1] - 1)
        hidden_NC = self.hidden(tokens_and_targets_BT1[:, :-1]).flatten(0, 1)
        flat = ForwardGather_BackwardReduceScatter.apply(self.head.weight, self.head.depth_group)
        head_VC = flat.view(self.head.local_out_features, self.head.local_in_features)
        device = hidden_NC.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            hidden_NC, head_VC = hidden_NC.to(dtype), head_VC.to(dtype)
        targets = tokens_and_targets_BT1[:, 1:].reshape(-1)
        groups = self.head.outer_group, self.head.inner_group
        return torch.as_tensor(_SplitCrossEntropy.apply(hidden_NC, head_VC, targets, *groups))  # type: ignore[no-untyped-call]


class ColumnEmbedding(nn.Module):
    """Token embedding, split by features over the column group and stored flat over depth.

    The package's own embedding takes a row or a column degree, not both at once.
    """

    def __init__(self, vocab_size: int, width: int, layout: Layout) -> None:
        super().__init__()
        self.size = vocab_size, width // layout.column
        self.weight = nn.Parameter(torch.empty(self.size[0] * self.size[1] // layout.depth))
        self.weight.is_tensor_parallel = True  # type: ignore[attr-defined]  # the package's mark: already summed over depth
        self.depth_group = ax.comm_handle.depth_intra_layer_parallel_group

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """This process's features (B, T, C / column)."""
        flat = ForwardGather_BackwardReduceScatter.apply(self.weight, self.depth_group)
        return F.embedding(tokens_BT, flat.view(self.size))


class ColumnNorm(Norm):
    """RMSNorm over features that are split over the column group."""

    def __init__(self, width: int, eps: float, layout: Layout) -> None:
        super().__init__(width // layout.column, eps)
        self.width, self.split = width, layout.column > 1
        self.group = ax.comm_handle.inner_intra_layer_parallel_group

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        """Normalised x, same shape."""
        if not self.split:
            return super().forward(x_BTC)
        exact = x_BTC.to(torch.promote_types(x_BTC.dtype, torch.float32))
        squares = _SumBothWays.apply(exact.square().sum(-1, keepdim=True), self.group)  # type: ignore[no-untyped-call]
        scaled = exact * torch.rsqrt(squares / self.width + self.eps) * (1.0 + self.weight)
        return scaled.to(x_BTC.dtype)


class _SumBothWays(torch.autograd.Function):
    """A sum over a group that every process of it uses for its own part: gradients add up as values do."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        return _summed(x, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _summed(grad, ctx.group), None


class _SplitCrossEntropy(torch.autograd.Function):
    """`model.loss` for features split over columns and a vocabulary split over rows, with the same chunks."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NC: torch.Tensor, head_VC: torch.Tensor, targets_N: torch.Tensor, rows: Any, columns: Any
    ) -> torch.Tensor:
        with torch.autocast(hidden_NC.device.type, enabled=False):
            return _losses(ctx, hidden_NC, head_VC, targets_N, rows, columns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None, None]:
        grad_hidden, grad_head = ctx.saved_tensors
        return grad_hidden * grad, grad_head * grad, None, None, None


def _losses(
    ctx: Any, hidden_NC: torch.Tensor, head_VC: torch.Tensor, targets_N: torch.Tensor, rows: Any, columns: Any
) -> torch.Tensor:
    count, step = len(hidden_NC), chunk_rows(len(hidden_NC), len(head_VC), hidden_NC.device.type)
    exact = torch.promote_types(hidden_NC.dtype, torch.float32)
    grad_hidden, grad_head = torch.empty_like(hidden_NC), torch.zeros(head_VC.shape, dtype=exact, device=head_VC.device)
    total = torch.zeros((), dtype=exact, device=hidden_NC.device)
    for start in range(0, count, step):
        chunk = slice(start, start + step)
        logits = _summed(hidden_NC[chunk] @ head_VC.t(), columns).to(exact)
        loss, grad_logits = _softmax_split(logits, targets_N[chunk], rows)
        total += loss
        grad_logits = (grad_logits / count).to(hidden_NC.dtype)
        grad_hidden[chunk] = _summed(grad_logits @ head_VC, rows)
        grad_head += grad_logits.t() @ hidden_NC[chunk]
    ctx.save_for_backward(grad_hidden, grad_head.to(head_VC.dtype))
    return total / count


def _softmax_split(logits_NV: torch.Tensor, targets_N: torch.Tensor, rows: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss and softmax - onehot of logits whose vocabulary is split over a group."""
    highest = logits_NV.max(-1, keepdim=True).values
    dist.all_reduce(highest, dist.ReduceOp.MAX, group=rows)
    exps = (logits_NV - highest).exp()
    norm = _summed(exps.sum(-1, keepdim=True), rows)
    local = targets_N[:, None] - dist.get_rank(rows) * logits_NV.shape[1]
    ours = (local >= 0) & (local < logits_NV.shape[1])
    index = local.clamp(0, logits_NV.shape[1] - 1)
    at_target = _summed(torch.where(ours, logits_NV.gather(-1, index), 0.0), rows)
    gradient = (exps / norm).scatter_add_(-1, index, -ours.to(exps.dtype))
    return (highest + norm.log() - at_target).sum(), gradient


def _summed(x: torch.Tensor, group: Any) -> torch.Tensor:
    x = x.contiguous().clone()
    dist.all_reduce(x, group=group)
    return x


def _linear(full: Any, transpose: bool = False) -> Any:
    """AxoNN's layer of the same sizes; its weights are set later."""
    return Linear(
        full.in_features, full.out_features, bias=False, transpose=transpose, init_method=_unset, expert_mode=True
    )


def _unset(weight: torch.Tensor) -> None:
    """Leave a weight unset: the package would draw it from each process's own generator, and copies would differ."""
