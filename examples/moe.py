"""A small mixture of experts: each token goes to `top` of `experts`, each of which takes so many tokens and no more.

    shapelaw train model=examples/moe.py:MoE +model.options.experts=8.

The runs table has its columns params_active, experts and top.
"""

import torch
import torch.nn.functional as F
from torch import nn

from shapelaw.model import ModelSpec
from shapelaw.model.transformer import Transformer


class Experts(nn.Module):
    """Of N tokens an expert takes the first `room` that chose it; sizes are fixed, so that torch can count them on meta."""

    def __init__(self, width: int, experts: int, top: int, slack: float = 2.0) -> None:
        super().__init__()
        self.experts, self.top, self.slack = experts, top, slack
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, width, 2 * width) * width**-0.5)
        self.down = nn.Parameter(torch.randn(experts, 2 * width, width) * (2 * width) ** -0.5)

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        width, top, time = x_BTC.shape[2], self.top, x_BTC.shape[1]
        room = -(-int(self.slack * time * top) // self.experts)  # of each sequence, so that none sees another
        share, chosen = self.router(x_BTC).softmax(-1).topk(top, dim=-1)  # (B, T, top)
        picked = F.one_hot(chosen.flatten(1), self.experts)  # (B, T top, experts), earlier tokens first
        place = (picked.cumsum(1) * picked).sum(-1) - 1
        fits = place < room
        slot = torch.where(fits, chosen.flatten(1) * room + place, self.experts * room)[..., None].expand(-1, -1, width)
        tokens = x_BTC.repeat_interleave(top, dim=1)
        taken = x_BTC.new_zeros(len(x_BTC), self.experts * room + 1, width).scatter(1, slot, tokens)
        rows = taken[:, :-1].unflatten(1, (self.experts, room)).transpose(0, 1).flatten(1, 2)  # (experts, B room, C)
        mapped = torch.bmm(F.silu(torch.bmm(rows, self.up)), self.down).unflatten(1, (-1, room)).transpose(0, 1)
        back = F.pad(mapped.flatten(1, 2), (0, 0, 0, 1)).gather(1, slot) * share.flatten(1)[..., None]
        return back.unflatten(1, (time, top)).sum(2)


class MoE(Transformer):
    """The built-in model with experts in place of its MLPs."""

    def __init__(self, spec: ModelSpec, experts: int = 4, top: int = 1) -> None:
        super().__init__(spec)
        self.experts, self.top = experts, top
        for block in self.blocks:
            block.mlp = Experts(spec.shape.width, experts, top)

    def columns(self) -> dict[str, float]:
        matrices = sum(block.mlp.up.numel() + block.mlp.down.numel() for block in self.blocks)
        total = sum(parameter.numel() for parameter in self.parameters())
        return {
            "params_active": total - matrices * (1 - self.top / self.experts),
            "experts": self.experts,
            "top": self.top,
        }
