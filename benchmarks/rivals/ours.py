"""shapelaw's training step, compiled as `compile=auto` does it where that is asked for."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch

from rivals.case import spec_of
from rivals.worker import Built
from shapelaw.model import Transformer, initialise
from shapelaw.model.cpu_memory import keep_freed_memory
from shapelaw.optim import build_adamw, clip_gradients
from shapelaw.training.compiling import compile_step

VERSION = version("shapelaw")


def build(sizes: dict[str, Any], tokens: torch.Tensor) -> Built:
    """The model and a step of it, as the training loop's."""
    keep_freed_memory()
    model = Transformer(spec_of(sizes)).to(tokens.device)
    initialise(model, seed=0)
    if sizes.get("compiled"):
        compile_step(model)
    optimizer = build_adamw(model, 1e-4)
    parameters = list(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=bool(sizes.get("gpu"))):
            torch.autograd.backward(model.loss(tokens))
        clip_gradients(parameters)
        optimizer.step()

    return Built(model, optimizer, step)
