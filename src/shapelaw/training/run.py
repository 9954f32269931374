"""Train one cell from wherever it stands: new, interrupted, or branching from another cell's checkpoint."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import OmegaConf

from shapelaw.cell import Cell, corpus_folder, further_folders, parent_checkpoint
from shapelaw.cell_state import State, Status, lock, read_state, write_state
from shapelaw.config import AUTO, ParallelKind, Precision, TrainConfig
from shapelaw.data import Corpus, Loader, ValidationSample, load_corpus, validation
from shapelaw.data.torch_batches import TokenBatches
from shapelaw.devices import check_devices, host_memory
from shapelaw.errors import UserError
from shapelaw.files import write_text
from shapelaw.model import ModelSpec, Transformer
from shapelaw.model.cpu_memory import keep_freed_memory
from shapelaw.model.initialisation import initial_weight
from shapelaw.optim import build_adamw
from shapelaw.parallel.layout import check_layout, check_noise, layout_of
from shapelaw.parallel.placement import Placement, place
from shapelaw.tracking import DIVERGED_TAG, PRUNED_TAG, ROLLBACKS, MlflowTracker, NoTracker, Store, Tracker
from shapelaw.training import checkpoint
from shapelaw.training.callbacks import Between, Costs, Interrupted, Pruned, running
from shapelaw.training.checkpoint import Progress
from shapelaw.training.compiling import PLAIN, compile_step, compiles
from shapelaw.training.cost import arithmetic, fit_micro_batch, flops_per_token, memory_limit
from shapelaw.training.module import CellModule
from shapelaw.training.noise import NoiseScale
from shapelaw.training.processes import launch, starts_processes, world_of
from shapelaw.training.recipe import init_spec, model_spec
from shapelaw.training.rollback import Rollback, batch_of, discard_undone, read_rollbacks, roll_back
from shapelaw.training.run_info import run_info
from shapelaw.training.spikes import Verdict
from shapelaw.training.trial import Trial
from shapelaw.training.watch import Diverged, SpikeSeen, Watch

log = logging.getLogger(__name__)


def run(config: TrainConfig, cell: Cell, tags: dict[str, str], show: Callable[[State], None]) -> float:
    """Train the cell to its end; the last held-out loss, nats per token. A finished cell is left as it is.

    A trial that its search gives up ends early and without an error; its state says so.

    Raises:
        UserError: for bad input, or when the run diverged.
        Interrupted: when it was asked to stop; its checkpoint is whole.
    """
    check_devices(config.accelerator, config.devices, torch.cuda.device_count() if torch.cuda.is_available() else 0)
    layout = layout_of(config.parallel, world_of(config))
    check_layout(layout, cell.shape, cell.vocab_size, cell.batch_sequences)
    if config.noise.every_steps:
        check_noise(layout, cell.batch_sequences, config.micro_batch_sequences)
    if starts_processes(layout.world):
        return launch(config, cell, tags, show)
    with lock(cell.folder) if rank() == 0 else contextlib.nullcontext():
        state = read_state(cell.folder)
        if state.status is Status.finished:
            assert state.val_loss is not None
            return state.val_loss
        corpus = load_corpus(corpus_folder(config), verify_hashes=config.data.verify.hashes if rank() == 0 else False)
        if rank() == 0:
            write_text(cell.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(config)))
        tracker = _tracker(config, cell, tags)
        tracker.artifact(cell.folder / "config.yaml")
        if state.status is Status.pruned:
            tracker.tag({PRUNED_TAG: ""})  # it goes on
        state = running(state, cell, tracker.run_id)
        loss = _train(config, cell, corpus, tracker, state, show)
    _leave()
    return loss


def rank() -> int:
    """This process's number among those that train the cell; the first alone writes."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # torchrun's, Lightning's own, srun's
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def _train(
    config: TrainConfig,
    cell: Cell,
    corpus: Corpus,
    tracker: Tracker,
    state: State,
    show: Callable[[State], None],
) -> float:
    """The run itself; whatever ends it is written into its state and its tracked run."""
    between: Between | None = None
    try:
        if config.threads:
            torch.set_num_threads(config.threads)
        keep_freed_memory()
        placement = _placed(config)
        tracker.tag(_computed(config, placement.device))
        between = _between(config, cell, corpus, tracker, state, show)
        _tell_rollbacks(cell, tracker)
        with contextlib.suppress(Pruned):
            while spike := _fit(config, cell, corpus, placement, between):
                _roll_back(config, cell, tracker, spike, placement)
        final = between.state
        assert final.val_loss is not None
    except BaseException as error:
        _record_error(error, cell, tracker, between.state if between else state)
        raise
    _record_end(final, between.pruned, cell, tracker)
    return final.val_loss


def _between(
    config: TrainConfig, cell: Cell, corpus: Corpus, tracker: Tracker, state: State, show: Callable[[State], None]
) -> Between:
    """What happens between the steps."""
    return Between(
        cell,
        validation(corpus, cell.seq_len, int(config.validation.tokens)),
        tracker,
        Costs(flops_per_token(cell), config.devices * config.num_nodes),
        state,
        config.checkpoint,
        config.tracker.log_every_steps,
        Watch(cell, config.spikes, tracker),
        show,
        _further(config, cell),
        Trial(config.search) if config.search.trial is not None and rank() == 0 else None,
    )


def _record_error(error: BaseException, cell: Cell, tracker: Tracker, last: State) -> None:
    """What ended a run early, which is on its way to whoever asked for it."""
    interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
    status = Status.interrupted if interrupted else Status.failed
    reason = (str(error).splitlines() or [""])[0]
    diverged = error.step if isinstance(error, Diverged) else None
    with contextlib.suppress(OSError):  # a full disk takes no state either
        _write_state(cell.folder, replace(last, status=status, reason=reason, diverged_step=diverged))
    with contextlib.suppress(UserError):
        if diverged is not None:
            tracker.tag({DIVERGED_TAG: str(diverged)})
        tracker.finish("KILLED" if interrupted else "FAILED")
    tracker.close()


def _record_end(final: State, pruned: bool, cell: Cell, tracker: Tracker) -> None:
    """That a run came to its end; the state comes last, as a cell that has it has nothing left to record."""
    if pruned:
        tracker.tag({PRUNED_TAG: f"after {final.tokens} tokens"})
    tracker.finish("KILLED" if pruned else "FINISHED")
    _write_state(cell.folder, replace(final, status=Status.pruned if pruned else Status.finished, diverged_step=None))
    tracker.close()


def _further(config: TrainConfig, cell: Cell) -> dict[str, ValidationSample]:
    """Further held-out samples by their names, each of validation.tokens."""
    tokens = int(config.validation.tokens)
    corpora = {name: load_corpus(path) for name, path in further_folders(config).items()}
    return {name: validation(corpus, cell.seq_len, tokens) for name, corpus in corpora.items()}


def _write_state(folder: Path, state: State) -> None:
    if rank() == 0:
        write_state(folder, state)


def _placed(config: TrainConfig) -> Placement:
    """The run's layout in this process, its process group joined."""
    layout = layout_of(config.parallel, world_of(config))
    environment, device = _environment(config), torch.device("cpu")
    if config.accelerator != "cpu" and torch.cuda.is_available():
        device = torch.device("cuda", environment.local_rank())
    if layout.world == 1:
        return place(layout, 0, device)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.set_device(device)
    elif layout.kind is ParallelKind.axonn and config.precision is Precision.bf16:
        raise UserError(
            "precision=bf16 with parallel=axonn on a CPU: the package casts for GPUs only; give precision=fp32"
        )
    torch.distributed.init_process_group(
        "nccl" if gpu else "gloo",
        rank=environment.global_rank(),
        world_size=layout.world,
        device_id=device if gpu else None,
    )
    return place(layout, environment.global_rank(), device)


def _module(config: TrainConfig, cell: Cell, placement: Placement) -> CellModule:
    """Model and optimizer, at the newest checkpoint of the cell, of its parent, or at the start."""
    spec = model_spec(cell, config)
    # moved before the optimizer's state is loaded, which goes where the weights are
    model = placement.build(spec).to(placement.device)
    optimizer = build_adamw(model, cell.lr_at(cell.first_step), config.optim)
    events = read_rollbacks(cell.folder)
    if placement.rank == 0:
        discard_undone(cell.folder, events)
    _wait_for_all()
    progress = checkpoint.load_newest(cell.folder, model, optimizer, placement)
    if progress.step == 0 and cell.parent:
        progress = _branch(cell, model, optimizer, placement)
    elif progress.step == 0:
        _initialise(config, cell, spec, model, placement)
    new = [event for event in events if event not in progress.rollbacks]
    if new:
        progress.rollbacks, progress.seconds = [*progress.rollbacks, *new], new[-1].seconds
    gpu = placement.device.type == "cuda"
    if compiles(config.compile, gpu, placement.layout.kind):
        compile_step(model)
    micro = _micro_batch(config, cell, placement)
    halves = config.micro_batch_sequences == AUTO and placement.layout.kind in PLAIN
    clip, measured = config.optim.clip_norm, bool(config.noise.every_steps)
    return CellModule(cell, model, optimizer, progress, micro, halves, clip, placement, measured)


def _micro_batch(config: TrainConfig, cell: Cell, placement: Placement) -> int:
    """Sequences of one forward pass on this device."""
    gpu = placement.device.type == "cuda"
    memory = torch.cuda.get_device_properties(placement.device).total_memory if gpu else host_memory()
    limit = memory_limit(config, memory, gpu)
    return fit_micro_batch(cell, config, placement.layout, arithmetic(config, gpu), limit)[0]


def _initialise(config: TrainConfig, cell: Cell, spec: ModelSpec, model: Transformer, placement: Placement) -> None:
    """Initial weights by seed and name, the same whatever the layout; every process keeps its part."""
    init = init_spec(config)
    with torch.device("meta"):
        sizes = {name: parameter.shape for name, parameter in Transformer(spec).named_parameters()}
    full = {name: initial_weight(name, size, cell.shape, config.seed, init) for name, size in sizes.items()}
    checkpoint.set_weights(model, full, placement, cell.folder)


def _branch(cell: Cell, model: Transformer, optimizer: torch.optim.Optimizer, placement: Placement) -> Progress:
    """Model and optimizer as its parent left them where the branch starts."""
    path = parent_checkpoint(cell)
    return replace(checkpoint.load(path, model, optimizer, placement), seconds=0.0, loss_sum=0.0, loss_steps=0)


def _tell_rollbacks(cell: Cell, tracker: Tracker) -> None:
    """Record the rollbacks of the cell that are not recorded yet: it may have been killed in the middle of one."""
    for event in read_rollbacks(cell.folder):
        metrics = {ROLLBACKS: event.number, "spike/first_step": event.first_step, "spike/lr_scale": event.lr_scale}
        tracker.rewind(event.number, event.to_step * cell.batch_tokens, {**metrics, "spike/step": event.step})


def _roll_back(config: TrainConfig, cell: Cell, tracker: Tracker, spike: Spike, placement: Placement) -> None:
    """Decide where the run goes on, write it down and record it."""
    if placement.rank == 0:
        policy = config.spikes
        event = roll_back(cell, spike.rollbacks, spike.verdict, policy.lr_factor, policy.margin_steps, spike.seconds)
        log.warning(
            "%s: a spike (%s) at steps %d to %d; back to step %d, without its batches, at %g of the rate",
            *(cell.label, event.what, event.first_step, event.step, event.to_step, event.lr_scale),
        )
    _wait_for_all()
    _tell_rollbacks(cell, tracker)


def _wait_for_all() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def _leave() -> None:
    """Close the process group, together: what is left of one at a process's end can abort it."""
    _wait_for_all()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@dataclass(frozen=True)
class Spike:
    """A spike that a run is to be rolled back for: verdict, rollbacks before it, seconds of steps taken."""

    verdict: Verdict
    rollbacks: Sequence[Rollback]
    seconds: float


def _fit(config: TrainConfig, cell: Cell, corpus: Corpus, placement: Placement, between: Between) -> Spike | None:
    """Lightning's loop over the steps that are left; the spike that ended it, if one did."""
    module = _module(config, cell, placement)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # devices and tips are not news in a sweep
    trainer = _trainer(config, placement, [*_noise(config, cell, between.tracker), between])
    batches = TokenBatches(
        Loader.of(corpus, cell.seq_len, config.order_seed),
        batch_sequences=cell.batch_sequences,
        start_step=module.progress.step,
        steps=cell.last_step - module.progress.step,
        rank=module.placement.share,
        world=module.placement.shares,
        device=module.placement.device,
        batch_of=partial(batch_of, skipped=module.progress.skipped),
    )
    with warnings.catch_warnings():
        # lightning's own use of a torch name that is on its way out
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        # a machine that has SLURM's tools need not use them
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        try:
            trainer.fit(module, train_dataloaders=batches)
        except SpikeSeen as seen:
            return Spike(seen.verdict, module.progress.rollbacks, module.progress.seconds)
    return None


def _noise(config: TrainConfig, cell: Cell, tracker: Tracker) -> list[pl.Callback]:
    every, average = config.noise.every_steps, config.noise.average
    return [NoiseScale(tracker, cell.batch_tokens, every, average)] if every else []


def _trainer(config: TrainConfig, placement: Placement, callbacks: list[pl.Callback]) -> pl.Trainer:
    return pl.Trainer(
        accelerator=placement.device.type,
        devices=config.devices,
        num_nodes=config.num_nodes,
        precision=_precision(config.precision, placement.device),  # type: ignore[arg-type]
        max_epochs=1,
        callbacks=callbacks,
        plugins=[_environment(config)],
        strategy=Placed() if world_of(config) > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class Placed(DDPStrategy):
    """Lightning's loop over several processes; model and gradients are the placement's."""

    def configure_ddp(self) -> None:
        """Nothing to wrap."""


def _environment(config: TrainConfig) -> ClusterEnvironment:
    """How the processes of the cell find each other; the signals stay ours, and one process asks no scheduler."""
    if world_of(config) == 1:
        return LightningEnvironment()
    if "RANK" in os.environ:
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False)


def _precision(precision: Precision, device: torch.device) -> str:
    """Lightning's name for it; auto is bf16 on a GPU that has it."""
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bf16-mixed" if precision is Precision.bf16 or (precision is Precision.auto and has_bf16) else "32-true"


def _computed(config: TrainConfig, device: torch.device) -> dict[str, str]:
    """Tags: what the run is computed on and in, which no identity says."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"shapelaw.device": name, "shapelaw.precision": _precision(config.precision, device)}


def _tracker(config: TrainConfig, cell: Cell, tags: dict[str, str]) -> Tracker:
    settings = config.tracker
    if settings.name == "none" or rank():
        return NoTracker()
    store = Store.of(settings, cell.suite)
    return MlflowTracker(store, run_info(config, cell, tags), cell.folder, settings.finish_seconds)
