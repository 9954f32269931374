"""What a cell costs in FLOPs, hours and memory, and what this machine can do. Imports no torch."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shapelaw.cell import Cell
from shapelaw.config import TrainConfig
from shapelaw.counting import flops_exact, params_total
from shapelaw.errors import UserError

BYTES_PER_PARAM = 16
"""Weights, gradients and AdamW's two moments, four bytes each."""
USABLE_SHARE = 0.3
"""Share of the measured matrix rate that a training step is taken to reach."""


@dataclass(frozen=True)
class Cost:
    """What training a cell takes.

    Args:
        params: all parameters.
        flops: of the training tokens, by the exact count (validation not counted).
        memory_bytes: of one device: weights, gradients, moments, and the activations of one micro-batch.
    """

    params: int
    flops: float
    memory_bytes: float


@dataclass(frozen=True)
class Machine:
    """What a machine can do: matrix rate in FLOP/s and memory in bytes of one device, and its name."""

    name: str
    flops_per_second: float
    memory_bytes: float


def flops_per_token(cell: Cell) -> float:
    """Training FLOPs of one token of the cell, by the exact count."""
    shape = cell.shape
    return float(flops_exact(shape.width, shape.depth, cell.vocab_size, cell.seq_len, shape.head_size).total)


def cost_of(cell: Cell, config: TrainConfig) -> Cost:
    """Cost of the steps from the cell's first to its last."""
    shape = cell.shape
    params = int(params_total(shape.width, shape.depth, cell.vocab_size, shape.head_size))
    tokens = (cell.last_step - cell.first_step) * cell.batch_tokens
    micro = config.micro_batch_sequences or -(-cell.batch_sequences // (config.devices * config.num_nodes))
    # kept for the backward pass, in floats a token and block: norms, qkv, attention and MLP inputs and outputs (about 24
    # widths, of which the MLP's hidden layers are 12), then the logits and their gradient
    floats = shape.depth * 24 * shape.width + 2 * cell.vocab_size
    return Cost(params, tokens * flops_per_token(cell), BYTES_PER_PARAM * params + 4.0 * floats * micro * cell.seq_len)


@functools.cache
def this_machine() -> Machine:
    """This machine's device: the first GPU by its driver's word, or the processor by a timed matrix product."""
    return _gpu() or _cpu()


def device_hours(flops: float, device: str) -> float:
    """Hours that one device takes for a training run, at its usual share of its rate.

    Args:
        flops: of the run.
        device: name of a rated device, or `this` for this machine's.

    Raises:
        UserError: for a device that is not rated.
    """
    if device != "this" and device not in GPU_FLOPS:
        raise UserError(f"hydra.launcher.device={device}: allowed are this, {', '.join(GPU_FLOPS)}")
    rate = this_machine().flops_per_second if device == "this" else GPU_FLOPS[device]
    return flops / (rate * USABLE_SHARE) / 3600


def check_machine(cells: Sequence[tuple[Cell, Cost]], config: TrainConfig) -> None:
    """Refuse what this machine cannot train in the allowed hours and memory.

    Raises:
        UserError: with the cost of all cells and what to do instead.
    """
    if config.force or not cells:
        return
    machine = this_machine()
    flops = sum(cost.flops for _, cost in cells)
    hours = device_hours(flops, "this")
    cell, largest = max(cells, key=lambda pair: pair[1].memory_bytes)
    too_long = hours > config.limits.hours
    too_big = largest.memory_bytes > config.limits.memory_share * machine.memory_bytes
    if too_long or too_big:
        raise UserError(
            f"{len(cells)} cell{'s' if len(cells) > 1 else ''} of suite {cell.suite} need {flops:.2e} FLOPs: about "
            f"{hours:,.0f} hours on this machine ({machine.name}, {machine.flops_per_second / 1e9:,.0f} GFLOP/s measured or "
            f"rated; limits.hours={config.limits.hours:g}), and {largest.memory_bytes / 2**30:.1f} GiB for {cell.shape.name} "
            f"(of {machine.memory_bytes / 2**30:.0f}; limits.memory_share={config.limits.memory_share:g}). Train it on a "
            "cluster, take a smaller suite (SHAPELAW_SUITE=nano) or fewer tokens, or force=true to start it all the same"
        )


def _cpu() -> Machine:
    size = 768
    matrix = np.ones((size, size), np.float32)
    matrix @ matrix  # wakes the threads
    seconds = min(_timed(matrix) for _ in range(5))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(f"{os.cpu_count()} CPU cores", 2.0 * size**3 / seconds, float(memory))


def _timed(matrix: np.ndarray) -> float:
    start = time.perf_counter()
    matrix @ matrix
    return time.perf_counter() - start


GPU_FLOPS = {"H200": 9.9e14, "H100": 9.9e14, "A100": 3.1e14, "V100": 1.2e14, "MI250": 1.9e14, "MI300": 1.3e15}
"""Rated bf16 matrix rates (half precision for V100; one GCD of an MI250X); other GPUs are taken as 1e14."""


def _gpu() -> Machine | None:
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    if answer.returncode or not answer.stdout.strip():
        return None
    name, memory_mib = answer.stdout.splitlines()[0].rsplit(",", 1)
    rate = next((rate for key, rate in GPU_FLOPS.items() if key in name), 1e14)
    return Machine(name.strip(), rate, float(memory_mib) * 2**20)
