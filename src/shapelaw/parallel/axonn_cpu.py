"""AxoNN 0.2.0 on CPUs with gloo. The package names CUDA and NCCL; this module replaces the names `torch` and `dist` inside its
modules by proxies that answer for a CPU. The package's files stay unchanged, and on a GPU nothing here is used."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed

MODULES = (
    "axonn.communication",
    "axonn.intra_layer.communication",
    "axonn.intra_layer.fully_connected",
    "axonn.intra_layer.overlap_communication",
)


class _Proxy:
    """Another object with some names replaced."""

    def __init__(self, real: Any, **replaced: Any) -> None:
        self.__dict__.update(replaced)
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def adapt() -> None:
    """Make the package run on a CPU, for the rest of this process."""
    proxy = _Proxy(
        torch,
        cuda=SimpleNamespace(
            device_count=torch.cpu.device_count, set_device=_ignore, current_device=_cpu, synchronize=_wait_for_handles
        ),
        distributed=_Proxy(torch.distributed, new_group=_gloo_group),
        empty=_empty,
    )
    for name in MODULES:
        importlib.import_module(name).torch = proxy  # type: ignore[attr-defined]


def _ignore(index: int) -> None:
    """A CPU needs no choice of device."""


def _cpu() -> torch.device:
    return torch.device("cpu")


def _gloo_group(ranks: list[int], backend: str) -> Any:
    return torch.distributed.new_group(ranks=[int(rank) for rank in ranks], backend="gloo")


def _empty(*size: Any, device: Any = None, **options: Any) -> torch.Tensor:
    return torch.empty(*size, device="cpu" if device == "cuda" else device, **options)


def _wait_for_handles() -> None:
    """The counterpart of synchronising a GPU: on a CPU, a gradient is garbage until its own handle is done."""
    for handle in importlib.import_module("axonn.intra_layer.overlap_communication").handles:
        handle.wait()
