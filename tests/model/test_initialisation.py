"""Initial weights: measured standard deviations, determinism, the patch."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import truncnorm

from shapelaw.config import DepthPatch
from shapelaw.lr_rules import NO_PATCH
from shapelaw.model.initialisation import DEFAULT_INIT, InitSpec, initial_std, initialise
from shapelaw.model.transformer import ModelSpec, Transformer
from shapelaw.shapes import Shape

KEPT = float(truncnorm.std(-3, 3))  # 0.987: what truncation leaves of a standard deviation


def _model(shape: Shape, seed: int, spec: InitSpec = DEFAULT_INIT, vocab_size: int = 256) -> Transformer:
    model = Transformer(ModelSpec(shape, vocab_size, seq_len=8))
    initialise(model, seed, spec)
    return model


def test_measured_standard_deviations() -> None:
    weights = _model(Shape(256, 3), seed=0).state_dict()
    expected = {"embedding": 1 / 256, "head": 1 / 256}
    for layer in range(3):
        block = f"blocks.{layer}."
        expected |= {block + "attention.qkv": 1 / 256, block + "mlp.gate_up": 1 / 256}
        expected[block + "attention.out"] = 1 / (2 * 256 * (layer + 1))
        expected[block + "mlp.down"] = 1 / (2 * 1024 * (layer + 1))
    for name, variance in expected.items():
        weight = weights.pop(name + ".weight")
        sigma = math.sqrt(variance)
        # The standard error of a measured standard deviation of n numbers is sigma / sqrt(2n); four of them.
        assert float(weight.std()) == pytest.approx(KEPT * sigma, rel=4 / math.sqrt(2 * weight.numel()))
        assert abs(float(weight.mean())) < 4 * sigma / math.sqrt(weight.numel())
        assert 2.5 * sigma < float(weight.abs().max()) <= 3 * sigma * (1 + 1e-6)
    assert all(name.endswith(("norm.weight", "norm_1.weight", "norm_2.weight")) for name in weights)
    assert all(bool((weight == 1).all()) for weight in weights.values())


def test_same_seed_same_weights_other_seed_others() -> None:
    shape = Shape(32, 2, head_size=16)
    first, again, other = _model(shape, 5), _model(shape, 5), _model(shape, 6)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        assert weight.ndim == 1 or not torch.equal(weight, other.state_dict()[name])


def test_weights_depend_on_seed_and_name_alone() -> None:
    """A deeper model, built after other draws, has the same first block: no global generator, no order."""
    shallow = _model(Shape(32, 1, head_size=16), 5).state_dict()
    torch.rand(7)
    deep = _model(Shape(32, 4, head_size=16), 5).state_dict()
    assert all(torch.equal(weight, deep[name]) for name, weight in shallow.items())


def test_no_two_matrices_are_alike() -> None:
    state = _model(Shape(32, 2, head_size=16), 5).state_dict()
    assert not torch.equal(state["blocks.0.mlp.down.weight"] * 2**-0.5, state["blocks.1.mlp.down.weight"])
    assert not torch.equal(state["embedding.weight"], state["head.weight"])


def test_patch_spreads_layers_over_the_depth_that_counts() -> None:
    shape, name = Shape(2560, 8), "blocks.{}.attention.out.weight"
    plain = [initial_std(name.format(layer), shape, InitSpec(NO_PATCH)) for layer in range(8)]
    patched = [initial_std(name.format(layer), shape) for layer in range(8)]
    assert plain[-1] == pytest.approx(1 / math.sqrt(2 * 2560 * 8))
    assert patched[-1] == pytest.approx(1 / math.sqrt(2 * 2560 * 26))  # depth' = ceil(2560 / 100)
    assert [p / q for p, q in zip(patched, plain, strict=True)] == pytest.approx([math.sqrt(8 / 26)] * 8)


def test_patch_strictness() -> None:
    shape, name = Shape(1792, 7), "blocks.6.mlp.down.weight"
    assert initial_std(name, shape) == pytest.approx(1 / math.sqrt(2 * 4 * 1792 * 18))
    strict = InitSpec(DepthPatch(patch_strict=True))
    assert initial_std(name, shape, strict) == pytest.approx(1 / math.sqrt(2 * 4 * 1792 * 7))


def test_built_on_meta_then_initialised() -> None:
    with torch.device("meta"):
        model = Transformer(ModelSpec(Shape(32, 1, head_size=16), 64, seq_len=8))
    model.to_empty(device="cpu")
    initialise(model, 5)
    tokens = torch.arange(8)[None]
    assert torch.equal(model(tokens), _model(Shape(32, 1, head_size=16), 5, vocab_size=64)(tokens))
