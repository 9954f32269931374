"""Checkpoints: a folder of safetensors and a JSON file, written aside and renamed, with checksums; no pickle anywhere.

The tensors are full ones whatever the layout of the processes, so that any other can continue from them.

checkpoints/step-00000120/model.safetensors      weights by parameter name
                          optimizer.safetensors  AdamW's state, PARAMETER.NAME
                          state.json             counters, the SHA-256 of the two files, and a seal of its own
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from shapelaw.errors import Damaged, UserError
from shapelaw.files import read_json, unsealed, write_sealed
from shapelaw.parallel.placement import Placement
from shapelaw.planned_run import checkpoint_path, checkpoint_steps
from shapelaw.training.rollback import Rollback, Stretch

log = logging.getLogger(__name__)
FORMAT_VERSION = 2
OLD_FIELDS = {1: ("rollbacks", "watch")}
"""Older format that is read too -> what it does not count yet."""
MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"


@dataclass
class Progress:
    """How far a run has come; what a checkpoint counts beside the tensors.

    Args:
        step: optimizer steps done.
        seconds: seconds spent in steps (not in validations, checkpoints or start-up).
        loss_sum, loss_steps: training loss summed since it was last recorded, and over how many steps.
        rollbacks: of the run up to here, those of the runs it branched off included.
        watch: what the detector of spikes knows (`shapelaw.training.monitor`).
    """

    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_steps: int = 0
    rollbacks: list[Rollback] = field(default_factory=list)
    watch: dict[str, Any] = field(default_factory=dict)

    @property
    def lr_scale(self) -> float:
        """Factor of the rate that rollbacks have left."""
        return self.rollbacks[-1].lr_scale if self.rollbacks else 1.0

    @property
    def skipped(self) -> tuple[Stretch, ...]:
        """Batches that rollbacks have left out of the order."""
        return self.rollbacks[-1].skipped if self.rollbacks else ()


def save(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, placement: Placement
) -> Path:
    """Write a checkpoint aside, flush it, and rename it into place; an existing one of this step stays.

    Every process calls it; the first writes.

    Raises:
        UserError: if the disk is full; what was there stays.
    """
    final = checkpoint_path(folder, progress.step)
    if placement.rank and not placement.sharded:
        return final
    placement.settle(model)
    weights = _full({name: (name, held.detach()) for name, held in model.named_parameters()}, placement)
    moments = _full(_optimizer_tensors(model, optimizer), placement)
    if placement.rank or final.exists():
        return final
    aside = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    aside.mkdir(parents=True)
    try:
        write_tensors(aside / MODEL, weights)
        write_tensors(aside / OPTIMIZER, moments)
        sums = {name: _flush(aside / name) for name in (MODEL, OPTIMIZER)}
        write_sealed(aside / "state.json", {"version": FORMAT_VERSION, "sha256": sums, **asdict(progress)})
        aside.rename(final)
    except OSError as error:
        raise UserError(
            f"checkpoint after step {progress.step} could not be written to {folder} ({error}); the ones before it are "
            "whole; free some space and run the same command again"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return final


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file.

    Raises:
        OSError: naming the file, which safetensors itself tells in words of its own.
    """
    path.touch()
    mode = path.stat().st_mode  # as the umask has it; safetensors makes files that nobody else can read
    try:
        save_file(dict(tensors), path, metadata)
        path.chmod(mode)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, placement: Placement) -> Progress:
    """Load a checkpoint into model and optimizer: every process its part.

    Raises:
        Damaged: if a file is missing or not what was written.
        UserError: if it is of another version, or of another model.
    """
    state = _verified_state(path)
    set_weights(model, load_file(path / MODEL), placement, path)
    _load_optimizer(load_file(path / OPTIMIZER), model, optimizer, placement)
    counts = {field.name: state[field.name] for field in fields(Progress) if field.name in state}
    return Progress(**{**counts, "rollbacks": [Rollback.read(event) for event in counts.get("rollbacks", [])]})


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """The full weights of a checkpoint by parameter name, checked against its checksums.

    Raises:
        Damaged: if a file is missing or not what was written.
        UserError: if it is of another version.
    """
    _verified_state(path)
    return load_file(path / MODEL)


@torch.no_grad()
def set_weights(model: nn.Module, full: Mapping[str, torch.Tensor], placement: Placement, source: Path) -> None:
    """Give every parameter its part of the full tensors.

    Raises:
        UserError: if the tensors are of another model; the source is named.
    """
    parameters = dict(model.named_parameters())
    if parameters.keys() != full.keys():
        raise UserError(f"{source} is of another model: {sorted(parameters.keys() ^ full.keys())[0]} is in one only")
    for name, parameter in parameters.items():
        held = placement.part(name, full[name], parameter)
        if held.shape != parameter.shape:
            raise UserError(f"{source} is of another model: its {name} has the shape {tuple(full[name].shape)}")
        parameter.copy_(held)


def load_newest(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, placement: Placement) -> Progress:
    """Load the newest whole checkpoint of a run; damaged ones are passed over with a warning. Nothing there: step 0.

    Raises:
        UserError: if the newest whole one is of another version or model; it stays as it is.
    """
    for step in reversed(checkpoint_steps(folder)):
        try:
            return load(checkpoint_path(folder, step), model, optimizer, placement)
        except Damaged as error:
            log.warning("passing over a damaged checkpoint: %s", error)
            if placement.rank == 0:  # it would stand in the way of the one to be written at this step
                shutil.rmtree(checkpoint_path(folder, step))
    return Progress()


def prune(folder: Path, newest: int, keep: Iterable[int] = ()) -> None:
    """Remove all but the newest checkpoints and those of the steps to keep; and what a killed writer left."""
    doomed = set(checkpoint_steps(folder)[:-newest]) - set(keep)
    for path in (*(checkpoint_path(folder, step) for step in doomed), *(folder / "checkpoints").glob(".step-*.tmp")):
        shutil.rmtree(path, ignore_errors=True)


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, tuple[str, torch.Tensor]]:
    return {
        f"{name}.{key}": (name, value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def _full(held: Mapping[str, tuple[str, torch.Tensor]], placement: Placement) -> dict[str, torch.Tensor]:
    """Full tensors, in the memory of the first process's computer alone: no GPU holds them all; single numbers are the same in
    all."""
    full = {}
    for key, (name, value) in held.items():
        whole = placement.full(name, value) if value.ndim else value
        if placement.rank == 0:
            full[key] = whole.cpu().contiguous()
    return full


def _load_optimizer(
    tensors: Mapping[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer, placement: Placement
) -> None:
    parameters = dict(model.named_parameters())
    for full_name, value in tensors.items():
        name, key = full_name.rsplit(".", 1)
        parameter = parameters[name]
        held = placement.part(name, value, parameter) if value.ndim else value
        optimizer.state[parameter][key] = held.to(parameter.device)


def _flush(path: Path) -> str:
    """Push a file to the disk; its SHA-256."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verified_state(path: Path) -> dict[str, Any]:
    """A checkpoint's counters, once they and its files are what was written."""
    state = _state(path / "state.json")
    if not _whole(state) or checkpoint_path(Path(), state["step"]).name != path.name:
        raise Damaged(f"{path / 'state.json'} is damaged: it is not what was written there")
    for name, expected in state["sha256"].items():
        if not (path / name).exists():
            raise Damaged(f"{path / name} is missing")
        with (path / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise Damaged(f"{path / name} is damaged: its SHA-256 is {found[:12]}..., written was {expected[:12]}...")
    return state


def _state(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise Damaged(f"{path.parent} has no state.json")
    with _damage():
        written = read_json(path)
    content = written if isinstance(written, dict) else {}
    if content.get("version", FORMAT_VERSION) not in (FORMAT_VERSION, *OLD_FIELDS):
        readable = " and ".join(map(str, sorted({*OLD_FIELDS, FORMAT_VERSION})))
        raise UserError(f"{path.parent} is of format {content['version']}; this version reads {readable}")
    with _damage():
        return unsealed(path, content)


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """What is wrong with a file is damage to the checkpoint."""
    try:
        yield
    except UserError as error:
        raise Damaged(str(error)) from error


def _whole(state: Any) -> bool:
    """Whether a checkpoint's counters are all there and of their types."""
    if not isinstance(state, dict):
        return False
    expected = {"version", "sha256", *(field.name for field in fields(Progress))}
    if state.keys() != expected - set(OLD_FIELDS.get(state.get("version", FORMAT_VERSION), ())):
        return False
    counts = all(isinstance(state[name], int) for name in ("version", "step", "loss_steps"))
    sums = isinstance(state["sha256"], dict) and state["sha256"].keys() == {MODEL, OPTIMIZER}
    return counts and sums and all(isinstance(state[name], (int, float)) for name in ("seconds", "loss_sum"))
