"""AdamW as the Gemstones used it: which parameters decay, the fastest implementation of the device, the gradient clip.

Source: Gemstones (arXiv 2502.06857), section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from shapelaw.config import OptimConfig
from shapelaw.model.kernels import free_to_look

PAPER = OptimConfig()
"""The paper's settings."""


def parameter_groups(model: nn.Module, options: OptimConfig = PAPER) -> list[dict[str, Any]]:
    """Two groups, `decay` (every matrix, head and, by default, embedding included) and `no_decay` (norms).

    There are no biases. The authors' fork exempted the norms of the blocks but let the final one decay; the paper's
    text, which exempts all, is followed here.
    """
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        # tensor parallel matrices are stored flat
        matrix = parameter.ndim >= 2 or getattr(parameter, "is_tensor_parallel", False)
        exempt = not matrix or (name.endswith("embedding.weight") and not options.decay_embedding)
        (no_decay if exempt else decay).append(parameter)
    return [
        {"name": "decay", "params": decay, "weight_decay": options.weight_decay},
        {"name": "no_decay", "params": no_decay, "weight_decay": 0.0},
    ]


def build_adamw(model: nn.Module, lr: float, options: OptimConfig = PAPER) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`, one fused kernel per group.

    Fused is the fastest of torch's three forms on one CPU thread too (benchmarks/train_step.py prints all three).

    Args:
        model: on its final device.
        lr: learning rate of the first step; `set_lr` changes it.
        options: of AdamW.
    """
    groups = parameter_groups(model, options)
    return torch.optim.AdamW(groups, lr=lr, betas=(options.beta1, options.beta2), eps=options.eps, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
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
