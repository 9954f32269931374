"""The element-wise parts of a block as functions: RMSNorm, rotary positions, GeGLU, and attention of small heads.

Each has a plain form in torch, which runs everywhere (mixed precision, GPUs, torch.compile), and a fast one for
float32 on a CPU of few threads (`cpu_kernels`); `fast_path` chooses. Both give the same numbers to float32 rounding.

B batch, T time, H query heads, K key-value heads, G = H / K, D head size, C width, I hidden width of the MLP.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from shapelaw.extras import installed
from shapelaw.thresholds import FAST_THREADS_MAX, SMALL_HEAD_MAX, SMALL_TIME_MAX

HAS_NUMBA = installed("numba")
"""A GPU node may train without it."""


def fast_path(x: torch.Tensor) -> bool:
    """Whether `x` can take the fast kernels: float32 on a CPU of few threads, outside autocast and compilation, by numba."""
    return (
        HAS_NUMBA
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch.get_num_threads() <= FAST_THREADS_MAX
    )


def free_to_look(x: torch.Tensor) -> bool:
    """Whether the program may read `x` in the middle of a step: on a CPU; it would have to wait for a GPU."""
    return x.device.type == "cpu"


def rms_norm(x: torch.Tensor, weight_C: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * (1 + weight), over the last dimension (Gemma's offset)."""
    if fast_path(x):
        return _RmsNorm.apply(x, weight_C, eps)  # type: ignore[no-any-return, no-untyped-call]
    return F.rms_norm(x, weight_C.shape, 1.0 + weight_C, eps)


def geglu(gate_up: torch.Tensor) -> torch.Tensor:
    """gelu(gate) * up with the tanh form of gelu; the last dimension holds gate, then up (arXiv 2002.05202)."""
    if fast_path(gate_up):
        return _Geglu.apply(gate_up)  # type: ignore[no-any-return, no-untyped-call]
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


def rotary_tables(
    seq_len: int, head_size: int, base: float, device: torch.device | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines (T, D/2) of t * base^(-2i/D), in float32 (RoFormer, arXiv 2104.09864, eq 34)."""
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=device) / head_size
    angles = torch.outer(torch.arange(seq_len, dtype=torch.float32, device=device), 1.0 / base**exponents)
    return angles.cos(), angles.sin()


def rotate(x_BTHD: torch.Tensor, cos_T: torch.Tensor, sin_T: torch.Tensor) -> torch.Tensor:
    """Rotary positions: features i and i + D/2 of every head are turned by the angle (t, i) of the tables."""
    cos, sin = (table[: x_BTHD.shape[1], None].to(x_BTHD.dtype) for table in (cos_T, sin_T))
    first, second = x_BTHD.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def split_rotate(
    qkv_BTF: torch.Tensor, cos_T: torch.Tensor, sin_T: torch.Tensor, n_head: int, n_kv_head: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries (B, T, H, D), keys and values (B, T, K, D) of the fused projection, queries and keys rotated.

    Args:
        qkv_BTF: F = (H + 2K) * D features: all query heads, then all key heads, then all value heads.
    """
    heads = qkv_BTF.view(*qkv_BTF.shape[:2], n_head + 2 * n_kv_head, -1)
    queries_keys, values = torch.split(heads, [n_head + n_kv_head, n_kv_head], dim=2)
    queries, keys = torch.split(rotate(queries_keys, cos_T, sin_T), [n_head, n_kv_head], dim=2)
    return queries, keys, values


def takes_small_heads(qkv_BTF: torch.Tensor, n_head: int, n_kv_head: int) -> bool:
    """Whether `attend_small_heads` can and should stand in for rotation and attention."""
    head_size = qkv_BTF.shape[-1] // (n_head + 2 * n_kv_head)
    small = head_size <= SMALL_HEAD_MAX and qkv_BTF.shape[1] <= SMALL_TIME_MAX
    return small and n_head % n_kv_head == 0 and fast_path(qkv_BTF)


def attend_small_heads(
    qkv_BTF: torch.Tensor, cos_T: torch.Tensor, sin_T: torch.Tensor, n_head: int, n_kv_head: int
) -> torch.Tensor:
    """Rotary causal attention (B, T, H * D) of the fused projection, by batched matmuls that keep the weights."""
    return _SmallHeads.apply(qkv_BTF, cos_T, sin_T, n_head, n_kv_head)  # type: ignore[no-any-return, no-untyped-call]


def _rows(x: torch.Tensor) -> Any:
    """The contiguous numpy matrix over the last dimension, without copying a contiguous tensor."""
    return x.detach().contiguous().view(-1, x.shape[-1]).numpy()


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight_C: torch.Tensor, eps: float) -> torch.Tensor:
        from shapelaw.model import cpu_kernels

        out = torch.empty(x.shape)
        scale = torch.empty(x.numel() // x.shape[-1])
        cpu_kernels.rms_norm_forward(_rows(x), weight_C.detach().numpy(), eps, _rows(out), scale.numpy())
        ctx.save_for_backward(x, weight_C, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        from shapelaw.model import cpu_kernels

        x, weight_C, scale = ctx.saved_tensors
        grad_x, grad_weight = torch.empty(x.shape), torch.empty(weight_C.shape)
        cpu_kernels.rms_norm_backward(
            _rows(grad), _rows(x), weight_C.detach().numpy(), scale.numpy(), _rows(grad_x), grad_weight.numpy()
        )
        return grad_x, grad_weight, None


class _Geglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor) -> torch.Tensor:
        from shapelaw.model import cpu_kernels

        out = torch.empty((*gate_up.shape[:-1], gate_up.shape[-1] // 2))
        cpu_kernels.geglu_forward(_rows(gate_up), _rows(out))
        ctx.save_for_backward(gate_up)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        from shapelaw.model import cpu_kernels

        (gate_up,) = ctx.saved_tensors
        grad_gate_up = torch.empty(gate_up.shape)
        cpu_kernels.geglu_backward(_rows(grad), _rows(gate_up), _rows(grad_gate_up))
        return grad_gate_up


class _SmallHeads(torch.autograd.Function):
    """Groups the G queries of a key-value head into one matrix of G * T rows, so that no key is repeated."""

    @staticmethod
    def forward(
        ctx: Any, qkv_BTF: torch.Tensor, cos_T: torch.Tensor, sin_T: torch.Tensor, n_head: int, n_kv_head: int
    ) -> torch.Tensor:
        from shapelaw.model import cpu_kernels

        batch, time, features = qkv_BTF.shape
        size, group = features // (n_head + 2 * n_kv_head), n_head // n_kv_head
        q = torch.empty(batch, n_kv_head, group, time, size)
        k, v = torch.empty(batch, n_kv_head, time, size), torch.empty(batch, n_kv_head, time, size)
        cpu_kernels.split_heads(
            qkv_BTF.detach().contiguous().numpy(), cos_T.numpy(), sin_T.numpy(), q.numpy(), k.numpy(), v.numpy()
        )
        q, k, v = q.view(-1, group * time, size), k.view(-1, time, size), v.view(-1, time, size)
        weights = torch.bmm(q, k.mT)
        cpu_kernels.causal_softmax(weights.numpy(), time, 1.0 / math.sqrt(size))
        out = torch.bmm(weights, v).view(batch, n_head, time, size)
        ctx.save_for_backward(q, k, v, weights, cos_T, sin_T)
        ctx.sizes = batch, n_kv_head, group, time, size
        return out.transpose(1, 2).reshape(batch, time, n_head * size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        from shapelaw.model import cpu_kernels

        q, k, v, weights, cos_T, sin_T = ctx.saved_tensors
        batch, n_kv_head, group, time, size = ctx.sizes
        grad_out = grad.view(batch, time, n_kv_head * group, size).transpose(1, 2).reshape(-1, group * time, size)
        grad_v = torch.bmm(weights.mT, grad_out)
        grad_scores = torch.bmm(grad_out, v.mT)
        cpu_kernels.causal_softmax_backward(grad_scores.numpy(), weights.numpy(), time, 1.0 / math.sqrt(size))
        grad_q, grad_k = torch.bmm(grad_scores, k), torch.bmm(grad_scores.mT, q)
        grad_qkv = torch.empty(batch, time, (n_kv_head * group + 2 * n_kv_head) * size)
        cpu_kernels.merge_head_gradients(
            grad_q.view(batch, n_kv_head, group, time, size).numpy(),
            grad_k.view(batch, n_kv_head, time, size).numpy(),
            grad_v.view(batch, n_kv_head, time, size).numpy(),
            cos_T.numpy(),
            sin_T.numpy(),
            grad_qkv.numpy(),
        )
        return grad_qkv, None, None, None, None
