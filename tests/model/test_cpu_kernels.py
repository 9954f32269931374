"""The single-core kernels against the plain forms in float64, in value and gradient, and at the ends of float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from shapelaw.model import cpu_kernels, kernels
from shapelaw.model.attention import attend_sdpa

Function = Callable[..., torch.Tensor]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "FAST_THREADS_MAX", torch.get_num_threads())


def _random(*size: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(sum(size))) * scale


def _check(function: Function, *inputs: torch.Tensor, rtol: float = 2e-6) -> None:
    """float32 inputs take the fast path, float64 ones the plain; errors are relative to the largest value."""
    fast, plain = (
        [given.detach().to(dtype).requires_grad_() for given in inputs] for dtype in (torch.float32, torch.float64)
    )
    assert kernels.fast_path(fast[0])
    assert not kernels.fast_path(plain[0])
    out, exact = function(*fast), function(*plain)
    weights = _random(*out.shape)
    pairs = [(out, exact)]
    pairs += zip(
        torch.autograd.grad(out, fast, weights), torch.autograd.grad(exact, plain, weights.double()), strict=True
    )
    for ours, right in pairs:
        assert ours.dtype == torch.float32
        assert float((ours.detach() - right.detach()).abs().max() / right.detach().abs().max()) < rtol


@pytest.mark.parametrize("width", [2, 7, 32, 257])
def test_rms_norm(width: int) -> None:
    _check(lambda x, weight: kernels.rms_norm(x, weight, 1e-5), _random(3, 5, width), _random(width))


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_geglu(scale: float) -> None:
    _check(kernels.geglu, _random(3, 5, 2 * 77, scale=scale))


@pytest.mark.parametrize(
    ("n_head", "n_kv_head", "size", "time"), [(2, 1, 16, 40), (3, 1, 16, 33), (8, 4, 4, 7), (1, 1, 64, 1)]
)
def test_small_heads(n_head: int, n_kv_head: int, size: int, time: int) -> None:
    cos, sin = kernels.rotary_tables(64, size, 100.0)

    def attended(qkv: torch.Tensor) -> torch.Tensor:
        if kernels.takes_small_heads(qkv, n_head, n_kv_head):
            return kernels.attend_small_heads(qkv, cos, sin, n_head, n_kv_head)
        return attend_sdpa(*kernels.split_rotate(qkv, cos, sin, n_head, n_kv_head)).flatten(2)

    _check(attended, _random(2, time, (n_head + 2 * n_kv_head) * size, scale=2.0))


def test_non_contiguous_inputs() -> None:
    """What autograd hands over is not always laid out in rows."""
    x = _random(6, 5, 32).transpose(0, 1).requires_grad_()
    normed = kernels.rms_norm(x, torch.ones(32), 1e-5)
    (gradient,) = torch.autograd.grad(normed, x, _random(32, 5, 6).permute(1, 2, 0))
    right = kernels.rms_norm(x.double(), torch.ones(32).double(), 1e-5)
    (expected,) = torch.autograd.grad(right, x, _random(32, 5, 6).permute(1, 2, 0).double())
    torch.testing.assert_close(normed, right.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_softmax_of_extreme_scores() -> None:
    scores = torch.tensor([[[0.0, 9.0], [-1e30, 1e30], [3e38, -3e38], [1.0, 1.0]]]).numpy()
    cpu_kernels.causal_softmax(scores, 2, 1.0)
    np.testing.assert_array_equal(scores, [[[1, 0], [0, 1], [1, 0], [0.5, 0.5]]])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite_values_are_not_hidden(bad: float) -> None:
    x = _random(2, 64)
    x[0, 3] = bad
    assert not bool(torch.isfinite(kernels.rms_norm(x, torch.ones(64), 1e-5)[0]).all())
    assert not bool(torch.isfinite(kernels.geglu(x)[0]).all())


def test_large_gates_saturate() -> None:
    gate_up = torch.tensor([[1e4, -1e4, 40.0, -40.0, 1.0, 1.0, 1.0, 1.0]])
    torch.testing.assert_close(kernels.geglu(gate_up), torch.tensor([[1e4, 0.0, 40.0, 0.0]]), rtol=0, atol=1e-30)


def test_exponential_is_within_three_units_in_the_last_place() -> None:
    """Through the softmax of two: e^x / (1 + e^x) over what float32 can hold."""
    x = np.linspace(-80, 0, 40_001, dtype=np.float32)
    scores = np.zeros((1, 2 * x.size, 2), dtype=np.float32)
    scores[0, 1::2, 0] = x
    cpu_kernels.causal_softmax(scores, 2, 1.0)
    exact = np.exp(x.astype(np.float64)) / (1.0 + np.exp(x.astype(np.float64)))
    np.testing.assert_allclose(scores[0, 1::2, 0], exact, rtol=3 * 2.0**-23)
