"""Bytes of all tensors alive, at every operation: what a GPU's allocator would call allocated, on any device."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Follows every storage made while it is entered, from its first sight to its end.

    Args:
        held: tensors that are there already, counted from the start.

    `bytes` is what is alive now, `peak_bytes` the most there was, `largest` the most elements of one floating-point
    tensor of each dtype made since.
    """

    def __init__(self, held: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.bytes = self.peak_bytes = 0
        self.largest: dict[torch.dtype, int] = {}
        self._seen: dict[int, weakref.finalize[..., Any]] = {}
        for tensor in held:
            self._see(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf)
                if leaf.is_floating_point():
                    self.largest[leaf.dtype] = max(self.largest.get(leaf.dtype, 0), leaf.numel())
        return out

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen[key] = weakref.finalize(storage, self._gone, key, size)
        self.bytes += size
        self.peak_bytes = max(self.peak_bytes, self.bytes)

    def _gone(self, key: int, size: int) -> None:
        del self._seen[key]
        self.bytes -= size


def saved_bytes(model: nn.Module, forward: Callable[[], torch.Tensor], bf16: bool) -> int:
    """Bytes that autograd keeps for the backward pass of `forward`, weights and buffers left out; on a CPU."""
    held = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in held:
            kept[storage._cdata] = storage
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        forward()
    return sum(storage.nbytes() for storage in kept.values())
