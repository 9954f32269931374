"""The decoder-only transformer of the suites.

Pre-norm blocks with RMSNorm, grouped-query attention with rotary positions, a GeGLU MLP four times as wide, no biases,
a token embedding scaled by sqrt(width), and an untied head. Source: Gemstones (arXiv 2502.06857), section 3.1; the
equations are Gemma's.

Parameters, by name (V vocabulary, C width, H and K query and key-value heads, D head size, I = 4C):

    embedding.weight            (V, C)
    blocks.N.norm_1.weight      (C,)            gain is 1 + weight
    blocks.N.attention.qkv.weight   ((H + 2K) * D, C)   query heads, key heads, value heads
    blocks.N.attention.out.weight   (C, H * D)
    blocks.N.norm_2.weight      (C,)
    blocks.N.mlp.gate_up.weight (2I, C)         gate, then up
    blocks.N.mlp.down.weight    (C, I)
    norm.weight                 (C,)
    head.weight                 (V, C)

B batch, T time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from shapelaw.errors import UserError
from shapelaw.model.attention import attend_sdpa, attention_backend, check_name
from shapelaw.model.kernels import (
    attend_small_heads,
    geglu,
    rms_norm,
    rotary_tables,
    split_rotate,
    takes_small_heads,
)
from shapelaw.model.loss import SoftmaxGradient, cross_entropy
from shapelaw.shapes import Shape


@dataclass(frozen=True)
class ModelSpec:
    """All that decides a model's function and parameters.

    Args:
        shape: width, depth and heads.
        vocab_size: number of token ids.
        seq_len: longest context, in tokens.
        rope_base: base of the rotary frequencies.
        norm_eps: added to the mean square in RMSNorm.
        attention: name of the attention back end: sdpa or flash.

    Raises:
        UserError: for an unknown back end or sizes that are not positive.
    """

    shape: Shape
    vocab_size: int
    seq_len: int
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5
    attention: str = "sdpa"

    def __post_init__(self) -> None:
        check_name(self.attention)
        for name in ("vocab_size", "seq_len", "rope_base", "norm_eps"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}={getattr(self, name)}: allowed values are positive numbers")


class Norm(nn.Module):
    """RMSNorm with gain 1 + weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        """Normalised x, same shape."""
        return rms_norm(x_BTC, self.weight, self.eps)


class Attention(nn.Module):
    """Causal grouped-query attention with rotary positions on the whole head."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        shape = spec.shape
        self.n_head, self.n_kv_head, self.head_size = shape.n_head, shape.n_kv_head, shape.head_size
        self.qkv = nn.Linear(shape.width, (self.n_head + 2 * self.n_kv_head) * self.head_size, bias=False)
        self.out = nn.Linear(self.n_head * self.head_size, shape.width, bias=False)
        self.attend = attention_backend(spec.attention)

    def forward(self, x_BTC: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Attention's contribution to the residual stream, (B, T, C)."""
        mixed: torch.Tensor = self.out(self._attend(self.qkv(x_BTC), cos, sin))
        return mixed

    def _attend(self, qkv_BTF: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        if self.attend is attend_sdpa and takes_small_heads(qkv_BTF, self.n_head, self.n_kv_head):
            return attend_small_heads(qkv_BTF, cos, sin, self.n_head, self.n_kv_head)
        q, k, v = split_rotate(qkv_BTF, cos, sin, self.n_head, self.n_kv_head)
        return self.attend(q, k, v).flatten(2)


class Mlp(nn.Module):
    """down(gelu(gate(x)) * up(x))."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.gate_up = nn.Linear(spec.shape.width, 2 * spec.shape.intermediate, bias=False)
        self.down = nn.Linear(spec.shape.intermediate, spec.shape.width, bias=False)

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        """The MLP's contribution to the residual stream, (B, T, C)."""
        mapped: torch.Tensor = self.down(geglu(self.gate_up(x_BTC)))
        return mapped


class Block(nn.Module):
    """x + attention(norm_1(x)), then x + mlp(norm_2(x))."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.norm_1 = Norm(spec.shape.width, spec.norm_eps)
        self.attention = Attention(spec)
        self.norm_2 = Norm(spec.shape.width, spec.norm_eps)
        self.mlp = Mlp(spec)

    def forward(self, x_BTC: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """The residual stream after this block, (B, T, C)."""
        x_BTC = x_BTC + self.attention(self.norm_1(x_BTC), cos, sin)
        mixed: torch.Tensor = x_BTC + self.mlp(self.norm_2(x_BTC))
        return mixed


class Transformer(nn.Module):
    """The model. Weights are torch's defaults until `initialise` (or a checkpoint) sets them.

    Args:
        spec: its sizes.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        width = spec.shape.width
        self.spec = spec
        self.softmax: SoftmaxGradient | None = None
        self.embedding = nn.Embedding(spec.vocab_size, width)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.shape.depth))
        self.norm = Norm(width, spec.norm_eps)
        self.head = nn.Linear(width, spec.vocab_size, bias=False)
        self.reset_tables()

    def reset_tables(self) -> None:
        """Computes the rotary tables on the parameters' device: needed after `to_empty` of a model built on meta."""
        cos, sin = rotary_tables(
            self.spec.seq_len, self.spec.shape.head_size, self.spec.rope_base, self.embedding.weight.device
        )
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def hidden(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Final normed features (B, T, C), what the head reads."""
        x_BTC = self.embedding(tokens_BT) * math.sqrt(self.spec.shape.width)
        for block in self.blocks:
            x_BTC = block(x_BTC, self.cos, self.sin)
        normed: torch.Tensor = self.norm(x_BTC)
        return normed

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) of the next token at every position.

        Raises:
            UserError: if the sequences are longer than the model's seq_len.
        """
        self._check_length(tokens_BT.shape[1])
        logits: torch.Tensor = self.head(self.hidden(tokens_BT))
        return logits

    def loss(self, tokens_and_targets_BT1: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy, in nats per token, of predicting token t + 1 from tokens 0..t.

        Args:
            tokens_and_targets_BT1: token ids (B, T + 1), int64; every sequence with the token that follows it.

        Raises:
            UserError: if T is longer than the model's seq_len.
        """
        self._check_length(tokens_and_targets_BT1.shape[1] - 1)
        hidden_BTC = self.hidden(tokens_and_targets_BT1[:, :-1])
        targets = tokens_and_targets_BT1[:, 1:].reshape(-1)
        return cross_entropy(hidden_BTC.flatten(0, 1), self.head.weight, targets, softmax=self.softmax)

    def _check_length(self, time: int) -> None:
        if time > self.spec.seq_len:
            raise UserError(f"a sequence of {time} tokens: this model takes up to seq_len={self.spec.seq_len}")
