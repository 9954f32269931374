"""Attention back ends behind one name: causal attention with grouped queries.

Each takes queries (B, T, H, D) and keys and values (B, T, K, D) with K dividing H, and returns (B, T, H, D); scores are
scaled by 1 / sqrt(D). B batch, T time, H query heads, K key-value heads, D head size.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from shapelaw.errors import UserError

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

HEAD_SIZE_MAX_FLASH = 256
"""Largest head the flash-attn kernels (CUDA and ROCm) take."""


def attend_sdpa(q_BTHD: torch.Tensor, k_BTKD: torch.Tensor, v_BTKD: torch.Tensor) -> torch.Tensor:
    """torch's scaled_dot_product_attention, which itself dispatches to a flash kernel on CPU, CUDA and ROCm."""
    grouped = q_BTHD.shape[2] != k_BTKD.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q_BTHD, k_BTKD, v_BTKD))
    if grouped and q.dtype is torch.float32 and q.is_cuda:  # no kernel but the one that holds all scores groups float32
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        grouped = False
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped).transpose(1, 2)


def flash(kernel: Callable[..., Any], deterministic: bool = False) -> Attend:
    """The flash-attn package's kernel; float32 inputs outside autocast go through it as bfloat16.

    Args:
        kernel: the package's flash_attn_func, given here: a compiled block that imported it would fall apart.
        deterministic: whether gradients are added up in one order.
    """

    def attend_flash(q_BTHD: torch.Tensor, k_BTKD: torch.Tensor, v_BTKD: torch.Tensor) -> torch.Tensor:
        half = q_BTHD.dtype if q_BTHD.dtype in (torch.float16, torch.bfloat16) else torch.bfloat16
        attended = kernel(q_BTHD.to(half), k_BTKD.to(half), v_BTKD.to(half), causal=True, deterministic=deterministic)
        return torch.as_tensor(attended).to(q_BTHD.dtype)

    return attend_flash


ATTENTIONS = ("sdpa", "flash")


def attention_backend(name: str) -> Attend:
    """The back end of this name.

    Raises:
        UserError: for an unknown name, and for flash without its package.
    """
    check_name(name)
    if name == "sdpa":
        return attend_sdpa  # torch's own kernels know what was asked of torch
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    return flash(_flash_attn_func(), torch.are_deterministic_algorithms_enabled() and not warns)


def check_name(name: str) -> None:
    """Raises UserError for an unknown back end."""
    if name not in ATTENTIONS:
        raise UserError(f"attention={name}: allowed values are {', '.join(ATTENTIONS)}")


def check_attention(name: str, device_type: str, head_size: int) -> None:
    """Refuses a back end that cannot run, before anything is built.

    Args:
        name: the back end.
        device_type: torch's name of the device: cpu, cuda (ROCm too), mps.
        head_size: features of a head.

    Raises:
        UserError: for an unknown name; for flash without a GPU, with a head above 256 or without the package.
    """
    check_name(name)
    if name != "flash":
        return
    if device_type != "cuda":
        raise UserError(f"attention=flash: runs on CUDA and ROCm devices, not on {device_type}; give attention=sdpa")
    if head_size > HEAD_SIZE_MAX_FLASH:
        raise UserError(
            f"attention=flash with head_size={head_size}: heads up to {HEAD_SIZE_MAX_FLASH} are allowed; "
            "give attention=sdpa or smaller heads"
        )
    _flash_attn_func()


def _flash_attn_func() -> Callable[..., Any]:
    try:
        function: Callable[..., Any] = importlib.import_module("flash_attn").flash_attn_func
    except ImportError as error:
        raise UserError(
            f"attention=flash: the flash-attn package cannot be imported ({error}); "
            "install shapelaw[flash] on a machine with a GPU tool chain, or give attention=sdpa"
        ) from error
    return function
