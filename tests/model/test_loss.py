"""Chunked cross entropy against torch's, in value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from shapelaw.model import kernels
from shapelaw.model.loss import cross_entropy
from shapelaw.thresholds import CHUNK_BYTES_CPU, chunk_rows


def _case(rows: int, width: int, vocab: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator, requires_grad=True)
    head = torch.randn(vocab, width, generator=generator, requires_grad=True)
    return hidden, head, torch.randint(vocab, (rows,), generator=generator)


@pytest.mark.parametrize("fast", [True, False], ids=["cpu-kernels", "plain"])
@pytest.mark.parametrize("rows_per_chunk", [None, 1, 7, 64, 1000])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_equals_torch(fast: bool, rows_per_chunk: int | None, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "FAST_THREADS_MAX", torch.get_num_threads() if fast else 0)
    hidden, head, targets = _case(rows=130, width=24, vocab=301)
    exact = F.cross_entropy((hidden.double() @ head.double().t()), targets) * scale
    expected = torch.autograd.grad(exact, (hidden, head))
    ours = cross_entropy(hidden, head, targets, rows_per_chunk) * scale
    torch.testing.assert_close(ours.double(), exact, rtol=1e-6, atol=0)
    for gradient, right in zip(torch.autograd.grad(ours, (hidden, head)), expected, strict=True):
        torch.testing.assert_close(gradient, right.float(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("fast", [True, False], ids=["cpu-kernels", "plain"])
def test_large_logits_do_not_overflow(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "FAST_THREADS_MAX", torch.get_num_threads() if fast else 0)
    head = torch.eye(4) * 500.0
    hidden = torch.eye(4)
    assert float(cross_entropy(hidden, head, torch.arange(4))) == pytest.approx(0.0, abs=1e-6)
    assert float(cross_entropy(hidden, head, (torch.arange(4) + 1) % 4)) == pytest.approx(500.0, rel=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("fast", [True, False], ids=["cpu-kernels", "plain"])
def test_a_diverged_row_shows(fast: bool, bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "FAST_THREADS_MAX", torch.get_num_threads() if fast else 0)
    hidden, head, targets = _case(rows=20, width=8, vocab=100)
    with torch.no_grad():
        hidden[3] = bad
    assert not torch.isfinite(cross_entropy(hidden, head, targets))


def test_autocast_runs_products_in_bfloat16() -> None:
    hidden, head, targets = _case(rows=64, width=32, vocab=200)
    exact = F.cross_entropy(hidden @ head.t(), targets)
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(hidden, head, targets, rows_per_chunk=20)
    gradients = torch.autograd.grad(loss, (hidden, head))
    assert loss.dtype == gradients[0].dtype == gradients[1].dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=1e-2, atol=0)
    for gradient, right in zip(gradients, torch.autograd.grad(exact, (hidden, head)), strict=True):
        assert float((gradient - right).norm() / right.norm()) < 2e-2  # bfloat16 keeps 8 bits


def test_float64_stays_exact() -> None:
    hidden, head, targets = _case(rows=30, width=8, vocab=50)
    hidden, head = hidden.detach().double().requires_grad_(), head.detach().double().requires_grad_()
    exact = F.cross_entropy(hidden @ head.t(), targets)
    ours = cross_entropy(hidden, head, targets, rows_per_chunk=7)
    torch.testing.assert_close(ours, exact, rtol=1e-14, atol=0)
    expected = torch.autograd.grad(exact, (hidden, head))
    for gradient, right in zip(torch.autograd.grad(ours, (hidden, head)), expected, strict=True):
        torch.testing.assert_close(gradient, right, rtol=1e-12, atol=1e-15)


def test_chunks_hold_at_most_the_limit() -> None:
    assert chunk_rows(2048, 256, "cpu") == 2048  # 2 MiB: one chunk
    rows = chunk_rows(2048, 50_304, "cpu")
    assert rows * 50_304 * 4 <= CHUNK_BYTES_CPU
    assert chunk_rows(1, 10**9, "cpu") == 1
