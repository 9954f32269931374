"""GPUs that drivers and the kernel name, and which of them jobs take; the programs and files are made here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shapelaw import devices
from shapelaw.config.schema import to_dataclass
from shapelaw.devices import Gpu, cores, gpu_names, gpus, host_memory
from shapelaw.sweep.slots import Slots, slots_of
from shapelaw.training.cost import memory_limit, this_machine
from shapelaw.verbs.train import TrainTask
from support import Compose


@pytest.fixture(autouse=True)
def nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No GPU unless a test makes one."""
    for name in devices.VISIBLE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "KFD_NODES", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    gpus.cache_clear()
    yield
    gpus.cache_clear()


def nvidia_smi(folder: Path, *lines: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o755)


def kfd(folder: Path, *versions: int) -> None:
    """The kernel's list: a processor, then GPUs of 64 GiB."""
    for number, version in enumerate((0, *versions)):
        bank = folder / str(number) / "mem_banks" / "0"
        bank.mkdir(parents=True)
        (bank / "properties").write_text(f"heap_type 1\nsize_in_bytes {64 * 2**30}\nflags 0\n")
        lines = (
            f"cpu_cores_count {64 * (not version)}\nsimd_count {440 * bool(version)}\ngfx_target_version {version}\n"
        )
        (folder / str(number) / "properties").write_text(lines)


def test_a_machine_without_any() -> None:
    assert (gpus(), gpu_names()) == ((), ())
    assert not this_machine("auto").gpu


def test_nvidia_s_are_those_of_its_driver(tmp_path: Path) -> None:
    nvidia_smi(tmp_path, "NVIDIA H100 80GB HBM3, 81559", "NVIDIA GB10, [N/A]")
    assert gpus() == (Gpu("NVIDIA H100 80GB HBM3", 81559 * 2.0**20), Gpu("NVIDIA GB10", host_memory()))
    machine = this_machine("auto")
    assert (machine.gpu, machine.flops_per_second, machine.memory_bytes) == (True, 9.9e14, 81559 * 2.0**20)
    assert not this_machine("cpu").gpu


def test_amd_s_are_those_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a node of Frontier: a die of an MI250X is a GPU."""
    kfd(tmp_path / "nodes", 90010, 90010, 12345)
    monkeypatch.setattr(devices, "KFD_NODES", tmp_path / "nodes")
    assert gpus() == (*[Gpu("AMD MI250X (one die)", 64.0 * 2**30)] * 2, Gpu("AMD GPU", 64.0 * 2**30))
    assert this_machine("auto").flops_per_second == 1.9e14


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, ("0", "1", "2", "3")),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, ("2", "3")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8a, GPU-9b"}, ("GPU-8a", "GPU-9b")),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"HIP_VISIBLE_DEVICES": "1"}, ("1",)),
        ({"ROCR_VISIBLE_DEVICES": "2,3"}, ("0", "1")),
    ],
)
def test_those_that_are_visible(
    given: dict[str, str], names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, *["NVIDIA A100-SXM4-80GB, 81920"] * 4)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert gpu_names() == names


def test_jobs_take_the_gpus_with_the_fewest() -> None:
    slots = Slots(("0", "1", "2"), 1, workers=0)
    taken = [slots.take() for _ in range(3)]
    assert (slots.workers, [t["CUDA_VISIBLE_DEVICES"] for t in taken]) == (3, ["0", "1", "2"])
    slots.give_back(taken[1])
    assert slots.take()["CUDA_VISIBLE_DEVICES"] == "1"
    pairs = Slots(tuple("01234"), 2, workers=0)
    assert (pairs.workers, [pairs.take()["CUDA_VISIBLE_DEVICES"] for _ in range(2)]) == (2, ["0,1", "2,3"])
    assert (Slots((), 0, 0).workers, Slots((), 0, 7).workers, Slots((), 0, 7).take()) == (cores(), 7, {})


def test_runs_that_share_a_gpu_share_its_memory(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots(("0", "1"), 1, workers=5)
    environment = slots.take()
    assert environment["SHAPELAW_RUNS_PER_GPU"] == "3"
    config = to_dataclass(composed("limits.memory_share=0.9"))
    assert memory_limit(config, 80e9, gpu=True) == pytest.approx(0.9 * 80e9)
    monkeypatch.setenv("SHAPELAW_RUNS_PER_GPU", environment["SHAPELAW_RUNS_PER_GPU"])
    assert memory_limit(config, 80e9, gpu=True) == pytest.approx(0.3 * 80e9)


def test_a_sweep_of_runs_takes_them_unless_it_is_for_the_processor(composed: Compose, tmp_path: Path) -> None:
    nvidia_smi(tmp_path, *["NVIDIA H200, 143771"] * 2)
    assert slots_of(TrainTask(), [composed()], 0).workers == 2
    assert slots_of(TrainTask(), [composed("devices=2")], 0).workers == 1
    assert slots_of(TrainTask(), [composed("accelerator=cpu")], 3).take() == {}
