"""AdamW as the Gemstones used it: which parameters decay, the fastest implementation of the device, the gradient clip.

Source: Gemstones (arXiv 2502.06857), section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from shapelaw.errors import UserError
from shapelaw.model.kernels import free_to_look


@dataclass(frozen=True)
class AdamWSpec:
    """Settings of AdamW, the paper's by default.

    Args:
        beta_1, beta_2: decay rates of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay; times the learning rate, the fraction that a step takes off.
        decay_embedding: whether the token embedding decays. The paper exempts biases and norms alone, so it does.
    """

    beta_1: float = 0.9
    beta_2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    decay_embedding: bool = True

    def __post_init__(self) -> None:
        for name in ("beta_1", "beta_2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"optimiser.{name}={getattr(self, name)}: allowed are numbers from 0 to below 1")
        for name in ("eps", "weight_decay"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise UserError(f"optimiser.{name}={getattr(self, name)}: allowed are finite numbers from 0")


DEFAULT_ADAMW = AdamWSpec()
"""The paper's."""


def parameter_groups(model: nn.Module, spec: AdamWSpec = DEFAULT_ADAMW) -> list[dict[str, Any]]:
    """Two groups, `decay` (every matrix, head and, by default, embedding included) and `no_decay` (norms).

    There are no biases. The authors' fork exempted the norms of the blocks but let the final one decay; the paper's
    text, which exempts all, is followed here.
    """
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        # tensor parallel matrices are stored flat
        matrix = parameter.ndim >= 2 or getattr(parameter, "is_tensor_parallel", False)
        exempt = not matrix or (name.endswith("embedding.weight") and not spec.decay_embedding)
        (no_decay if exempt else decay).append(parameter)
    return [
        {"name": "decay", "params": decay, "weight_decay": spec.weight_decay},
        {"name": "no_decay", "params": no_decay, "weight_decay": 0.0},
    ]


def build_adamw(model: nn.Module, lr: float, spec: AdamWSpec = DEFAULT_ADAMW) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`, one fused kernel per group.

    Fused is the fastest of torch's three forms on one CPU thread too (benchmarks/train_step.py prints all three).

    Args:
        model: on its final device.
        lr: learning rate of the first step; `set_lr` changes it.
        spec: settings.
    """
    groups = parameter_groups(model, spec)
    return torch.optim.AdamW(groups, lr=lr, betas=(spec.beta_1, spec.beta_2), eps=spec.eps, fused=True)


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = lr


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float = 1.0) -> torch.Tensor:
    """Scales all gradients so that their joint L2 norm is at most `max_norm`.

    On a GPU nothing waits for the norm: gradients are always multiplied by min(1, max_norm / (norm + 1e-6)). On a CPU,
    where looking is free, they are touched only when they are too long. A norm that is not finite makes gradients NaN
    on both: a diverged run is seen, not hidden.

    Returns:
        The norm before clipping, a scalar tensor on the gradients' device.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    scale_gradients(gradients, norm, max_norm)
    return norm


def scale_gradients(gradients: list[torch.Tensor], norm: torch.Tensor, max_norm: float) -> None:
    """Scales gradients of this norm to at most `max_norm`, as `clip_gradients` says."""
    if free_to_look(norm) and norm <= max_norm:
        return
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
