"""The memory estimate against what torch allocates; the micro-batch that follows from it; what never exists in full."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from allocations import Allocations, saved_bytes

from shapelaw.config import ParallelKind, TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.errors import UserError
from shapelaw.model import ModelSpec, Transformer, kernels
from shapelaw.optim import build_adamw, clip_gradients
from shapelaw.parallel.layout import Layout
from shapelaw.run_state import read_state
from shapelaw.shapes import Shape
from shapelaw.training.cost import cost_of, fit_micro_batch
from shapelaw.training.memory import Arithmetic, StepMemory
from support import Compose, prepared, train

FORMS = {
    "kernels": Arithmetic(gpu=False, bf16=False, kernels=True),
    "plain": Arithmetic(gpu=False, bf16=False, kernels=False),
    "bf16": Arithmetic(gpu=False, bf16=True, kernels=False),
}
CASES = [
    (Shape(128, 3, 64), 1000, 64, 8),  # activations decide
    (Shape(96, 2, 16), 256, 128, 4),  # small heads
    (Shape(128, 2, 128), 20_000, 32, 8),  # the head decides
]


def setting(form: str, monkeypatch: pytest.MonkeyPatch) -> Arithmetic:
    monkeypatch.setattr(kernels, "FAST_THREADS_MAX", torch.get_num_threads() if form == "kernels" else 0)
    return FORMS[form]


def built(memory: StepMemory) -> tuple[Transformer, torch.Tensor]:
    model = Transformer(ModelSpec(memory.shape, memory.vocab_size, memory.seq_len))
    return model, torch.randint(memory.vocab_size, (memory.sequences * memory.micros, memory.seq_len + 1))


def step(model: Transformer, optimizer: torch.optim.Optimizer, micros: Iterable[torch.Tensor], bf16: bool) -> None:
    """As the training loop's, under one autocast."""
    pieces = list(micros)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for piece in pieces:
            torch.autograd.backward(model.loss(piece) / len(pieces))
        clip_gradients(model.parameters())
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].name}-{case[1]}")
def test_what_autograd_keeps(form: str, case: tuple[Shape, int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensor by tensor by torch's own hooks; left out of the count: gains, rotary tables in bfloat16 (below 2%)."""
    memory = StepMemory(*case, 1, setting(form, monkeypatch))
    model, tokens = built(memory)
    kept = saved_bytes(model, lambda: model.hidden(tokens[:, :-1]), memory.work.bf16)
    assert memory.activations + memory.copies == pytest.approx(kept, rel=0.02)


@pytest.mark.parametrize("micros", [1, 2])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].name}-{case[1]}")
def test_the_peak_of_a_step(
    form: str, case: tuple[Shape, int, int, int], micros: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every allocation of a whole step, forward, backward, clip and AdamW, followed to its end: within 2%."""
    memory = StepMemory(*case, micros, setting(form, monkeypatch))
    model, tokens = built(memory)
    optimizer = build_adamw(model, 1e-3)
    with Allocations([*model.parameters(), *model.buffers(), tokens]) as allocated:
        for _ in range(2):  # the first makes AdamW's moments
            allocated.peak_bytes = allocated.bytes
            step(model, optimizer, tokens.split(memory.sequences), memory.work.bf16)
    assert memory.peak_bytes == pytest.approx(allocated.peak_bytes, rel=0.02)


@pytest.mark.parametrize("form", ["plain", "bf16"])
def test_logits_never_exist_in_full(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """50,304 words, 2,048 tokens: a fourth of them at a time, 412 MB in float32 never."""
    work = setting(form, monkeypatch)
    model = Transformer(ModelSpec(Shape(16, 1, 16), 50_304, 128))
    tokens = torch.randint(50_304, (8, 129))
    with Allocations() as allocated, torch.autocast("cpu", torch.bfloat16, enabled=work.bf16):
        torch.autograd.backward(model.loss(tokens))
    assert max(allocated.largest.values()) <= 1024 * 50_304 / 3
    assert allocated.largest[torch.float32] >= 50_304 * 16  # it does see large arrays


def test_layouts_divide() -> None:
    one = StepMemory(Shape(512, 4), 50_304, 256, 2, 2, FORMS["plain"])

    def laid(**degrees: int) -> StepMemory:
        layout = Layout(ParallelKind.axonn, **degrees)
        return StepMemory(one.shape, one.vocab_size, one.seq_len, one.sequences, one.micros, one.work, layout)

    assert laid().peak_bytes == one.peak_bytes
    embedding = 12 * 50_304 * 512  # bytes of its states, which rows do not divide
    for degrees, whole in (({"row": 2}, embedding), ({"column": 2}, 0), ({"depth": 2}, 0)):
        halved = (one.states - whole) / 2 + whole
        assert laid(**degrees).states == pytest.approx(halved, rel=1e-3)  # norms are divided by columns alone
        assert one.peak_bytes / 2 < laid(**degrees).peak_bytes < one.peak_bytes
    sharded = StepMemory(one.shape, one.vocab_size, 256, 2, 1, one.work, Layout(ParallelKind.fsdp, data=4))
    assert sharded.states == one.states / 4


def test_the_micro_batch_is_the_largest_that_fits(composed: Compose) -> None:
    """Every even part of the 8 sequences, by the memory it just needs."""
    config, planned = prepared(composed)
    work, layout = FORMS["kernels"], Layout(ParallelKind.single)
    needs = {}
    for size in (8, 4, 3, 2, 1):
        memory = StepMemory(planned.shape, planned.vocab_size, planned.seq_len, size, math.ceil(8 / size), work)
        needs[size] = memory.peak_bytes
    assert sorted(needs.values(), reverse=True) == list(needs.values())
    for size, need in needs.items():
        assert fit_micro_batch(planned, config, layout, work, need) == (size, need)
    assert fit_micro_batch(planned, config, layout, work, 1.0)[0] == 1


def test_a_given_limit_splits_the_batch_and_not_the_result(composed: Compose) -> None:
    """The world batch stays: losses agree to the order of sums in float32, where one update moves them by 1e-1."""
    limit = "limits.memory_gb=0.0003"
    whole, planned = prepared(composed)
    small: TrainConfig = to_dataclass(composed("accelerator=cpu", limit))
    assert cost_of(planned, whole).micro_sequences == 8
    assert 1 <= cost_of(planned, small).micro_sequences < 8
    assert cost_of(planned, small).memory_bytes <= 0.0003e9
    runs = [train(composed, f"outputs_dir={planned.folder}/{i}", given) for i, given in enumerate(("threads=1", limit))]
    losses = [read_state(run.folder).val_loss for run in runs]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_half_as_many_are_tried_where_memory_runs_out(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A GPU's error, which cannot be had here, from more than two sequences: 8, 4, 2; the result to the order of sums."""
    whole = train(composed, f"outputs_dir={tmp_path}")
    loss = Transformer.loss

    def too_large(model: Transformer, tokens: torch.Tensor) -> torch.Tensor:
        if len(tokens) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return loss(model, tokens)

    monkeypatch.setattr(Transformer, "loss", too_large)
    planned = train(composed)
    assert "8 sequences at a time do not fit the memory of cpu: going on with 4" in caplog.text
    assert caplog.text.count("going on") == 2
    assert read_state(planned.folder).val_loss == pytest.approx(read_state(whole.folder).val_loss, abs=1e-5)
    with pytest.raises(UserError, match=r"4 sequences at a time do not fit .*give micro_batch_sequences=2"):
        train(composed, "micro_batch_sequences=4", "seed=1")
