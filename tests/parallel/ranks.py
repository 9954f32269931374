"""Body of the processes of test_parallel.py: every layout of one world, one process group."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from shapelaw.config import ParallelKind
from shapelaw.model import ModelSpec
from shapelaw.model.initialisation import initial_weight
from shapelaw.optim import build_adamw
from shapelaw.parallel.layout import Layout
from shapelaw.parallel.placement import Placement, place
from shapelaw.shapes import Shape
from shapelaw.training import checkpoint
from shapelaw.training.checkpoint import Progress

QUICK_OF_FOUR = ("fsdp-1114", "axonn-2211", "axonn-2121", "axonn-1212")
"""Layouts of four processes that together use every pair of degrees; `all` measures every one."""
SPEC = ModelSpec(Shape(64, 2, 8), vocab_size=256, seq_len=32)
BATCH, STEPS, CLIP = 8, 20, 0.5


def chosen(world: int, every: bool) -> list[Layout]:
    """The layouts to measure."""
    return [each for each in layouts(world) if every or world < 4 or name_of(each) in QUICK_OF_FOUR]


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


def built(layout: Layout, rank: int) -> tuple[Placement, Any, torch.optim.AdamW]:
    placement = place(layout, rank, torch.device("cpu"))
    torch.manual_seed(rank)  # unequal on purpose: nothing may depend on a process's own generator
    model = placement.build(SPEC)
    with torch.device("meta"):
        sizes = {name: p.shape for name, p in Placement(layout, 0, torch.device("meta")).build(SPEC).named_parameters()}
    full = {n: initial_weight(n, size, SPEC.shape, 3).to(torch.get_default_dtype()) for n, size in sizes.items()}
    checkpoint.set_weights(model, full, placement, Path("start"))
    return placement, model, build_adamw(model, 3e-3)


def step(
    placement: Placement, model: Any, optimizer: torch.optim.AdamW, number: int, clip: float = CLIP
) -> torch.Tensor:
    """One step over the world batch, in two micro-batches; the world's mean loss."""
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
    if dist.is_initialized():
        dist.all_reduce(total)
        total /= dist.get_world_size()
    return total


def measure(layout: Layout, rank: int, folder: Path) -> dict[str, Any]:
    """Gradients and norm of a first step, then the losses of 20 AdamW steps with a clip that bites, and a checkpoint."""
    placement, model, optimizer = built(layout, rank)
    first = step(placement, model, optimizer, 0, clip=0)
    held = {name: p.grad for name, p in model.named_parameters()}
    gradients = {name: placement.full(name, grad).clone() for name, grad in held.items() if grad is not None}
    norm = placement.clip(model, 1e9)
    optimizer.zero_grad(set_to_none=True)
    losses = [float(step(placement, model, optimizer, number)) for number in range(STEPS)]
    if torch.get_default_dtype() is torch.float32:
        checkpoint.save(folder / name_of(layout), model, optimizer, Progress(STEPS), placement)
    return {"loss": float(first), "norm": float(norm), "gradients": gradients, "losses": losses}


def resume(layout: Layout, rank: int, folder: Path, source: str) -> dict[str, Any]:
    """Loads a checkpoint of any layout: its weights as gathered again, and the loss of the next two steps."""
    placement, model, optimizer = built(layout, rank)
    checkpoint.load_newest(folder / source, model, optimizer, placement)
    weights = {name: placement.full(name, p.detach()).clone() for name, p in model.named_parameters()}
    return {"weights": weights, "losses": [float(step(placement, model, optimizer, n)) for n in (STEPS, STEPS + 1)]}


def main(what: str, folder: Path, every: bool) -> None:
    torch.set_num_threads(1)
    world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    if world > 1:
        dist.init_process_group("gloo", rank=rank, world_size=world)
    results: dict[str, Any] = {}
    if what == "measure":
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            for layout in chosen(world, every):
                results[f"{name_of(layout)}-{str(dtype)[-2:]}"] = measure(layout, rank, folder)
    else:
        sources = sorted(path.name for path in folder.iterdir() if path.is_dir())
        for layout, source in itertools.product(chosen(world, every), sources):
            results[f"{source} in {name_of(layout)}"] = resume(layout, rank, folder, source)
    if rank == 0:
        torch.save(results, folder / f"{what}-{world}.pt")
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "all")
