"""On a GPU: the same kernels in every process of a run, and on request also the same order of every sum."""

from __future__ import annotations

import os
import re

import torch

from shapelaw.errors import UserError

UNREPEATABLE = re.compile(r"(\S+) does not have a deterministic implementation")
"""What torch says of an operation that it refuses."""
ATTENTION_WARNING = ".*Attention defaults to a non-deterministic algorithm.*"
"""What torch says of the gradient that only `deterministic=true` repeats."""


def choose_kernels(deterministic: bool) -> None:
    """Take kernels by rule rather than by timing, as torch's compiler would: two processes can time them differently.

    What is left is the gradient of attention, whose blocks of the context are added up as they are ready. With
    `deterministic` they are added in order, and an operation that has no such form is refused.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it torch refuses cuBLAS's products
    torch.use_deterministic_algorithms(True, warn_only=not deterministic)
    # nothing here reads memory that nobody wrote
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if deterministic:
        torch.backends.cuda.enable_cudnn_sdp(False)  # cuDNN's attention has no gradient that repeats


def refuse_unrepeatable(error: RuntimeError) -> None:
    """Say what to do about an operation that torch refuses for `deterministic=true`.

    Raises:
        UserError: if the error is such a refusal.
    """
    if found := UNREPEATABLE.search(str(error)):
        raise UserError(
            f"deterministic=true: {found[1]} does not repeat on this device; give deterministic=false, or a model without it"
        ) from error
