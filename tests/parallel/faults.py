"""Body of the two processes of test_axonn_faults.py: what the real axonn 0.2.0 does where it is wrong.

    RANK=r python faults.py FOLDER

Every function shows one fault and returns what it saw.
"""

from __future__ import annotations

import datetime
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

RANK = int(os.environ["RANK"])
DEGREES = ("G_data", "G_intra_r", "G_intra_c", "G_intra_d")
PATIENCE = datetime.timedelta(minutes=10)
LATE_SECONDS = 0.3


def told(call: Callable[[], Any]) -> str:
    """Type and first line of what it raises; nothing if it does not."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return ""


def joined(degree: str) -> Any:
    """The package initialised with one degree of 2."""
    from axonn import axonn

    axonn.init(**{key: 2 if key == degree else 1 for key in DEGREES})
    return axonn


def of_both(mine: torch.Tensor) -> list[torch.Tensor]:
    """A tensor of every process."""
    held = [torch.empty_like(mine) for _ in range(2)]
    dist.all_gather(held, mine.detach().contiguous())
    return held


def rows(count: int) -> torch.Tensor:
    """The same numbers in every process."""
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(1))


def import_beside_mpi4py(folder: Path) -> str:
    """mpi4py is there and its MPI library is not: its wheel then raises a RuntimeError, no ImportError."""
    package = folder / f"broken-{RANK}" / "mpi4py"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("class rc:\n    initialize = True\n")
    (package / "MPI.py").write_text("raise RuntimeError('cannot load MPI library')\n")
    sys.path.insert(0, str(package.parent))
    from shapelaw.parallel.placement import axonn_module

    raw = told(lambda: __import__("axonn.communication"))
    ours = told(axonn_module)
    sys.path.pop(0)
    for name in [name for name in sys.modules if name.startswith(("axonn", "mpi4py"))]:
        del sys.modules[name]
    return f"{raw}\n{ours}"


def untouched_on_a_cpu() -> list[str]:
    """The package as it is."""
    from axonn import axonn

    counted = told(lambda: axonn.init(G_data=2))
    given = told(lambda: axonn.init(G_data=2, gpus_per_node=2))
    return [counted, given]


def words_of_assertions() -> list[str]:
    """What is said where degrees or sizes do not fit."""
    from axonn.intra_layer import Embedding, Linear

    axonn = joined("G_intra_r")
    said = [told(lambda: axonn.init(G_data=3)), told(lambda: Linear(4, 3))]
    joined("G_intra_c")
    return [*said, told(lambda: Embedding(8, 4))]


def copies_drawn_apart() -> dict[str, Any]:
    """Two copies of a layer, by each process's own generator; ours are set afterwards."""
    from axonn.intra_layer import Linear

    joined("G_data")
    torch.manual_seed(RANK)
    first, second = of_both(Linear(4, 4, bias=False).weight)
    return {"equal": torch.equal(first, second)}


def layers_passed_over() -> dict[str, Any]:
    """What auto_parallelize makes of four layers, and whether it says so."""
    from axonn.intra_layer import auto_parallelize

    joined("G_intra_r")
    with warnings.catch_warnings(record=True) as said, auto_parallelize():
        warnings.simplefilter("always")
        layers = {"fits": nn.Linear(4, 6), "odd": nn.Linear(4, 3), "embedding": nn.Embedding(8, 4)}
    return {name: type(layer).__module__ for name, layer in layers.items()} | {"said": len(said)}


def easy_sync_of_expert_layers() -> dict[str, float]:
    """Gradient over the true one, after the package's two ways to take the mean; its strategy for Lightning takes the first."""
    from axonn.intra_layer import Linear, sync_gradients

    joined("G_intra_r")
    layer, x = Linear(4, 4, bias=False, expert_mode=True), rows(3)
    ratios = {}
    for name, expert in (("easy", False), ("expert", True)):
        layer.weight.grad = None
        out = layer(x)
        out.square().sum().backward()
        sync_gradients(layer, mean=True, expert_mode=expert)
        truth = 2 * out.detach().t() @ x
        ratios[name] = float((layer.weight.grad.view_as(truth) / truth).mean())
    return ratios


def bias_over_depth() -> dict[str, bool]:
    """Whether weight and bias get the mean gradient where depth shares the batch out."""
    from axonn.intra_layer import Linear, sync_gradients

    joined("G_intra_d")
    torch.manual_seed(0)
    layer, x = Linear(4, 4, bias=True, expert_mode=True), rows(6)
    mine = x.chunk(2)[RANK]
    out = layer(mine)
    out.square().sum().backward()
    sync_gradients(layer, mean=True, expert_mode=True)
    weight = torch.cat(of_both(layer.weight)).view(4, 4)
    outs = x @ weight.t()
    weights = torch.cat(of_both(layer.weight.grad)).view(4, 4)
    return {
        "weight": torch.allclose(weights, outs.t() @ x, rtol=1e-4),
        "bias": torch.allclose(layer.bias.grad, outs.sum(0), rtol=1e-4),
    }


def overlapped_gradient(waits: bool) -> bool:
    """Whether the first process has the true gradient after the package's overlapped backward pass, the second being late.

    With the adapter's wait, and with one that does nothing: then the second begins only when the first has looked.
    """
    import axonn.intra_layer.overlap_communication as overlap
    from axonn.intra_layer import Linear, optimize_communication

    axonn = joined("G_intra_d")
    store, group = dist.distributed_c10d._get_default_store(), axonn.comm_handle.depth_intra_layer_parallel_group
    torch.manual_seed(0)
    layer, x = Linear(4, 4, bias=False, expert_mode=True), rows(3)
    out = layer(x)  # the same in both, so that the sum is twice one's own
    if RANK == 1:  # its own backward pass, by hand
        held = [torch.empty_like(layer.weight) for _ in range(2)]
        dist.all_gather(held, layer.weight.detach(), group=group)
        time.sleep(LATE_SECONDS) if waits else store.wait(["looked"], PATIENCE)
        local = (2 * out.detach().t() @ x).reshape(-1)
        dist.reduce_scatter_tensor(torch.empty(8), local, group=group)
        return True
    real, kept = overlap.torch, []
    if not waits:
        overlap.torch = _Without(real, kept, overlap)
    with optimize_communication(overlap_all_reduce=True, overlap_reduce_scatter=True):
        out.square().sum().backward()
    seen, overlap.torch = layer.weight.grad.clone(), real
    if not waits:
        store.set("looked", "yes")
        for handle in kept:
            handle.wait()
    return torch.allclose(seen, 2 * (2 * out.detach().t() @ x).reshape(-1)[:8], rtol=1e-4)


class _Without:
    """torch whose cuda.synchronize does nothing; handles are kept so that they can be waited for in the end."""

    def __init__(self, real: Any, kept: list[Any], overlap: Any) -> None:
        self.real, self.kept, self.overlap, self.cuda = real, kept, overlap, self

    def synchronize(self) -> None:
        self.kept += self.overlap.handles

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def bf16_on_a_cpu() -> list[str]:
    """A step under a CPU's autocast; the package's own casts are bound to a GPU's."""
    from axonn.intra_layer import Linear

    joined("G_data")
    layer, x = Linear(4, 4, bias=False, expert_mode=True), rows(3).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    return [str(out.dtype), told(lambda: out.float().sum().backward())]


def gathers_that_gloo_refuses() -> list[str]:
    """What the package's easy mode and its overlapped gathers do."""
    from axonn.intra_layer import Linear

    joined("G_data")
    out, needs = torch.empty(2), torch.ones(1, requires_grad=True)
    return [
        told(lambda: dist.all_gather_into_tensor(out, torch.tensor(1.0))),
        told(lambda: dist.all_gather_into_tensor(out, needs)),
        told(lambda: Linear(4, 4, bias=False)(rows(2))),
    ]


def checkpoint_by_the_package(folder: Path) -> dict[str, Any]:
    """Whether what save wrote is found, and what load gives once it is."""
    from axonn import checkpoint

    joined("G_intra_d")
    checkpoint.save({"step": 7}, str(folder), "state")
    lost = told(lambda: checkpoint.load({}, str(folder), "state"))
    prefix = checkpoint.get_prefix_for_checkpoint()
    (folder / prefix / "state.pt").rename(folder / f"{prefix}_state.pt")
    return {"lost": lost, "given": checkpoint.load({"step": 0}, str(folder), "state")}


def norm_of_split_features() -> dict[str, float]:
    """Of the last norm's gradient, whose features columns split: by the package, by ours, and the true one."""
    from axonn.intra_layer import clip_grad_norm_
    from ranks import built

    from shapelaw.config import ParallelKind
    from shapelaw.parallel.layout import Layout
    from shapelaw.parallel.placement import place

    placement = place(Layout(ParallelKind.axonn, column=2), RANK, torch.device("cpu"))
    model, _ = built(placement, RANK)
    model.loss(torch.arange(66).view(2, 33)).backward()
    placement.sync(model)
    gradient = model.norm.weight.grad
    true = float(torch.cat(of_both(gradient)).norm())
    package = float(clip_grad_norm_([model.norm.weight], 1e9))
    for name, parameter in model.named_parameters():
        parameter.grad = parameter.grad if name == "norm.weight" else None
    return {"true": true, "package": package, "ours": float(placement.clip(model, 1e9))}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {"beside_mpi4py": import_beside_mpi4py(folder)}
    from axonn import axonn

    found["without_processes"] = told(lambda: axonn.init())
    dist.init_process_group("gloo", f"file://{folder / 'store'}", timeout=PATIENCE, rank=RANK, world_size=2)
    if not torch.cuda.is_available():
        found["untouched"] = untouched_on_a_cpu()
    from shapelaw.parallel.axonn_cpu import adapt

    adapt()
    found |= {each.__name__: each() for each in SHOWN}
    found["overlapped"] = [overlapped_gradient(waits) for waits in (False, True)]
    found["checkpoint"] = checkpoint_by_the_package(folder)
    torch.save(found, folder / f"found-{RANK}.pt")
    dist.barrier()
    dist.destroy_process_group()


SHOWN = (
    words_of_assertions,
    copies_drawn_apart,
    layers_passed_over,
    easy_sync_of_expert_layers,
    bias_over_depth,
    bf16_on_a_cpu,
    gathers_that_gloo_refuses,
    norm_of_split_features,
)

if __name__ == "__main__":
    main(Path(sys.argv[1]))
