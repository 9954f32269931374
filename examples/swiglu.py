"""A model of one's own: SwiGLU, tied embeddings, and as many query heads to a key-value head as you like.

shapelaw train model=examples/swiglu.py:SwiGLU +model.options.group=4
"""

import torch
import torch.nn.functional as F
from torch import nn

from shapelaw.model import ModelSpec


class Block(nn.Module):
    """x + attention(norm(x)), then x + swiglu(norm(x)); rotary positions are left to learned ones below."""

    def __init__(self, width: int, heads: int, kv_heads: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, size = heads, kv_heads, width // heads
        self.norm_1, self.norm_2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * size, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(self.norm_1(x_BTC)).unflatten(-1, (self.heads + 2 * self.kv_heads, -1)).transpose(1, 2)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x_BTC = x_BTC + self.out(mixed.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norm_2(x_BTC)).chunk(2, dim=-1)
        return x_BTC + self.down(F.silu(gate) * up)


class SwiGLU(nn.Module):
    """The model of one shape. Its head is its embedding, so its parameters are counted once, as embedding."""

    embedding_names = ("embedding.", "positions")

    def __init__(self, spec: ModelSpec, group: int = 4) -> None:
        super().__init__()
        width, heads = spec.shape.width, spec.shape.n_head
        hidden = -(-8 * width // 24) * 8  # about 8/3 of the width, in eights
        self.embedding = nn.Embedding(spec.vocab_size, width)
        self.positions = nn.Parameter(torch.randn(spec.seq_len, width) * width**-0.5)
        kv_heads = max(heads // group, 1)
        self.blocks = nn.ModuleList(Block(width, heads, kv_heads, hidden) for _ in range(spec.shape.depth))
        self.norm = nn.RMSNorm(width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        x_BTC = self.embedding(tokens_BT) * self.embedding.embedding_dim**0.5
        x_BTC = x_BTC + self.positions[: tokens_BT.shape[1]]
        for block in self.blocks:
            x_BTC = block(x_BTC)
        return F.linear(self.norm(x_BTC), self.embedding.weight)
