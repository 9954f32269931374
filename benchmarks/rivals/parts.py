"""Speeds of parts of our step: shapes of the nano suite, forms of AdamW, chunks of the cross entropy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from rivals.case import Case, shape_of
from rivals.ours import build
from rivals.worker import timed
from shapelaw.model import ModelSpec, Transformer, kernels, loss
from shapelaw.shapes import Shape
from shapelaw.thresholds import chunk_rows

NANO = ("32x2", "64x4", "128x2", "32x16", "256x1")
NANO_HEAD_SIZE = 16


def nano_table(threads: int) -> Iterator[str]:
    """Tokens per second of the nano suite's kind of shapes; the batch hardly matters."""
    batches = (16, 32, 64)
    yield "nano shapes, head size 16, 128 tokens, vocabulary 256: tokens/s (best), by sequences a batch"
    yield (
        f"{'shape':>8}"
        + "".join(f"{batch:>10}" for batch in batches)
        + f"{'GFLOP/s':>10}{'16, without our kernels':>26}"
    )
    for name in NANO:
        cases = [Case(ModelSpec(shape_of(name, NANO_HEAD_SIZE), 256, 128), batch, threads) for batch in batches]
        speeds = [_best_speed(case) for case in cases]
        rate = cases[0].flops / cases[0].tokens * speeds[0] / 1e9
        shown = "".join(f"{speed:>10.0f}" for speed in speeds)
        yield f"{name:>8}{shown}{rate:>10.1f}{_best_speed(cases[0], plain=True):>26.0f}"


def _best_speed(case: Case, plain: bool = False, seconds: float = 3.0) -> float:
    """Tokens per second of the fastest step; `plain` takes torch's own operations."""
    kernels.FAST_THREADS_MAX, before = (0 if plain else kernels.FAST_THREADS_MAX), kernels.FAST_THREADS_MAX
    step, end = build(case.sizes(), case.batch_of_tokens()).step, time.perf_counter() + seconds
    times: list[float] = []
    while time.perf_counter() < end or len(times) < 5:
        times += timed(step, 1, case.clock)
    kernels.FAST_THREADS_MAX = before
    return case.tokens / min(times)


def parts_table(case: Case) -> Iterator[str]:
    """What the choices inside a step are worth: form of AdamW, chunks of the cross entropy."""
    yield "AdamW, milliseconds a step (best of 8)"
    for spec in (case.spec, ModelSpec(Shape(32, 16, NANO_HEAD_SIZE), 256, 128), ModelSpec(Shape(128, 2, 16), 256, 128)):
        times = {
            form: 1e3 * min(timed(_adamw_step(spec, form), 8, case.clock)) for form in ("fused", "foreach", "loop")
        }
        told = "  ".join(f"{form} {value:.2f}" for form, value in times.items())
        yield f"  {spec.shape.name} vocabulary {spec.vocab_size}: {told}"
    for vocab, width in ((256, 32), (50_304, 256)):
        yield from loss_table(vocab, width, case.clock)


def loss_table(vocab: int, width: int, clock: str, rows: int = 1024) -> Iterator[str]:
    """Chunks of the cross entropy, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator, requires_grad=True)
    head = torch.randn(vocab, width, generator=generator, requires_grad=True)
    targets = torch.randint(vocab, (rows,), generator=generator)

    def milliseconds(value: Callable[[], torch.Tensor]) -> float:
        return 1e3 * min(timed(lambda: torch.autograd.backward(value()), 6, clock))

    def plain() -> torch.Tensor:
        return nn.functional.cross_entropy(hidden @ head.t(), targets)

    yield f"cross entropy of {rows} rows, width {width}, vocabulary {vocab}, forward and backward, ms (best of 6)"
    chosen = chunk_rows(rows, vocab, "cpu")
    for chunk in sorted({32, 128, 256, chosen, rows}):
        ours = milliseconds(partial(loss.cross_entropy, hidden, head, targets, chunk))
        yield f"  {chunk:5} rows a chunk {ours:9.2f}" + ("  (chosen)" if chunk == chosen else "")
    yield f"  torch, all logits  {milliseconds(plain):9.2f}"


def _adamw_step(spec: ModelSpec, form: str) -> Callable[[], Any]:
    model = Transformer(spec)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    fused, foreach = form == "fused", form == "foreach"
    return torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=fused, foreach=foreach).step
