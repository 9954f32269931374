"""Where a run starts: at its own newest checkpoint, at that of the run which it continues, or at its initial weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from shapelaw.config import AUTO, TrainConfig
from shapelaw.devices import host_memory
from shapelaw.errors import UserError
from shapelaw.model import Transformer, own
from shapelaw.model.initialisation import initial_weight
from shapelaw.optim import build_optimizer
from shapelaw.parallel.placement import Placement
from shapelaw.planned_run import PlannedRun, parent_checkpoint
from shapelaw.plugins import code_of, is_reference
from shapelaw.training import checkpoint
from shapelaw.training.checkpoint import Progress
from shapelaw.training.compiling import PLAIN, compile_step, compiles
from shapelaw.training.cost import arithmetic, fit_micro_batch, memory_limit
from shapelaw.training.group import wait_for_all
from shapelaw.training.module import RunModule
from shapelaw.training.recipe import init_spec, model_spec
from shapelaw.training.rollback import Rollback, discard_undone, read_rollbacks


def module_of(config: TrainConfig, planned: PlannedRun, placement: Placement) -> RunModule:
    """Model, optimizer and progress of a run, where it goes on; every process calls it for its part."""
    check_code(config, planned)
    # moved before the optimizer's state is loaded, which goes where the weights are
    model = _model(config, planned, placement).to(placement.device)
    optimizer = build_optimizer(model, planned.lr_at(planned.first_step), config.optim)
    events = read_rollbacks(planned.folder)
    if placement.rank == 0:
        discard_undone(planned.folder, events)
    wait_for_all()
    progress = _loaded(config, planned, model, optimizer, placement)
    _add_rollbacks(progress, events)
    asked = False if planned.model.own and config.compile == AUTO else config.compile
    if compiles(asked, placement.device.type == "cuda", placement.layout.kind):
        compile_step(model, planned.model.own)
    micro = _micro_batch(config, planned, placement)
    halves = config.micro_batch_sequences == AUTO and placement.layout.kind in PLAIN
    clip, measured = config.optim.clip_norm, bool(config.noise.every_steps)
    return RunModule(planned, model, optimizer, progress, micro, halves, clip, placement, measured)


def check_code(config: TrainConfig, planned: PlannedRun) -> None:
    """Refuse to train by another code of a user's part than the run was planned with.

    Raises:
        UserError: naming the part.
    """
    found, cooldown = planned.fingerprint, planned.fingerprint["cooldown"] or {}
    recorded = {
        "model": (config.model.name, found["parts"]["model"]),
        "optim": (config.optim.name, found["optim"].get("code")),
        "schedule": (config.schedule.name, found["schedule"].get("code")),
        "cooldown": (config.cooldown.name if cooldown else "", cooldown.get("code")),
    }
    for group, (name, code) in recorded.items():
        if is_reference(name) and code_of(group, name) != code:
            raise UserError(
                f"{group}={name}: its code was changed after this run was planned; run the same command again"
            )


def _model(config: TrainConfig, planned: PlannedRun, placement: Placement) -> Transformer:
    """The model: a user's with its initial weights, our own without."""
    spec = model_spec(planned, config)
    if planned.model.own:
        return own.build(planned.model, spec, config.seed)
    return placement.build(spec)


def _loaded(
    config: TrainConfig, planned: PlannedRun, model: Transformer, optimizer: torch.optim.Optimizer, placement: Placement
) -> Progress:
    progress = checkpoint.load_newest(planned.folder, model, optimizer, placement)
    if progress.step:
        return progress
    if planned.parent:
        parent = checkpoint.load(parent_checkpoint(planned), model, optimizer, placement)
        return replace(parent, seconds=0.0, loss_sum=0.0, loss_steps=0)
    if not planned.model.own:
        _initialise(config, planned, model, placement)
    return progress


def _add_rollbacks(progress: Progress, events: Sequence[Rollback]) -> None:
    """Rollbacks that were decided after the checkpoint was written."""
    new = [event for event in events if event not in progress.rollbacks]
    if new:
        progress.rollbacks, progress.seconds = [*progress.rollbacks, *new], new[-1].seconds


def _micro_batch(config: TrainConfig, planned: PlannedRun, placement: Placement) -> int:
    """Sequences of one forward pass on this device."""
    gpu = placement.device.type == "cuda"
    memory = torch.cuda.get_device_properties(placement.device).total_memory if gpu else host_memory()
    limit = memory_limit(config, memory, gpu)
    return fit_micro_batch(planned, config, placement.layout, arithmetic(config, gpu), limit)[0]


def _initialise(config: TrainConfig, planned: PlannedRun, model: Transformer, placement: Placement) -> None:
    """Initial weights by seed and name, the same whatever the layout; every process keeps its part."""
    init = init_spec(config)
    with torch.device("meta"):
        sizes = {name: weight.shape for name, weight in Transformer(model_spec(planned, config)).named_parameters()}
    full = {name: initial_weight(name, size, planned.shape, config.seed, init) for name, size in sizes.items()}
    checkpoint.set_weights(model, full, placement, planned.folder)
