"""Optimizers by name or of one's own: which parameters decay and at which rate, AdamW as the Gemstones used it, the clip.

Source: Gemstones (arXiv 2502.06857), section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from shapelaw.config import OptimConfig
from shapelaw.errors import UserError
from shapelaw.model.kernels import free_to_look
from shapelaw.plugins import part_of

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
    groups = [
        {"name": "decay", "params": decay, "weight_decay": options.weight_decay},
        {"name": "no_decay", "params": no_decay, "weight_decay": 0.0},
    ]
    return _by_rate(model, groups, options.lr_factors) if options.lr_factors else groups


def _by_rate(model: nn.Module, groups: Sequence[dict[str, Any]], factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """Each group parted by the factors of its parameters' rates, `lr_factor`."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    unread = [start for start in factors if not any(name.startswith(start) for name in names.values())]
    if unread:
        raise UserError(
            f"optim.lr_factors.{unread[0]}: no parameter's name begins so; the names begin with "
            f"{', '.join(dict.fromkeys(name.partition('.')[0] for name in names.values()))}"
        )

    def factor_of(parameter: nn.Parameter) -> float:
        return next((factor for start, factor in factors.items() if names[parameter].startswith(start)), 1.0)

    parted = []
    for group in groups:
        held = {
            factor: [one for one in group["params"] if factor_of(one) == factor] for factor in (1.0, *factors.values())
        }
        parted += [
            {**group, "name": f"{group['name']} x{factor:g}", "params": some, "lr_factor": factor}
            for factor, some in held.items()
            if some
        ]
    return parted


def build_optimizer(model: nn.Module, lr: float, options: OptimConfig = PAPER) -> torch.optim.Optimizer:
    """The optimizer of these options over `parameter_groups`.

    Args:
        model: on its final device.
        lr: learning rate of the first step; `set_lr` changes it.
        options: its name and settings.

    Raises:
        UserError: if torch has it not, or it is a user's and no optimizer.
    """
    optimizer = _own(model, lr, options) if options.own else _NAMED[options.name](model, lr, options)
    set_lr(optimizer, lr)
    return optimizer


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


def _amsgrad(model: nn.Module, lr: float, options: OptimConfig) -> torch.optim.Optimizer:
    groups, betas = parameter_groups(model, options), (options.beta1, options.beta2)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=options.eps, amsgrad=True, fused=True)


def _nadamw(model: nn.Module, lr: float, options: OptimConfig) -> torch.optim.Optimizer:
    groups, betas = parameter_groups(model, options), (options.beta1, options.beta2)
    return torch.optim.NAdam(groups, lr=lr, betas=betas, eps=options.eps, decoupled_weight_decay=True)


def _radamw(model: nn.Module, lr: float, options: OptimConfig) -> torch.optim.Optimizer:
    groups, betas = parameter_groups(model, options), (options.beta1, options.beta2)
    return torch.optim.RAdam(groups, lr=lr, betas=betas, eps=options.eps, decoupled_weight_decay=True)


class Joined(torch.optim.Optimizer):
    """Several optimizers of different parameters as one: their groups and states side by side.

    Args:
        parts: the optimizers.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = list(parts)
        for part in parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """A step of each."""
        for part in self.parts:
            part.step()


def _muon(model: nn.Module, lr: float, options: OptimConfig) -> torch.optim.Optimizer:
    """torch's Muon for hidden matrices, its step as long as AdamW's (arXiv 2502.16982), and AdamW for what is left."""
    if not hasattr(torch.optim, "Muon"):
        raise UserError(
            f"optim=muon: torch {torch.__version__} has it not; install torch 2.9 or newer, or give optim=adamw"
        )
    hidden = _hidden(model)
    groups = parameter_groups(model, options)
    matrices, rest = (
        [{**group, "params": [one for one in group["params"] if (one in hidden) == inside]} for group in groups]
        for inside in (True, False)
    )
    betas = (options.beta1, options.beta2)
    adamw = torch.optim.AdamW(_filled(rest), lr=lr, betas=betas, eps=options.eps, fused=True)
    if not hidden:
        return adamw
    muon = torch.optim.Muon(
        _filled(matrices), lr=lr, momentum=options.momentum, adjust_lr_fn="match_rms_adamw", weight_decay=0.0
    )
    return Joined([muon, adamw])


def _filled(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]


def _hidden(model: nn.Module) -> set[nn.Parameter]:
    """The matrices between embedding and head."""
    ends: tuple[str, ...] = ()
    for part in ("embedding", "head"):
        declared = getattr(model, f"{part}_names", None)
        ends += (f"{part}.",) if declared is None else tuple(declared)
    return {one for name, one in model.named_parameters() if one.ndim == 2 and not name.startswith(ends)}


def _own(model: nn.Module, lr: float, options: OptimConfig) -> torch.optim.Optimizer:
    """A user's: NAME(groups, lr, **options), over groups with name, params, weight_decay and, where asked, lr_factor."""
    part, groups = part_of("optim", options.name), parameter_groups(model, options)
    try:
        optimizer = part(_filled(groups), lr, **options.options)
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(
            f"optim={options.name}: called with groups of parameters and a rate it fails ({type(error).__name__}: {words}); "
            "docs/your_model.md says what an optimizer is called with"
        ) from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(
            f"optim={options.name}: gives a {type(optimizer).__name__}, and not a torch.optim.Optimizer (docs/your_model.md)"
        )
    return optimizer


_NAMED: dict[str, Callable[[nn.Module, float, OptimConfig], torch.optim.Optimizer]] = {
    "adamw": build_adamw,
    "amsgrad": _amsgrad,
    "nadamw": _nadamw,
    "radamw": _radamw,
    "muon": _muon,
}


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every group, times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)


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
