"""Parameter counts, shapes of outputs, causality, refusals."""

from __future__ import annotations

import pytest
import torch

from shapelaw.counting import params_total
from shapelaw.errors import UserError
from shapelaw.model import initialise
from shapelaw.model.transformer import ModelSpec, Transformer
from shapelaw.shapes import Shape
from support import PUBLISHED

NANO = [(32, 2), (32, 16), (48, 3), (64, 4), (128, 2), (256, 1)]


def _built_params(spec: ModelSpec) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Transformer(spec).parameters())


@pytest.mark.parametrize(("width", "depth"), PUBLISHED)
def test_published_parameter_counts(width: int, depth: int) -> None:
    built = _built_params(ModelSpec(Shape(width, depth), 50_304, 2048))
    assert built == PUBLISHED[width, depth] == int(params_total(width, depth, 50_304))


@pytest.mark.parametrize(("width", "depth"), NANO)
def test_nano_parameter_counts(width: int, depth: int) -> None:
    built = _built_params(ModelSpec(Shape(width, depth, head_size=16), 256, 128))
    assert built == int(params_total(width, depth, 256, head_size=16))


@pytest.fixture(scope="module")
def model() -> Transformer:
    built = Transformer(ModelSpec(Shape(32, 2, head_size=16), 256, seq_len=24))
    initialise(built, seed=3)
    return built


def test_no_token_sees_later_ones(model: Transformer) -> None:
    tokens = torch.randint(256, (2, 24), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 15:] = (changed[:, 15:] + 1) % 256
    before, after = model(tokens), model(changed)
    assert before.shape == (2, 24, 256)
    assert torch.equal(before[:, :15], after[:, :15])
    assert not torch.allclose(before[:, 15:], after[:, 15:])


def test_shorter_sequences_are_taken(model: Transformer) -> None:
    tokens = torch.randint(256, (1, 24), generator=torch.Generator().manual_seed(0))
    # Other matrix sizes sum in another order.
    torch.testing.assert_close(model(tokens)[:, :9], model(tokens[:, :9]), rtol=1e-5, atol=1e-5)


def test_initial_loss_is_near_that_of_guessing(model: Transformer) -> None:
    """Logits start with unit-order variance v, which costs about v / 2 nats over log V; here less than 3."""
    tokens = torch.randint(256, (8, 25), generator=torch.Generator().manual_seed(0))
    assert 5.5 < float(model.loss(tokens).detach()) < 5.55 + 3


def test_loss_without_gradient(model: Transformer) -> None:
    tokens = torch.randint(256, (8, 25), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        evaluated = model.loss(tokens)
    assert not evaluated.requires_grad
    assert float(evaluated) == float(model.loss(tokens).detach())


def test_too_long_a_sequence_is_refused(model: Transformer) -> None:
    with pytest.raises(UserError, match="up to seq_len=24"):
        model(torch.zeros(1, 25, dtype=torch.int64))
    with pytest.raises(UserError, match="26 tokens"):
        model.loss(torch.zeros(1, 27, dtype=torch.int64))


def test_bad_specs_are_refused() -> None:
    with pytest.raises(UserError, match="attention=flsh: allowed values are sdpa, flash"):
        ModelSpec(Shape(256, 1), 256, 128, attention="flsh")
    with pytest.raises(UserError, match="vocab_size=0"):
        ModelSpec(Shape(256, 1), 0, 128)


def test_state_dict_names_and_sizes(model: Transformer) -> None:
    sizes = {name: tuple(weight.shape) for name, weight in model.state_dict().items() if "blocks.1" not in name}
    assert sizes == {
        "embedding.weight": (256, 32),
        "blocks.0.norm_1.weight": (32,),
        "blocks.0.attention.qkv.weight": (64, 32),
        "blocks.0.attention.out.weight": (32, 32),
        "blocks.0.norm_2.weight": (32,),
        "blocks.0.mlp.gate_up.weight": (256, 32),
        "blocks.0.mlp.down.weight": (32, 128),
        "norm.weight": (32,),
        "head.weight": (256, 32),
    }
