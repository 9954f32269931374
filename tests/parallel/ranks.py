"""Body of the processes of test_parallel.py: four processes, of which 4, 2 and 1 in turn measure every layout of theirs.

    RANK=r python ranks.py FOLDER quick|all

All layouts write a checkpoint first; then every layout loads every one of them or, of the quick ones, three.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from shapelaw.config import ParallelKind
from shapelaw.files import read_json
from shapelaw.model import ModelSpec
from shapelaw.model.initialisation import initial_weight
from shapelaw.optim import build_adamw
from shapelaw.parallel.layout import Layout
from shapelaw.parallel.placement import Placement, place
from shapelaw.planned_run import checkpoint_path
from shapelaw.shapes import Shape
from shapelaw.training import checkpoint
from shapelaw.training.checkpoint import Progress

WORLDS = (4, 2, 1)
QUICK = ("single-1111", "fsdp-1112", "axonn-2111", "axonn-1211", "axonn-1121", "ddp-1114", "axonn-2211", "axonn-1212")
"""Layouts that together use every kind and most pairs of degrees; `all` measures every one."""
SPEC = ModelSpec(Shape(64, 2, 8), vocab_size=256, seq_len=32)
BATCH, STEPS, LR, CLIP = 8, 20, 1e-3, 0.5


def chosen(world: int, which: str) -> list[Layout]:
    """The layouts to measure."""
    return [each for each in layouts(world) if which == "all" or name_of(each) in QUICK]


def layouts(world: int) -> list[Layout]:
    """Every layout of so many processes."""
    if world == 1:
        return [Layout(ParallelKind.single)]
    powers = [2**n for n in range(world.bit_length())]
    degrees = [d for d in itertools.product(powers, repeat=4) if d[0] * d[1] * d[2] * d[3] == world]
    simple = [Layout(kind, data=world) for kind in (ParallelKind.ddp, ParallelKind.fsdp)]
    return simple + [Layout(ParallelKind.axonn, *each) for each in degrees]


def name_of(layout: Layout) -> str:
    return f"{layout.kind.value}-{layout.row}{layout.column}{layout.depth}{layout.data}"


def sources(name: str, which: str) -> list[str]:
    """Layouts whose checkpoints a layout loads. A checkpoint is whole, all shards joined, and loaded and saved again it is the
    same: that every layout loads its own, one process's and the next one's, and each is loaded, leaves little to the others."""
    everyone = [name_of(layout) for world in WORLDS for layout in chosen(world, which)]
    if which == "all":
        return everyone
    following = everyone[(everyone.index(name) + 1) % len(everyone)]
    return sorted({name, following, "single-1111"})


@contextlib.contextmanager
def placed(layout: Layout, rank: int, store: Path) -> Iterator[Placement]:
    """The placement of a layout in a process group of its own, which ends with it: gloo's threads would pile up, a
    thousand for thirty groups. One process alone needs no group."""
    if layout.world > 1:
        patience = datetime.timedelta(minutes=10)
        dist.init_process_group("gloo", f"file://{store}", timeout=patience, rank=rank, world_size=layout.world)
    yield place(layout, rank, torch.device("cpu"))
    if layout.world > 1:
        dist.barrier()
        dist.destroy_process_group()


def initial_weights() -> dict[str, torch.Tensor]:
    """Full weights by seed and name."""
    with torch.device("meta"):
        sizes = Placement(Layout(ParallelKind.single), 0, torch.device("meta")).build(SPEC).named_parameters()
    return {name: initial_weight(name, p.shape, SPEC.shape, 3).to(torch.get_default_dtype()) for name, p in sizes}


def built(placement: Placement, rank: int) -> tuple[Any, torch.optim.AdamW]:
    torch.manual_seed(rank)  # unequal on purpose: nothing may depend on a process's own generator
    model = placement.build(SPEC)
    checkpoint.set_weights(model, initial_weights(), placement, Path("start"))
    return model, build_adamw(model, LR)


def step(
    placement: Placement, model: Any, optimizer: torch.optim.AdamW, number: int, clip: float = CLIP
) -> torch.Tensor:
    """One step over the world batch, in two micro-batches; the world's mean loss. Without a clip, gradients alone."""
    generator = torch.Generator().manual_seed(number)
    batch = torch.randint(0, SPEC.vocab_size, (BATCH, SPEC.seq_len + 1), generator=generator)
    mine = batch.chunk(placement.shares)[placement.share]
    micros = mine.chunk(2)
    total = torch.zeros(())
    for index, micro in enumerate(micros):
        with placement.accumulating(model, last=index == len(micros) - 1):
            loss = model.loss(micro) * (len(micro) / len(mine))
            loss.backward()
        total += loss.detach()
    placement.sync(model)
    if clip:
        placement.clip(model, clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return mean_of_all(total)


def mean_of_all(value: torch.Tensor) -> torch.Tensor:
    if dist.is_initialized():
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value


def measure(placement: Placement, rank: int, folder: Path) -> dict[str, Any]:
    """Gradients and norm of a first step, then the losses of 20 AdamW steps with a clip that bites, and a checkpoint."""
    model, optimizer = built(placement, rank)
    start = {name: placement.full(name, p.detach()) for name, p in model.named_parameters()}
    equal = all(torch.equal(start[name], full) for name, full in initial_weights().items())
    first = step(placement, model, optimizer, 0, clip=0)
    held = {name: p.grad for name, p in model.named_parameters()}
    gradients = {name: placement.full(name, grad).clone() for name, grad in held.items() if grad is not None}
    norm = placement.clip(model, 1e9)
    optimizer.zero_grad(set_to_none=True)
    losses = [float(step(placement, model, optimizer, number)) for number in range(STEPS)]
    if torch.get_default_dtype() is torch.float32:
        checkpoint.save(folder / "saved" / name_of(placement.layout), model, optimizer, Progress(STEPS), placement)
    return {
        "started_equal": float(mean_of_all(torch.tensor(float(equal)))),
        "loss": float(first),
        "norm": float(norm),
        "gradients": gradients,
        "losses": losses,
        "modules": sorted({f"{type(m).__module__}.{type(m).__name__}" for m in model.modules()}),
        "parameters": [name for name, _ in model.named_parameters()],
    }


def resume(placement: Placement, rank: int, folder: Path, source: str) -> dict[str, Any]:
    """Loads another layout's checkpoint and saves it again: the checksums of both, and the loss of the next two steps."""
    model, optimizer = built(placement, rank)
    progress = checkpoint.load_newest(folder / "saved" / source, model, optimizer, placement)
    again = folder / "again"
    written = checkpoint.save(again, model, optimizer, progress, placement)
    losses = [float(step(placement, model, optimizer, number)) for number in (STEPS, STEPS + 1)]
    if rank:
        return {}
    sums = [
        read_json(path / "state.json")["sha256"]
        for path in (written, checkpoint_path(folder / "saved" / source, STEPS))
    ]
    shutil.rmtree(again)
    return {"again": sums[0], "saved": sums[1], "losses": losses}


def measure_all(world: int, rank: int, folder: Path, which: str) -> dict[str, Any]:
    """Every layout in float32 and float64."""
    results = {}
    for layout in chosen(world, which):
        with placed(layout, rank, folder / f"measure-{name_of(layout)}.store") as placement:
            for dtype in (torch.float32, torch.float64):
                torch.set_default_dtype(dtype)
                results[f"{name_of(layout)}-{str(dtype)[-2:]}"] = measure(placement, rank, folder)
        torch.set_default_dtype(torch.float32)
    return results


def resume_all(world: int, rank: int, folder: Path, which: str) -> dict[str, Any]:
    """Every layout from the checkpoint of every other and its own."""
    results = {}
    for layout in chosen(world, which):
        with placed(layout, rank, folder / f"resume-{name_of(layout)}.store") as placement:
            for source in sources(name_of(layout), which):
                results[f"{source} in {name_of(layout)}"] = resume(placement, rank, folder, source)
    return results


def main(folder: Path, which: str) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    for phase, world in itertools.product((measure_all, resume_all), WORLDS):
        if rank < world:
            results = phase(world, rank, folder, which)
            if rank == 0:
                torch.save(results, folder / f"{phase.__name__}-{world}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
