"""Time and memory of a step of two processes by every kind of layout, over those of one process with the same batch.

    python benchmarks/layouts.py [WIDTHxDEPTH,VOCABULARY,CONTEXT,SEQUENCES]

On GPUs (two of them) over NCCL in bfloat16, else on the CPU over gloo in float32, one thread a process. On a CPU the ratios
show what the exchange costs, not what a layout gains on GPUs: processes share memory and cores.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.distributed as dist
from allocations import Allocations

from shapelaw.config import ParallelKind
from shapelaw.model import ModelSpec
from shapelaw.optim import build_adamw
from shapelaw.parallel.layout import Layout
from shapelaw.parallel.placement import place
from shapelaw.shapes import Shape

CASE_CPU, CASE_GPU = "128x4,1024,128,16", "1024x28,50304,2048,8"
LAYOUTS = {
    "single": Layout(ParallelKind.single),
    "ddp 2": Layout(ParallelKind.ddp, data=2),
    "fsdp 2": Layout(ParallelKind.fsdp, data=2),
    "axonn row 2": Layout(ParallelKind.axonn, row=2),
    "axonn column 2": Layout(ParallelKind.axonn, column=2),
    "axonn depth 2": Layout(ParallelKind.axonn, depth=2),
}
ROUNDS, STEPS = 3, 5


def stepper(
    layout: Layout, rank: int, device: torch.device, case: str
) -> tuple[Callable[[], None], list[torch.Tensor]]:
    """A training step of this process, and the tensors that it starts with."""
    name, *numbers = case.split(",")
    width, depth = map(int, name.split("x"))
    vocab_size, seq_len, sequences = map(int, numbers)
    placement = place(layout, rank, device)
    model = placement.build(ModelSpec(Shape(width, depth, min(width // 4, 128)), vocab_size, seq_len)).to(device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    optimizer = build_adamw(model, 1e-4)
    batch = torch.randint(vocab_size, (sequences, seq_len + 1), device=device).chunk(placement.shares)[placement.share]

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            with placement.accumulating(model, last=True):
                model.loss(batch).backward()
            placement.sync(model)
            placement.clip(model, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, [*model.parameters(), *model.buffers(), batch]


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """Of one step."""
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS


def peak_bytes(step: Callable[[], None], held: list[torch.Tensor], device: torch.device) -> int:
    """The most that is allocated at a time in two steps."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        step()
        return torch.cuda.max_memory_allocated()
    with Allocations(held) as allocated:
        step()
        allocated.peak_bytes = allocated.bytes
        step()
    return allocated.peak_bytes


def measured(name: str, rank: int, device: torch.device, case: str) -> tuple[float, int]:
    """Seconds and peak bytes of a step; the other process of `single` waits."""
    layout, result = LAYOUTS[name], (0.0, 0)
    if rank < layout.world:
        step, held = stepper(layout, rank, device, case)
        peak = peak_bytes(step, held, device)
        result = seconds(step, device), peak
    dist.barrier()
    return result


def main(rank: int, case: str) -> None:
    """All layouts in turn, several rounds."""
    torch.set_num_threads(1)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", rank) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo", rank=rank, world_size=2, device_id=device if gpu else None)
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in LAYOUTS}
    for _ in range(ROUNDS):
        for name in LAYOUTS:
            found[name].append(measured(name, rank, device, case))
    if rank == 0:
        _tell(
            found, case, torch.cuda.get_device_name() if gpu else f"CPU, {os.cpu_count()} cores, one thread a process"
        )
    dist.destroy_process_group()


def _tell(found: dict[str, list[tuple[float, int]]], case: str, device: str) -> None:
    print(f"{case} (shape, vocabulary, context, sequences of the world batch); {device}; torch {torch.__version__}")
    print(f"load {os.getloadavg()[0]:.1f}; median of {ROUNDS} rounds of {STEPS} steps, memory of the first process")
    print(f"{'layout':<16} {'ms a step':>10} {'ratio':>6} {'peak MiB':>9} {'ratio':>6}")
    alone, least = median(each[0] for each in found["single"]), found["single"][0][1]
    for name, rounds in found.items():
        took, peak = median(each[0] for each in rounds), rounds[0][1]
        print(f"{name:<16} {took * 1e3:>10.1f} {took / alone:>6.2f} {peak / 2**20:>9.1f} {peak / least:>6.2f}")


def start(case: str) -> int:
    """Two processes of this script; the first failing exit code."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, __file__, case]
    ranks = [subprocess.Popen(command, env={**place, "RANK": str(rank)}) for rank in range(2)]
    return max(process.wait() for process in ranks)


if __name__ == "__main__":
    asked = sys.argv[1] if len(sys.argv) > 1 else CASE_GPU if torch.cuda.is_available() else CASE_CPU
    sys.exit(start(asked)) if "RANK" not in os.environ else main(int(os.environ["RANK"]), asked)
