"""The part of every full matrix that a process holds: pure functions from full tensors to parts and back, bit for bit.

AxoNN splits a matrix over two axes and stores its part flat, split once more over depth. If one matrix fuses several
(queries, keys and values; gate and up), every process takes its part of each, so that whole heads and pairs stay together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from shapelaw.parallel.layout import Layout
from shapelaw.shapes import Shape


@dataclass(frozen=True)
class Split:
    """How one parameter is split.

    Args:
        axes: for each dimension, the degree that splits it: row, column or none.
        sections: sizes of the matrices fused along the first dimension.
        flat: whether the part is stored flat and split over depth.
    """

    axes: tuple[str, ...]
    sections: tuple[int, ...] = ()
    flat: bool = True

    def copies(self, layout: Layout) -> int:
        """Number of processes of one tensor group that hold the same numbers."""
        count = 1 if self.flat else layout.depth
        return count * (1 if "row" in self.axes else layout.row)


def split_of(name: str, shape: Shape) -> Split:
    """The split of a parameter by its name."""
    if name.endswith("attention.qkv.weight"):
        rows = tuple(heads * shape.head_size for heads in (shape.n_head, shape.n_kv_head, shape.n_kv_head))
        return Split(("row", "column"), rows)
    if name.endswith("mlp.gate_up.weight"):
        return Split(("row", "column"), (shape.intermediate, shape.intermediate))
    if name.endswith(("attention.out.weight", "mlp.down.weight")):
        return Split(("column", "row"))
    if name == "head.weight":
        return Split(("row", "column"))
    return Split(("none", "column")) if name == "embedding.weight" else Split(("column",), flat=False)


def coordinates(layout: Layout, rank: int) -> dict[str, int]:
    """The coordinate of a rank on every axis."""
    rest, column = divmod(rank, layout.column)
    rest, row = divmod(rest, layout.row)
    return {"none": 0, "column": column, "row": row, "depth": rest % layout.depth}


def part(full: torch.Tensor, split: Split, layout: Layout, rank: int) -> torch.Tensor:
    """The part of a full tensor that a rank holds."""
    at = coordinates(layout, rank)
    sections = full.split(list(split.sections)) if split.sections else (full,)  # type: ignore[no-untyped-call]
    kept = torch.cat([_chunk(section, 0, split.axes[0], layout, at) for section in sections])
    for dim, axis in list(enumerate(split.axes))[1:]:
        kept = _chunk(kept, dim, axis, layout, at)
    if split.flat:
        kept = kept.reshape(-1).chunk(layout.depth)[at["depth"]]
    return kept.contiguous()


def join(parts: Sequence[torch.Tensor], split: Split, layout: Layout, size: torch.Size) -> torch.Tensor:
    """The full tensor from the parts of one tensor group, in the order of its ranks.

    To find the place of each part, `part` is applied to a tensor of place numbers, so that only one rule exists.
    """
    places = torch.arange(size.numel()).view(size)
    full = parts[0].new_empty(size.numel())
    for rank, held in enumerate(parts):
        full[part(places, split, layout, rank).reshape(-1).to(full.device)] = held.reshape(-1)
    return full.view(size)


def _chunk(x: torch.Tensor, dim: int, axis: str, layout: Layout, at: dict[str, int]) -> torch.Tensor:
    return x if axis == "none" else x.chunk(getattr(layout, axis), dim)[at[axis]]
