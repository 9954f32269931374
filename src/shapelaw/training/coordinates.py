"""Sizes of activations and of weight updates in the first steps of a run, shape by shape (the coordinate check).

A rate rule should keep them steady as the shape grows: then a rate that suits one shape suits the others (Yang et al. 2022,
arXiv 2203.03466, appendix D.1). What is measured is the run's own: model, initial weights, AdamW, clip, order of the data.
Only the schedule is left out, as its warm-up would hide the rate.

B sequences, T context, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from shapelaw.config import TrainConfig
from shapelaw.model import Transformer, initialise
from shapelaw.optim import build_optimizer, clip_gradients
from shapelaw.planned_run import PlannedRun
from shapelaw.training.recipe import init_spec, model_spec

MATRICES = {
    "embedding.weight": "embedding",
    "attention.qkv.weight": "qkv",
    "attention.out.weight": "out",
    "mlp.gate_up.weight": "gate_up",
    "mlp.down.weight": "down",
    "head.weight": "head",
}
"""Ends of parameters' names -> kinds of matrices."""
Where = tuple[str, int | None]
"""Part and, of what there is one a block, the block's number."""


@dataclass(frozen=True)
class Tokens:
    """What all shapes see.

    Args:
        batches: one a step, (B, T + 1) ids.
        probe: on which activations are measured, (B', T + 1) ids.
    """

    batches: tuple[np.ndarray[Any, np.dtype[np.int64]], ...]
    probe: np.ndarray[Any, np.dtype[np.int64]]


def coordinates(
    planned: PlannedRun, config: TrainConfig, tokens: Tokens, device: torch.device, bf16: bool, micro: int
) -> pd.DataFrame:
    """One shape's sizes before the first step and after each.

    Args:
        planned: shape, peak rate.
        config: initial weights, optimizer.
        tokens: to train and to look at.
        device: where.
        bf16: whether products are in bfloat16 (autocast).
        micro: sequences of one forward pass; a step takes as many as its batch needs.

    Returns:
        A row for each step (0 is the start), quantity, part and layer: `size`, the root mean square (RMS) of an activation;
        `change`, the RMS of its difference from the start; `update`, the RMS of what the step added to a matrix; `relative`,
        that over the matrix's RMS before the step; `loss` of the probe, nats per token.
    """
    autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=bf16)
    model = _model(planned, config, device)
    optimizer = build_optimizer(model, planned.lr_eff, config.optim)
    probe = torch.from_numpy(tokens.probe).to(device)

    def activations() -> dict[Where, torch.Tensor]:
        with torch.no_grad(), autocast():
            return _activations(model, probe[:, :-1])

    start = activations()

    def look(step: int) -> list[dict[str, Any]]:
        with torch.no_grad(), autocast():
            loss = float(model.loss(probe))
        return [_row(step, "loss", ("probe", None), loss), *_sizes(step, start, activations() if step else start)]

    rows = look(0)
    for step, batch in enumerate(tokens.batches, 1):
        for part in torch.split(torch.from_numpy(batch).to(device), micro):
            with autocast():
                torch.autograd.backward(model.loss(part) * (len(part) / len(batch)))
        if config.optim.clip_norm:
            clip_gradients(model.parameters(), config.optim.clip_norm)
        updates = _take_step(step, model, optimizer)
        rows += [*look(step), *updates]
    shape = {"width": planned.shape.width, "depth": planned.shape.depth, "lr": planned.lr_eff}
    return pd.DataFrame(rows).assign(**shape).astype({"layer": "Int64"})


def _model(planned: PlannedRun, config: TrainConfig, device: torch.device) -> Transformer:
    model = Transformer(model_spec(planned, config)).to(device)
    initialise(model, config.seed, init_spec(config))
    return model


def _activations(model: Transformer, tokens_BT: torch.Tensor) -> dict[Where, torch.Tensor]:
    """Every activation of one forward pass, in float32: what enters the first block, what each block's two parts add, what
    leaves each block, and the logits."""
    seen: dict[Where, torch.Tensor] = {}

    def keep(where: Where) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: torch.Tensor) -> None:
            seen[where] = output.float()

        return hook

    def keep_input(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        seen["embedding", None] = inputs[0].float()

    handles = [model.blocks[0].register_forward_pre_hook(keep_input)]
    for layer, block in enumerate(model.blocks):
        parts = {"attention": block.get_submodule("attention"), "mlp": block.get_submodule("mlp"), "stream": block}
        handles += [part.register_forward_hook(keep((name, layer))) for name, part in parts.items()]
    try:
        seen["logits", None] = model(tokens_BT).float()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _matrices(model: Transformer) -> dict[Where, torch.Tensor]:
    """All matrices, as they are."""
    found = {}
    for name, parameter in model.named_parameters():
        kind = next((kind for end, kind in MATRICES.items() if name.endswith(end)), None)
        if kind:
            found[kind, int(name.split(".")[1]) if name.startswith("blocks.") else None] = parameter.detach()
    return found


def _take_step(step: int, model: Transformer, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """One step of the optimizer; what it added to every matrix."""
    before = {where: matrix.clone() for where, matrix in _matrices(model).items()}
    optimizer.step()
    optimizer.zero_grad()
    return list(_updates(step, before, _matrices(model)))


def _sizes(step: int, start: dict[Where, torch.Tensor], now: dict[Where, torch.Tensor]) -> Iterable[dict[str, Any]]:
    for where, value in now.items():
        yield _row(step, "size", where, _rms(value))
        if step:
            yield _row(step, "change", where, _rms(value - start[where]))


def _updates(step: int, before: dict[Where, torch.Tensor], now: dict[Where, torch.Tensor]) -> Iterable[dict[str, Any]]:
    for where, value in now.items():
        update = _rms(value - before[where])
        yield _row(step, "update", where, update)
        yield _row(step, "relative", where, update / _rms(before[where]))


def _row(step: int, quantity: str, where: Where, value: float) -> dict[str, Any]:
    part, layer = where
    return {"step": step, "quantity": quantity, "part": part, "layer": layer, "value": value}


def _rms(x: torch.Tensor) -> float:
    return float(x.float().square().mean().sqrt())
