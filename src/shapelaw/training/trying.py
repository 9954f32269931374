"""What users bring is tried before anything is created: a step of their model, and of their optimizer with its resumption."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import torch

from shapelaw.config import OptimConfig, ParallelKind, TrainConfig
from shapelaw.errors import UserError
from shapelaw.model import ModelSpec, Transformer, initialise, own
from shapelaw.optim import build_optimizer
from shapelaw.parallel.layout import Layout
from shapelaw.parallel.placement import Placement
from shapelaw.planned_run import PlannedRun
from shapelaw.training import checkpoint
from shapelaw.training.recipe import init_spec, model_spec

RATE = 1e-3
TIME = 32
"""Longest context of the steps by which an optimizer is tried."""


def try_parts(planned: PlannedRun, config: TrainConfig) -> None:
    """Try a run's model and optimizer, as far as they are a user's.

    Raises:
        UserError: naming what is wrong.
    """
    spec = replace(model_spec(planned, config), attention="sdpa")
    if config.model.own:
        own.check(config.model, spec)
    if config.optim.own or config.optim.lr_factors:
        small = replace(spec, seq_len=min(spec.seq_len, TIME))
        _try_optimizer(config, small)


def _try_optimizer(config: TrainConfig, spec: ModelSpec) -> None:
    """Two steps, the second also from a checkpoint after the first: they must be the same to the last bit."""
    options, place = config.optim, Placement(Layout(ParallelKind.single), 0, torch.device("cpu"))
    model, other = _model(config, spec), _model(config, spec)
    optimizer, resumed = build_optimizer(model, RATE, options), build_optimizer(other, RATE, options)
    _check_groups(model, optimizer, options)
    ids = torch.arange(2 * (spec.seq_len + 1)).reshape(2, -1) % spec.vocab_size
    _step(model, optimizer, ids, options)
    _check_state(optimizer, options)
    with TemporaryDirectory() as folder:
        kept = checkpoint.save(Path(folder), model, optimizer, checkpoint.Progress(step=1), place)
        checkpoint.load(kept, other, resumed, place)
    for held, stepped in ((model, optimizer), (other, resumed)):
        _step(held, stepped, ids, options)
    if not all(torch.equal(*pair) for pair in zip(model.parameters(), other.parameters(), strict=True)):
        _refuse(options, "goes on otherwise from a checkpoint: what it keeps has to be in optimizer.state[parameter]")


def _model(config: TrainConfig, spec: ModelSpec) -> Transformer:
    if config.model.own:
        return own.build(config.model, spec, config.seed)
    model = Transformer(spec)
    initialise(model, config.seed, init_spec(config))
    return model


def _step(model: Transformer, optimizer: torch.optim.Optimizer, ids: torch.Tensor, options: OptimConfig) -> None:
    torch.autograd.backward(model.loss(ids))
    try:
        optimizer.step()
    except Exception as error:
        _refuse(options, f"a step of it fails ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
    optimizer.zero_grad(set_to_none=True)


def _check_groups(model: Transformer, optimizer: torch.optim.Optimizer, options: OptimConfig) -> None:
    taken = Counter(id(parameter) for group in optimizer.param_groups for parameter in group["params"])
    for name, parameter in model.named_parameters():
        if taken[id(parameter)] != 1:
            _refuse(options, f"has {name} in {taken[id(parameter)]} of its param_groups, and not in one")


def _check_state(optimizer: torch.optim.Optimizer, options: OptimConfig) -> None:
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if not isinstance(value, torch.Tensor) or value.shape not in (parameter.shape, torch.Size()):
                _refuse(
                    options,
                    f"keeps {key} as a {type(value).__name__}: a checkpoint holds tensors, of a parameter's shape or single",
                )


def _refuse(options: OptimConfig, fault: str) -> NoReturn:
    raise UserError(f"optim={options.name}: {fault}; docs/your_model.md says what an optimizer must have")
