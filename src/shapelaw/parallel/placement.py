"""What a layout does to model, gradients and checkpoints: one class for each kind, all with the same methods.

Every process creates its placement after the process group. Checkpoints hold full tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from shapelaw.config import ParallelKind
from shapelaw.errors import UserError
from shapelaw.model import ModelSpec, Transformer
from shapelaw.model.kernels import rms_norm
from shapelaw.model.transformer import Norm
from shapelaw.optim import clip_gradients, scale_gradients
from shapelaw.parallel.layout import Layout
from shapelaw.parallel.matrices import Split, join, part, split_of


class Placement:
    """One process: nothing is distributed.

    Args:
        layout: the degrees.
        rank: rank of this process.
        device: device of the model.
    """

    sharded = False
    """Whether assembling full tensors needs all processes."""

    def __init__(self, layout: Layout, rank: int, device: torch.device) -> None:
        self.layout, self.rank, self.device = layout, rank, device

    @property
    def share(self) -> int:
        """The part of the batch that this process takes."""
        return self.layout.share_of(self.rank)

    @property
    def shares(self) -> int:
        """Parts of the batch."""
        return self.layout.shares

    def build(self, spec: ModelSpec) -> Transformer:
        """The model or this process's part of it, weights unset."""
        return Transformer(spec)

    def part(self, name: str, full: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """This process's part of a parameter's full tensor, or of one of its moments."""
        return full

    def full(self, name: str, held: torch.Tensor) -> torch.Tensor:
        """The full tensor from every process's part; if `sharded`, all processes must call it."""
        return held

    def settle(self, model: nn.Module) -> None:
        """Called before parameters are read for a checkpoint."""

    def accumulating(self, model: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Surrounds the backward pass of a micro-batch."""
        return contextlib.nullcontext()

    def sync(self, model: nn.Module) -> None:
        """Called after the last micro-batch: every gradient becomes that of the world batch."""

    def clip(self, model: nn.Module, max_norm: float) -> torch.Tensor:
        """Clips by the norm over all parameters, each counted once; returns it."""
        return clip_gradients(model.parameters(), max_norm)


class Ddp(Placement):
    """Copies of the model; gradients are averaged in one message after the last micro-batch."""

    @torch.no_grad()
    def sync(self, model: nn.Module) -> None:
        """Mean of the gradients over all processes."""
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients]).div_(self.layout.world)
        dist.all_reduce(flat)
        sizes = [gradient.numel() for gradient in gradients]
        torch._foreach_copy_(
            gradients, [p.view_as(g) for p, g in zip(torch.split(flat, sizes), gradients, strict=True)]
        )


class CopiedNorm(Norm):
    """RMSNorm on a copy of its weight: FSDP frees a gathered weight, which memory lent to a CPU kernel does not allow."""

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        """Normalised x, same shape."""
        return rms_norm(x_BTC, self.weight.clone(), self.eps)


class Fsdp(Placement):
    """torch's FSDP2, with one group of parameters per block and one for embedding, norm and head."""

    sharded = True

    def build(self, spec: ModelSpec) -> Transformer:
        """The model with every parameter split over all processes."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        model = Transformer(spec)
        mesh = init_device_mesh(self.device.type, (self.layout.world,))
        for block in model.blocks:
            block.norm_1, block.norm_2 = (CopiedNorm(spec.shape.width, spec.norm_eps) for _ in range(2))
        model.norm = CopiedNorm(spec.shape.width, spec.norm_eps)
        for module in (*model.blocks, model):
            fully_shard(module, mesh=mesh)
        register_fsdp_forward_method(model, "loss")
        return model

    def part(self, name: str, full: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """A DTensor like the parameter."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(like, DTensor)
        full = full.to(like.device)
        return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)

    def full(self, name: str, held: torch.Tensor) -> torch.Tensor:
        """All parts gathered."""
        gathered: torch.Tensor = held.full_tensor()  # type: ignore[attr-defined]
        return gathered

    def settle(self, model: nn.Module) -> None:
        """Free the last group, which a validation, without a backward pass, leaves gathered."""
        model.reshard()  # type: ignore[operator]

    @contextlib.contextmanager
    def accumulating(self, model: nn.Module, last: bool) -> Any:
        """Gradients are exchanged with the last micro-batch only."""
        model.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield

    @torch.no_grad()
    def clip(self, model: nn.Module, max_norm: float) -> torch.Tensor:
        """Clip by the norm over all parts."""
        held = [p.grad.to_local() for p in model.parameters() if p.grad is not None]  # type: ignore[attr-defined]
        return _clip_by(held, [1.0] * len(held), None, max_norm)


class Axonn(Placement):
    """AxoNN's tensor parallel layers: row, column, depth and data degrees."""

    sharded = True

    def __init__(self, layout: Layout, rank: int, device: torch.device) -> None:
        super().__init__(layout, rank, device)
        ax = axonn_module()
        if device.type == "cpu":
            from shapelaw.parallel.axonn_cpu import adapt

            adapt()
        degrees = {"G_intra_r": layout.row, "G_intra_c": layout.column, "G_intra_d": layout.depth}
        ax.init(G_inter=1, G_data=layout.data, **degrees)
        self.group = ax.comm_handle.intra_layer_group
        self.splits: dict[str, Split] = {}
        self.sizes: dict[str, torch.Size] = {}

    def build(self, spec: ModelSpec) -> Transformer:
        """The model of this process's parts."""
        from shapelaw.parallel.axonn_model import AxonnTransformer

        with torch.device("meta"):
            self.sizes = {name: parameter.shape for name, parameter in Transformer(spec).named_parameters()}
        self.splits = {name: split_of(name, spec.shape) for name in self.sizes}
        return AxonnTransformer(spec, self.layout)

    def part(self, name: str, full: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The part of this rank, as AxoNN stores it."""
        return part(full, self.splits[name], self.layout, self.rank)

    def full(self, name: str, held: torch.Tensor) -> torch.Tensor:
        """All parts of this rank's tensor group gathered."""
        held = held.detach().contiguous()
        parts = [torch.empty_like(held) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(parts, held, group=self.group)
        return join(parts, self.splits[name], self.layout, self.sizes[name])

    def sync(self, model: nn.Module) -> None:
        """Mean over the batch's shares. The package's easy mode is not used, as it would also divide by row and column."""
        from axonn.intra_layer import sync_gradients

        sync_gradients(model, mean=True, expert_mode=True)

    @torch.no_grad()
    def clip(self, model: nn.Module, max_norm: float) -> torch.Tensor:
        """Clip by the norm over the tensor group, counting values that several processes hold once."""
        held = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        weights = [1.0 / self.splits[name].copies(self.layout) for name in held]
        return _clip_by(list(held.values()), weights, self.group, max_norm)


def axonn_module() -> Any:
    """The package.

    Raises:
        UserError: if it is installed but cannot be imported: it fails if mpi4py finds no MPI library.
    """
    try:
        from axonn import axonn
    except RuntimeError as error:
        raise UserError(
            f"parallel=axonn: the axonn package cannot be imported ({error}); it imports mpi4py where that is installed, and "
            "needs none here: pip uninstall mpi4py, or install an MPI library"
        ) from error
    return axonn


def _clip_by(gradients: list[torch.Tensor], weights: Iterable[float], group: Any, max_norm: float) -> torch.Tensor:
    squares = [norm.square() * weight for norm, weight in zip(torch._foreach_norm(gradients), weights, strict=True)]
    total = torch.stack(squares).sum()
    dist.all_reduce(total, group=group)
    norm = total.sqrt()
    scale_gradients(gradients, norm, max_norm)
    return norm


PLACEMENTS = {
    ParallelKind.single: Placement,
    ParallelKind.ddp: Ddp,
    ParallelKind.fsdp: Fsdp,
    ParallelKind.axonn: Axonn,
}


def place(layout: Layout, rank: int, device: torch.device) -> Placement:
    """The placement of a layout in this process; except for one process, the process group exists already."""
    return PLACEMENTS[layout.kind](layout, rank, device)
