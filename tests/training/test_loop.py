"""The loop: it never waits for the device between two records; compiled, it computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from shapelaw import optim
from shapelaw.cell import read_state
from shapelaw.config import ParallelKind
from shapelaw.errors import UserError
from shapelaw.model import kernels, loss
from shapelaw.training.compiling import compiles
from shapelaw.training.module import CellModule
from support import Compose, train


class Reads(TorchDispatchMode):
    """Counts values that the program reads from tensors: on a GPU, each would wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("free", [False, True])
def test_steps_read_nothing(composed: Compose, monkeypatch: pytest.MonkeyPatch, free: bool) -> None:
    """Without the looks that are free on a CPU, as on a GPU, 20 steps read no value; with them, the counter counts."""
    monkeypatch.setattr(optim, "free_to_look", lambda x: free)
    monkeypatch.setattr(loss, "free_to_look", lambda x: free)
    monkeypatch.setattr(kernels, "FAST_THREADS_MAX", 0)
    reads, step = Reads(), CellModule.training_step

    def counted(module: CellModule, batch: torch.Tensor, index: int) -> None:
        with reads:
            step(module, batch, index)

    monkeypatch.setattr(CellModule, "training_step", counted)
    train(composed)
    assert (reads.count > 0) == free


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of dynamo's and inductor's own code, where an error would end the compilation
def test_a_compiled_step_is_the_same(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 steps with torch's own operations, compiled and not: losses agree to 1e-4, where one update moves them by 1e-1."""
    monkeypatch.setattr(kernels, "FAST_THREADS_MAX", 0)
    runs = [train(composed, f"compile={word}", f"outputs_dir={tmp_path}/{word}") for word in ("false", "true")]
    losses = [read_state(cell.folder).val_loss for cell in runs]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"compile=true: a C\+\+ compiler \(no-such-compiler\) is missing"):
        compiles(True, gpu=False, kind=ParallelKind.single)
    assert not compiles("auto", gpu=False, kind=ParallelKind.single)
    with pytest.raises(UserError, match="only single and ddp"):
        compiles(True, gpu=False, kind=ParallelKind.fsdp)
