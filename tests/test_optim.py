"""What decays, one step by hand, the clip against torch's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from shapelaw.config import OptimConfig
from shapelaw.errors import UserError
from shapelaw.model import ModelSpec, Transformer, initialise
from shapelaw.optim import build_adamw, clip_gradients, parameter_groups, set_lr
from shapelaw.shapes import Shape


@pytest.fixture
def model() -> Transformer:
    built = Transformer(ModelSpec(Shape(32, 2, head_size=16), 64, seq_len=8))
    initialise(built, seed=0)
    return built


def _names(model: Transformer, group: dict[str, object]) -> set[str]:
    members = {id(parameter) for parameter in group["params"]}  # type: ignore[attr-defined]
    return {name for name, parameter in model.named_parameters() if id(parameter) in members}


def test_matrices_decay_norms_do_not(model: Transformer) -> None:
    decay, no_decay = parameter_groups(model)
    norms = {"norm.weight"} | {f"blocks.{layer}.norm_{n}.weight" for layer in (0, 1) for n in (1, 2)}
    assert _names(model, no_decay) == norms
    assert _names(model, decay) == {name for name, _ in model.named_parameters()} - norms
    assert (decay["weight_decay"], no_decay["weight_decay"]) == (0.1, 0.0)


def test_embedding_can_be_exempt(model: Transformer) -> None:
    decay, no_decay = parameter_groups(model, OptimConfig(decay_embedding=False))
    assert "embedding.weight" in _names(model, no_decay)
    assert "head.weight" in _names(model, decay)


def test_two_steps_by_hand(model: Transformer) -> None:
    """AdamW as in arXiv 1711.05101, algorithm 2, with the paper's constants, in float64."""
    gradients = [torch.randn(32, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    norm, matrix = model.norm.weight, model.head.weight
    expected = {id(norm): norm.detach().double(), id(matrix): matrix.detach().double()}
    optimizer = build_adamw(model, lr=0.5)
    first = second = torch.zeros(32, dtype=torch.float64)
    for step, gradient in enumerate(gradients, 1):
        lr = 0.01 * step
        set_lr(optimizer, lr)
        norm.grad, matrix.grad = gradient.clone(), gradient.expand(64, 32).clone()
        optimizer.step()
        first = 0.9 * first + 0.1 * gradient.double()
        second = 0.95 * second + 0.05 * gradient.double() ** 2
        update = first / (1 - 0.9**step) / ((second / (1 - 0.95**step)).sqrt() + 1e-8)
        expected[id(norm)] = expected[id(norm)] - lr * update
        expected[id(matrix)] = expected[id(matrix)] * (1 - lr * 0.1) - lr * update
    for parameter in (norm, matrix):
        torch.testing.assert_close(parameter.double(), expected[id(parameter)], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_clip_equals_torch(model: Transformer, scale: float) -> None:
    tokens = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(0))
    (model.loss(tokens) * scale).backward()
    mine = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    norm = clip_gradients(model.parameters(), max_norm=1.0)
    ours = [parameter.grad for parameter in model.parameters()]
    holders = [nn.Parameter(torch.empty_like(gradient)) for gradient in mine]
    for holder, gradient in zip(holders, mine, strict=True):
        holder.grad = gradient
    theirs = torch.nn.utils.clip_grad_norm_(holders, 1.0)
    torch.testing.assert_close(norm, theirs)
    for gradient, holder in zip(ours, holders, strict=True):
        torch.testing.assert_close(gradient, holder.grad)


def test_clip_shows_a_diverged_run() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.tensor([1.0, math.inf, 0.0])
    assert not torch.isfinite(clip_gradients([parameter]))
    assert bool(parameter.grad.isnan().any())


def test_bad_input() -> None:
    with pytest.raises(UserError, match=r"optim.beta2=1: allowed values are numbers from 0 to below 1"):
        OptimConfig(beta2=1.0)
    with pytest.raises(UserError, match=r"optim.weight_decay=-1: allowed values are finite numbers from 0"):
        OptimConfig(weight_decay=-1)
