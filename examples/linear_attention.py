"""A gated linear attention block: a state per head that decays, computed chunk by chunk; no attention over all pairs.

shapelaw train model=examples/linear_attention.py:LinearAttention
"""

import torch
from torch import nn

from shapelaw.model import ModelSpec
from shapelaw.model.transformer import Transformer


class Gated(nn.Module):
    """y_t = q_t S_t with S_t = a S_(t-1) + k_t v_t^T, a the head's own decay; H heads of D features."""

    def __init__(self, width: int, heads: int, chunk: int = 32) -> None:
        super().__init__()
        self.heads, self.chunk = heads, chunk
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.decay = nn.Parameter(torch.linspace(2.0, 6.0, heads))  # a = sigmoid(decay)

    def forward(self, x_BTC: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        batch, time, width = x_BTC.shape
        pieces = self.qkv(x_BTC).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # 3 of (B, H, T, D)
        q, k, v = pieces * (width // self.heads) ** -0.25
        log_a = nn.functional.logsigmoid(self.decay)[:, None, None]
        state = q.new_zeros(batch, self.heads, q.shape[-1], q.shape[-1])
        found = []
        for start in range(0, time, self.chunk):
            q_c, k_c, v_c = (part[:, :, start : start + self.chunk] for part in (q, k, v))
            at = torch.arange(q_c.shape[2], device=q.device)[:, None].float()
            inside = torch.exp(log_a * (at - at.T).clamp(min=0)).tril()  # a^(t - s) for s <= t
            mixed = (q_c @ k_c.transpose(-1, -2) * inside) @ v_c
            found.append(mixed + torch.exp(log_a * (at + 1)) * (q_c @ state))
            left = torch.exp(log_a * (q_c.shape[2] - 1 - at))
            state = torch.exp(log_a * q_c.shape[2]) * state + (k_c * left).transpose(-1, -2) @ v_c
        return self.out(torch.cat(found, dim=2).transpose(1, 2).flatten(2))


class LinearAttention(Transformer):
    """The built-in model with this in place of its attention."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        for block in self.blocks:
            block.attention = Gated(spec.shape.width, spec.shape.n_head)
