"""An optimizer of one's own: Lion (Chen et al. 2023, arXiv 2302.06675).

    shapelaw train optim=examples/lion.py:lion optim.weight_decay=1.0 lr_base=1 +optim.options.beta2=0.98

It is called with groups of parameters, each with its own weight_decay, and the rate. What it keeps of a parameter are tensors
in self.state[parameter], so that checkpoints hold it.
"""

from collections.abc import Sequence
from typing import Any

import torch


class Lion(torch.optim.Optimizer):
    """w -= lr (sign(beta1 m + (1 - beta1) g) + weight_decay w), m = beta2 m + (1 - beta2) g."""

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float, beta1: float, beta2: float) -> None:
        super().__init__(groups, {"lr": lr})
        self.beta1, self.beta2 = beta1, beta2

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in (one for one in group["params"] if one.grad is not None):
                state = self.state[parameter]
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                update = torch.lerp(parameter.grad, state["mean"], self.beta1).sign_()
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])
                state["mean"].lerp_(parameter.grad, 1 - self.beta2)


def lion(groups: Sequence[dict[str, Any]], lr: float, beta1: float = 0.9, beta2: float = 0.99) -> Lion:
    """What optim= names: called with the groups, the rate and +optim.options."""
    return Lion(groups, lr, beta1, beta2)
