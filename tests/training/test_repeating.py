"""Kernels that repeat: what is asked of torch on a GPU, and what a refusal of torch becomes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from shapelaw.errors import UserError
from shapelaw.model.attention import attend_sdpa, attention_backend
from shapelaw.training import group
from shapelaw.training.repeating import choose_kernels, refuse_unrepeatable
from support import Compose


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What is asked of torch holds for the whole process."""
    fills, cudnn = torch.utils.deterministic.fill_uninitialized_memory, torch.backends.cuda.cudnn_sdp_enabled()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fills
    torch.backends.cuda.enable_cudnn_sdp(cudnn)


def unpooled() -> torch.Tensor:
    """An operation whose sums torch cannot order."""
    pooled, places = F.max_pool2d(torch.rand(1, 1, 4, 4), 2, return_indices=True)
    return F.max_unpool2d(pooled, places, 2)


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_gpu_takes_kernels_that_repeat(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    """A stand-in for the device: nothing is computed on it."""
    asked: list[bool] = []
    monkeypatch.setattr(group, "choose_kernels", asked.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    group.join(composed("accelerator=cpu", f"deterministic={deterministic}"))
    assert asked == []
    group.join(composed("accelerator=gpu", f"deterministic={deterministic}"))
    assert asked == [deterministic]


def test_by_default_an_operation_without_a_fixed_order_is_a_warning() -> None:
    choose_kernels(deterministic=False)
    with pytest.warns(UserWarning, match="does not have a deterministic implementation"):
        unpooled()


def test_deterministic_refuses_it_by_name_and_leaves_other_errors_alone() -> None:
    choose_kernels(deterministic=True)
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    with pytest.raises(RuntimeError) as refused:
        unpooled()
    with pytest.raises(
        UserError, match=r"deterministic=true: max_unpooling2d\w* does not repeat .*deterministic=false"
    ):
        refuse_unrepeatable(refused.value)
    refuse_unrepeatable(RuntimeError("another"))


@pytest.mark.parametrize(("strict", "asked"), [(None, False), (False, False), (True, True)])
def test_flash_is_asked_for_ordered_sums_where_torch_is(
    monkeypatch: pytest.MonkeyPatch, strict: bool | None, asked: bool
) -> None:
    seen: list[bool] = []

    def flash_attn_func(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **named: bool) -> torch.Tensor:
        seen.append(named["deterministic"])
        return attend_sdpa(q, k, v)

    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_func=flash_attn_func))
    if strict is not None:
        choose_kernels(strict)
    attention_backend("flash")(*(torch.rand(1, 4, 2, 16) for _ in range(3)))
    assert seen == [asked]
