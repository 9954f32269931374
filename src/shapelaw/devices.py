"""The devices of this machine, found without torch: its cores, and its GPUs (NVIDIA's by the driver, AMD's by Linux's list)."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shapelaw.errors import UserError
from shapelaw.wording import counted

KFD_NODES = Path("/sys/class/kfd/kfd/topology/nodes")
"""One folder for every processor and every computing GPU (for an MI250X, for each of its two dies)."""
AMD_NAMES = {90008: "AMD MI100", 90010: "AMD MI250X (one die)", 90402: "AMD MI300", 90500: "AMD MI350"}
"""gfx_target_version -> name: gfx908, gfx90a, gfx942, gfx950."""
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
RUNS_PER_GPU_VARIABLE = "SHAPELAW_RUNS_PER_GPU"
"""Set by the process that starts several runs on one GPU, so that they share its memory."""


@dataclass(frozen=True)
class Gpu:
    """One device, as torch counts them.

    Args:
        name: name for people, which identifies rated devices.
        memory_bytes: its whole memory.
    """

    name: str
    memory_bytes: float


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """All GPUs of this machine, in their order."""
    return _nvidia() or _amd()


def gpu_names() -> tuple[str, ...]:
    """Names in CUDA_VISIBLE_DEVICES of the GPUs that this process may use."""
    given = next((os.environ[name] for name in VISIBLE if name in os.environ), None)
    if given is None or not gpus():
        return tuple(map(str, range(len(gpus()))))
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    # ROCR's list hides the others from HIP, which counts the visible ones from 0
    renumbered = not any(name in os.environ for name in VISIBLE[:2])
    return tuple(map(str, range(len(names)))) if renumbered else names


def check_devices(accelerator: str, devices: int, there: int) -> None:
    """Refuse missing GPUs.

    Args:
        accelerator, devices: the requested ones.
        there: number of usable GPUs on the machine where the run starts.

    Raises:
        UserError: naming the option, and how many there are.
    """
    if accelerator == "gpu" and not there:
        raise UserError("accelerator=gpu: this machine has no usable GPU; allowed values are auto and cpu; give one")
    if accelerator != "cpu" and 0 < there < devices:
        raise UserError(
            f"devices={devices}: this machine has {counted(there, 'GPU')}; give at most that many, or accelerator=cpu"
        )


def cores() -> int:
    """Cores that this process may use; if the system does not tell (macOS), all cores of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_memory() -> float:
    """Bytes of memory of this computer."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _nvidia() -> tuple[Gpu, ...]:
    if not shutil.which("nvidia-smi"):
        return ()
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    lines = answer.stdout.splitlines() if answer.returncode == 0 else []
    return tuple(_read(*line.rsplit(",", 1)) for line in lines if "," in line)


def _read(name: str, memory_mib: str) -> Gpu:
    """A GPU from the driver's line; a device that shares the computer's memory has no own figure."""
    mib = re.fullmatch(r"\s*(\d+)\s*", memory_mib)
    return Gpu(name.strip(), float(mib[1]) * 2**20 if mib else host_memory())


def _amd() -> tuple[Gpu, ...]:
    if not KFD_NODES.is_dir():
        return ()
    nodes = sorted((path for path in KFD_NODES.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    described = [(path, _properties(path / "properties")) for path in nodes]
    return tuple(_described(path, found) for path, found in described if found.get("simd_count"))


def _described(node: Path, found: Mapping[str, int]) -> Gpu:
    banks = (_properties(path) for path in (node / "mem_banks").glob("*/properties"))
    memory = sum(bank.get("size_in_bytes", 0) for bank in banks)
    name = AMD_NAMES.get(found.get("gfx_target_version", 0), "AMD GPU")
    return Gpu(name, float(memory) or host_memory())


def _properties(file: Path) -> dict[str, int]:
    """Lines with a name and a number; empty if they may not be read."""
    try:
        return {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", file.read_text(), re.M)}
    except OSError:
        return {}
