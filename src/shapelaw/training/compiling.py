"""Whether and how a run's step is compiled."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil

import torch

from shapelaw.config import AUTO, ParallelKind
from shapelaw.errors import UserError
from shapelaw.model import Transformer
from shapelaw.model.loss import softmax_gradient

log = logging.getLogger(__name__)
PLAIN = (ParallelKind.single, ParallelKind.ddp)
"""Layouts whose processes compute the plain model; the others exchange tensors inside its blocks."""


def compiles(asked: bool | str, gpu: bool, kind: ParallelKind) -> bool:
    """Whether the step is to be compiled: `auto` is on a GPU, with the plain model, where it can be.

    Raises:
        UserError: if it was asked for and cannot be.
    """
    if asked is False or (asked == AUTO and not (gpu and kind in PLAIN)):
        return False
    missing = missing_tool(gpu)
    if asked == AUTO:
        if missing:
            log.warning("the step is not compiled: %s is missing", missing)
        return not missing
    if kind not in PLAIN:
        raise UserError(f"compile=true with parallel={kind.value}: only single and ddp are compiled; give compile=auto")
    if missing:
        raise UserError(f"compile=true: {missing} is missing; install it, or give compile=false")
    return True


def missing_tool(gpu: bool) -> str | None:
    """What torch.compile needs and is not here."""
    if gpu and importlib.util.find_spec("triton") is None:
        return "the package triton"
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++"]
    return None if any(map(shutil.which, compilers)) else f"a C++ compiler ({' or '.join(compilers)})"


def compile_step(model: Transformer, own: bool = False) -> None:
    """Compiles the blocks, whose code is compiled once for all of them, and the softmax of the loss, in place.

    Sizes and the factor of the gradient stay constants of the code: torch would make the factor a variable at the first
    validation, which takes another, and such code, read back from its cache by a later process, leaves out the targets'
    part of the gradient (seen in torch 2.11 on a GPU and 2.13 on a CPU).

    Of a user's own model the forward pass is compiled.
    """
    if own:
        model.compile(dynamic=False)
        return
    for block in model.blocks:
        block.compile(dynamic=False)
    model.softmax = torch.compile(softmax_gradient, dynamic=False)
