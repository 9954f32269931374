"""Back ends of attention and their refusals."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from shapelaw.errors import UserError
from shapelaw.model import attention
from shapelaw.model.attention import attend_flash, attend_sdpa, attention_backend, check_attention


def _by_definition(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Softmax attention written out, head by head."""
    batch, time, heads, size = q.shape
    out = torch.empty_like(q)
    for b in range(batch):
        for h in range(heads):
            shared = h // (heads // k.shape[2])
            scores = q[b, :, h] @ k[b, :, shared].T / math.sqrt(size)
            scores[torch.ones(time, time).triu(1).bool()] = -torch.inf
            out[b, :, h] = scores.softmax(-1) @ v[b, :, shared]
    return out


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (2, 1), (3, 1), (4, 2)])
def test_sdpa_by_definition(heads: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 9, heads, 16, generator=generator)
    k, v = (torch.randn(2, 9, kv_heads, 16, generator=generator) for _ in range(2))
    torch.testing.assert_close(attend_sdpa(q, k, v), _by_definition(q, k, v), rtol=1e-5, atol=1e-6)


def test_unknown_name() -> None:
    with pytest.raises(UserError, match="attention=xla: allowed are sdpa, flash"):
        attention_backend("xla")


def test_flash_on_a_cpu() -> None:
    q = torch.randn(1, 4, 2, 16)
    with pytest.raises(UserError, match="not on cpu; give attention=sdpa"):
        attend_flash(q, q, q)


def test_flash_with_too_large_heads() -> None:
    with pytest.raises(UserError, match="heads up to 256"):
        check_attention("flash", "cuda", 320)


def test_flash_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(UserError, match="flash-attn package cannot be imported"):
        check_attention("flash", "cuda", 128)


def test_flash_is_called_with_its_own_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's contract, (batch, time, heads, size) in half precision and grouped keys, met by a stand-in."""

    def flash_attn_func(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> Any:
        assert causal
        assert q.dtype == k.dtype == v.dtype == torch.bfloat16
        return _by_definition(q.float(), k.float(), v.float()).bfloat16()

    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_func=flash_attn_func))
    monkeypatch.setattr(attention, "check_attention", lambda *_: None)
    q, k = torch.randn(2, 9, 4, 16), torch.randn(2, 9, 2, 16)
    attended = attend_flash(q, k, k)
    assert attended.dtype == torch.float32
    torch.testing.assert_close(attended, attend_sdpa(q, k, k), rtol=3e-2, atol=3e-2)
