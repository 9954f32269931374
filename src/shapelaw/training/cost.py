"""What a run costs in FLOPs, hours and memory, and what this machine can do. Imports no torch."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shapelaw.config import AUTO, Precision, TrainConfig
from shapelaw.devices import RUNS_PER_GPU_VARIABLE, gpus, host_memory
from shapelaw.errors import UserError
from shapelaw.parallel.layout import Layout, layout_of
from shapelaw.planned_run import PlannedRun
from shapelaw.thresholds import FAST_THREADS_MAX
from shapelaw.training.memory import Arithmetic, MeasuredMemory, StepMemory
from shapelaw.training.sizes import measured_of, sizes_of
from shapelaw.wording import amount, counted

USABLE_SHARE = 0.3
"""Share of the measured matrix rate that a training step is taken to reach."""


@dataclass(frozen=True)
class Cost:
    """What training a run takes.

    Args:
        params: all parameters.
        flops: of the training tokens, by the exact count (validation not counted).
        micro_sequences: sequences of one forward pass.
        memory_bytes: of one device at the peak of a step.
    """

    params: int
    flops: float
    micro_sequences: int
    memory_bytes: float


@dataclass(frozen=True)
class Machine:
    """What one device can do.

    Args:
        name: for people.
        flops_per_second: matrix rate.
        memory_bytes: all it has.
        gpu: whether it is one.
    """

    name: str
    flops_per_second: float
    memory_bytes: float
    gpu: bool = False


def flops_per_token(planned: PlannedRun) -> float:
    """Training FLOPs of one token of the run: of the built-in model by the exact count, of a user's as they are counted."""
    return sizes_of(planned).flops_per_token


def flops_of(planned: PlannedRun) -> float:
    """FLOPs of the steps from the run's first to its last."""
    return (planned.last_step - planned.first_step) * planned.batch_tokens * flops_per_token(planned)


def cost_of(planned: PlannedRun, config: TrainConfig, device: str = "this") -> Cost:
    """What the steps from the run's first to its last take of this machine's devices, or of a rated GPU.

    Raises:
        UserError: for a device that is not rated.
    """
    machine = machine_of(device, config.accelerator)
    work = arithmetic(config, machine.gpu)
    limit = memory_limit(config, machine.memory_bytes, machine.gpu)
    micro, memory = fit_micro_batch(planned, config, layout_of(config.parallel, _processes(config)), work, limit)
    return Cost(sizes_of(planned).params, flops_of(planned), micro, memory)


def _processes(config: TrainConfig) -> int:
    """Of a run: devices x num_nodes, or those that it asks of a cluster."""
    wanted = config.resources
    here = config.devices * config.num_nodes
    return here if here > 1 else wanted.nodes * (wanted.tasks_per_node or wanted.gpus_per_node or 1)


def arithmetic(config: TrainConfig, gpu: bool) -> Arithmetic:
    """How a run computes, as far as its memory depends on it; every rated GPU but V100 has bfloat16."""
    bf16 = config.precision is Precision.bf16 or (config.precision is Precision.auto and gpu)
    few = (config.threads or os.cpu_count() or 1) <= FAST_THREADS_MAX
    return Arithmetic(gpu, bf16, kernels=few and not (gpu or bf16 or config.compile is True))


def memory_limit(config: TrainConfig, memory_bytes: float, gpu: bool) -> float:
    """Bytes that a step may take: limits.memory_share of a GPU, or of its part of one that several runs share; of a computer
    as many parts as its threads are of cores."""
    if config.limits.memory_gb is not None:
        return config.limits.memory_gb * 1e9
    cores = os.cpu_count() or 1
    part = 1 / int(os.environ.get(RUNS_PER_GPU_VARIABLE, "1")) if gpu else min((config.threads or cores) / cores, 1.0)
    return config.limits.memory_share * memory_bytes * part


def fit_micro_batch(
    planned: PlannedRun, config: TrainConfig, layout: Layout, work: Arithmetic, limit_bytes: float
) -> tuple[int, float]:
    """Sequences of a forward pass, and the step's peak in bytes.

    `micro_batch_sequences=auto` is the largest even part of the device's share whose peak is within the limit, or a single
    sequence where none is.
    """
    share = -(-planned.batch_sequences // layout.shares)
    given = config.micro_batch_sequences
    sizes = (
        {-(-share // parts): None for parts in range(1, share + 1)} if given == AUTO else {int(given) or share: None}
    )
    for size in sizes:
        size = min(size, share)
        peak = _peak_bytes(planned, size, -(-share // size), work, layout)
        if peak <= limit_bytes:
            break
    return size, peak


def _peak_bytes(planned: PlannedRun, sequences: int, micros: int, work: Arithmetic, layout: Layout) -> float:
    if planned.model.own:
        found = measured_of(planned)
        measured = MeasuredMemory(found.params, found.activation_bytes, found.largest_bytes, sequences, work.gpu)
        return measured.peak_bytes
    return StepMemory(planned.shape, planned.vocab_size, planned.seq_len, sequences, micros, work, layout).peak_bytes


def this_machine(accelerator: str) -> Machine:
    """This machine's device: the first GPU as it is rated, or with accelerator=cpu and where there is none, the processor."""
    return (None if accelerator == "cpu" else _gpu()) or _cpu()


def device_hours(flops: float, device: str) -> float:
    """Hours that one device takes for a training run, at its usual share of its rate.

    Args:
        flops: of the run.
        device: name of a rated device, or `this` for this machine's.

    Raises:
        UserError: for a device that is not rated.
    """
    return _hours(flops, machine_of(device))


def _hours(flops: float, machine: Machine) -> float:
    return flops / (machine.flops_per_second * USABLE_SHARE) / 3600


def machine_of(device: str, accelerator: str = "auto") -> Machine:
    """This machine's device (`this`), or a rated GPU by its name; raises UserError for another name."""
    if device == "this":
        return this_machine(accelerator)
    if device not in GPUS:
        raise UserError(f"hydra.launcher.device={device}: allowed values are this, {', '.join(GPUS)}")
    return GPUS[device]


def check_machine(runs: Sequence[tuple[PlannedRun, Cost]], config: TrainConfig) -> None:
    """Refuse what this machine cannot train in the allowed hours and memory.

    Raises:
        UserError: with the cost of all runs and what to do instead.
    """
    if config.force or not runs:
        return
    machine = this_machine(config.accelerator)
    flops = sum(cost.flops for _, cost in runs)
    hours = _hours(flops, machine)
    planned, largest = max(runs, key=lambda pair: pair[1].memory_bytes)
    too_long = hours > config.limits.hours
    limit = memory_limit(config, machine.memory_bytes, machine.gpu)
    too_big = largest.memory_bytes > limit
    if too_long or too_big:
        raise UserError(
            f"{counted(len(runs), 'run')} of suite {planned.suite.name} need{'' if len(runs) > 1 else 's'} {flops:.2e} FLOPs: "
            f"about {amount(hours)} hours on this machine ({machine.name}, {machine.flops_per_second / 1e9:,.0f} GFLOP/s "
            f"measured or rated; limits.hours={config.limits.hours:g}), and "
            f"{largest.memory_bytes / 2**30:.1f} GiB for {planned.shape.name} "
            f"({counted(largest.micro_sequences, 'sequence')} at a time; {limit / 2**30:.1f} allowed by limits.memory_share="
            f"{config.limits.memory_share:g}). Train it on a "
            "cluster, take a smaller suite (SHAPELAW_SUITE=nano) or fewer tokens, or force=true to start it all the same"
        )


@functools.cache
def _cpu() -> Machine:
    """The processor, by a timed matrix product."""
    size = 768
    matrix = np.ones((size, size), np.float32)
    matrix @ matrix  # wakes the threads
    seconds = min(_timed(matrix) for _ in range(5))
    return Machine(f"{os.cpu_count()} CPU cores", 2.0 * size**3 / seconds, host_memory())


def _timed(matrix: np.ndarray) -> float:
    start = time.perf_counter()
    matrix @ matrix
    return time.perf_counter() - start


def _gpus() -> dict[str, Machine]:
    """Rated bf16 matrix rates (half precision for V100) and memory in GiB; of an MI250 or MI250X, those of one of its two dies
    (GCDs), which computes as a GPU of its own."""
    rated = {
        "H200": (9.9e14, 141),
        "H100": (9.9e14, 80),
        "A100": (3.1e14, 80),
        "V100": (1.2e14, 16),
        "MI250X": (1.9e14, 64),
        "MI250": (1.9e14, 64),
        "MI300A": (9.8e14, 128),
        "MI300X": (1.3e15, 192),
        "MI300": (1.3e15, 192),
    }
    return {name: Machine(name, rate, memory * 2.0**30, gpu=True) for name, (rate, memory) in rated.items()}


GPUS = _gpus()
"""By name; the rate of others is taken as 1e14."""


def _gpu() -> Machine | None:
    if not gpus():
        return None
    gpu = gpus()[0]
    rate = next((rated.flops_per_second for key, rated in GPUS.items() if key in gpu.name), 1e14)
    return Machine(gpu.name, rate, gpu.memory_bytes, gpu=True)
