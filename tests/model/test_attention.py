"""Back ends of attention and their refusals."""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from shapelaw.errors import UserError
from shapelaw.model import ModelSpec
from shapelaw.model.attention import ATTENTIONS, attend_sdpa, attention_backend, check_attention
from shapelaw.model.transformer import Block
from shapelaw.shapes import Shape
from support import ROOT


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
    with pytest.raises(UserError, match="attention=xla: allowed values are sdpa, flash"):
        attention_backend("xla")


def test_flash_on_a_cpu() -> None:
    with pytest.raises(UserError, match="not on cpu; give attention=sdpa"):
        check_attention("flash", "cpu", 128)


def test_flash_with_too_large_heads() -> None:
    with pytest.raises(UserError, match="heads up to 256"):
        check_attention("flash", "cuda", 320)


def test_flash_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(UserError, match="flash-attn package cannot be imported"):
        check_attention("flash", "cuda", 128)
    with pytest.raises(UserError, match="flash-attn package cannot be imported"):
        attention_backend("flash")


def _documented() -> inspect.Signature:
    """The signature of the package's own function."""
    golden = json.loads((ROOT / "tests" / "golden" / "flash_attn_func.json").read_text())
    kind, empty = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    return inspect.Signature(
        [
            inspect.Parameter(name, kind, default=empty if name in golden["required"] else None)
            for name in golden["parameters"]
        ]
    )


def test_flash_is_called_with_its_own_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's contract, (batch, time, heads, size) in half precision and grouped keys, met by a stand-in."""

    def flash_attn_func(*arguments: Any, **named: Any) -> Any:
        bound = _documented().bind(*arguments, **named).arguments
        q, k, v = (bound.pop(name) for name in "qkv")
        assert bound == {"causal": True, "deterministic": False}  # no dropout, the usual scale, no window
        assert q.dtype == k.dtype == v.dtype == torch.bfloat16
        return _by_definition(q.float(), k.float(), v.float()).bfloat16()

    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_func=flash_attn_func))
    q, k = torch.randn(2, 9, 4, 16), torch.randn(2, 9, 2, 16)
    attended = attention_backend("flash")(q, k, k)
    assert attended.dtype == torch.float32
    torch.testing.assert_close(attended, attend_sdpa(q, k, k), rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_a_block_compiles_in_one_piece(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package is traced as its kernel is: without a look at what is imported."""

    def flash_attn_func(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, deterministic: bool
    ) -> torch.Tensor:
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(*heads_first, is_causal=causal, enable_gqa=True).transpose(1, 2)

    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_func=flash_attn_func))
    spec = ModelSpec(Shape(32, 1, 16), vocab_size=64, seq_len=8, attention=name)
    block, x = Block(spec), torch.randn(2, 8, 32)
    angles = torch.randn(8, 8)
    whole = torch.compile(block, fullgraph=True, backend="eager")(x, angles.cos(), angles.sin())
    # in half precision, float32's last bit may decide to which side a number is rounded
    tolerance = {"rtol": 2e-2, "atol": 2e-3} if name == "flash" else {}
    torch.testing.assert_close(whole, block(x, angles.cos(), angles.sin()), **tolerance)


@pytest.mark.skipif(
    importlib.util.find_spec("flash_attn") is None or not torch.cuda.is_available(),
    reason="needs a GPU and the flash-attn package",
)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 2, 64), (2, 1, 128), (2, 1, 256)])
def test_flash_equals_sdpa_on_a_gpu(heads: int, kv_heads: int, size: int) -> None:
    """Values and gradients to a few roundings of bfloat16 (2^-8) of their largest."""
    generator = torch.Generator().manual_seed(0)
    sizes = (heads, kv_heads, kv_heads)
    inputs = [torch.randn(2, 40, h, size, generator=generator).cuda().requires_grad_() for h in sizes]
    weight = torch.randn(2, 40, heads, size, generator=generator).cuda()
    pairs = []
    for attend in map(attention_backend, ATTENTIONS):
        attended = attend(*inputs)
        pairs.append((attended, *torch.autograd.grad((attended * weight).sum(), inputs)))
    for expected, found in zip(*pairs, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=float(expected.detach().abs().max()) * 2**-6)
