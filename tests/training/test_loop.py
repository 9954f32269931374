"""The loop: it never waits for the device between two records, nor for data; compiled, it computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loops.fetchers import _PrefetchDataFetcher
from torch.utils._python_dispatch import TorchDispatchMode

from shapelaw import optim
from shapelaw.config import ParallelKind
from shapelaw.data import Loader, SequenceOrder, TokenStream
from shapelaw.data.torch_batches import TokenBatches
from shapelaw.errors import UserError
from shapelaw.model import kernels, loss
from shapelaw.run_state import read_state
from shapelaw.training.agreement import Agreement
from shapelaw.training.compiling import compiles
from shapelaw.training.hooks import Hooks
from shapelaw.training.module import RunModule
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
    reads, step = Reads(), RunModule.training_step

    def counted(module: RunModule, batch: torch.Tensor, index: int) -> None:
        with reads:
            step(module, batch, index)

    monkeypatch.setattr(RunModule, "training_step", counted)
    train(composed)
    assert (reads.count > 0) == free


@pytest.mark.parametrize("looks", [False, True])
def test_between_steps_nothing_is_read(composed: Compose, monkeypatch: pytest.MonkeyPatch, looks: bool) -> None:
    """But where something is recorded or the spike monitor looks; there the counter counts."""
    reads, between, steps = Reads(), Hooks.on_train_batch_end, []

    def counted(self: Hooks, trainer: Any, module: RunModule, *rest: Any) -> None:
        step = module.progress.step
        if (step % 5 == 0 or self.monitor.looks_at(step)) != looks:
            between(self, trainer, module, *rest)
            return
        steps.append(step)
        with reads:
            between(self, trainer, module, *rest)

    monkeypatch.setattr(Hooks, "on_train_batch_end", counted)
    train(composed, "tracker.log_every_steps=5", "spikes.every_steps=10")
    assert len(steps) > 5
    assert (reads.count > 0) == looks


def test_the_next_batch_is_ready_before_a_step_begins(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Batch n + 1 is read, and on a GPU on its way, before step n: a step never waits for its data. The losses are the same
    bits as those of a loop that reads each batch when it is due."""
    events: list[str] = []
    rows, step, fetcher = Loader.rows, RunModule.training_step, _PrefetchDataFetcher.__init__

    def read(self: Loader, *rest: Any) -> Any:
        events.append("read")
        return rows(self, *rest)

    def stepped(module: RunModule, batch: torch.Tensor, index: int) -> None:
        events.append("step")
        step(module, batch, index)

    monkeypatch.setattr(Loader, "rows", read)
    monkeypatch.setattr(RunModule, "training_step", stepped)
    ahead = train(composed, f"outputs_dir={tmp_path}/ahead")
    assert events == ["read", *["read", "step"] * 19, "step"]
    events.clear()
    monkeypatch.setattr(_PrefetchDataFetcher, "__init__", lambda self: fetcher(self, prefetch_batches=0))
    due = train(composed, f"outputs_dir={tmp_path}/due")
    assert events[:4] == ["read", "step"] * 2
    states = [read_state(planned.folder) for planned in (ahead, due)]
    assert states[0].val_loss == states[1].val_loss
    assert states[0].train_loss == states[1].train_loss


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_are_those_of_the_loader() -> None:
    """Copied beside a device that is busy with the batch before."""
    stream = TokenStream((), (10_000,), np.dtype("<u2"))
    stream.__dict__["shards"] = (np.arange(10_000, dtype="<u2"),)
    loader, device = Loader(stream, SequenceOrder(stream.windows(32), seed=1), 32), torch.device("cuda", 0)
    for number, batch in enumerate(TokenBatches(loader, 8, 0, 30, device=device)):
        busy = torch.randn(2048, 2048, device=device) @ torch.randn(2048, 2048, device=device)
        assert batch.device == device
        assert torch.equal(batch.cpu(), torch.from_numpy(loader.batch(number, 8)))
        del busy, batch


def test_processes_agree_one_step_later(tmp_path: Path) -> None:
    """What one asks is heard by all after the next step, whose end nobody had to wait for."""
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        agreement = Agreement(torch.device("cpu"))
        assert [agreement.ask(mine) for mine in (False, True, False, False)] == [False, False, True, False]
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of dynamo's and inductor's own code, where an error would end the compilation
def test_a_compiled_step_is_the_same(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 steps with torch's own operations, compiled and not: losses agree to 1e-4, where one update moves them by 1e-1."""
    monkeypatch.setattr(kernels, "FAST_THREADS_MAX", 0)
    runs = [train(composed, f"compile={word}", f"outputs_dir={tmp_path}/{word}") for word in ("false", "true")]
    losses = [read_state(planned.folder).val_loss for planned in runs]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"compile=true: a C\+\+ compiler \(no-such-compiler\) is missing"):
        compiles(True, gpu=False, kind=ParallelKind.single)
    assert not compiles("auto", gpu=False, kind=ParallelKind.single)
    with pytest.raises(UserError, match="only single and ddp"):
        compiles(True, gpu=False, kind=ParallelKind.fsdp)
