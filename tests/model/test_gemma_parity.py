"""Logits, loss and gradients against transformers' GemmaForCausalLM with copied weights, in float32."""

from __future__ import annotations

import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM

from shapelaw.model import kernels
from shapelaw.model.gemma import from_gemma_state_dict, gemma_config, to_gemma_state_dict
from shapelaw.model.transformer import ModelSpec, Transformer
from shapelaw.shapes import Shape

# Largest difference over largest value. Sums of up to 50,304 float32 products in another order differ by a few 1e-7.
RTOL_LOGITS = 3e-6
RTOL_GRADIENTS = 2e-5

SPECS = [
    ModelSpec(Shape(256, 2), vocab_size=512, seq_len=40),
    ModelSpec(Shape(384, 1), vocab_size=512, seq_len=40),  # 3 query heads to 1 key-value head
    ModelSpec(Shape(128, 2), vocab_size=300, seq_len=33, rope_base=500.0),  # 1 query head
    ModelSpec(Shape(32, 3, head_size=16), vocab_size=256, seq_len=48),
    ModelSpec(Shape(64, 2, head_size=16), vocab_size=256, seq_len=128),
    ModelSpec(Shape(48, 2, head_size=16), vocab_size=256, seq_len=64),  # 3 to 1
    ModelSpec(Shape(256, 1, head_size=16), vocab_size=256, seq_len=20),
]


def _pair(spec: ModelSpec) -> tuple[Transformer, GemmaForCausalLM]:
    """Both models with the same weights, far from any initial symmetry."""
    torch.manual_seed(0)
    ours = Transformer(spec)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=0.5 if parameter.ndim == 1 else parameter.shape[1] ** -0.5)
    theirs = GemmaForCausalLM(GemmaConfig(**gemma_config(spec), use_cache=False))
    theirs.load_state_dict(to_gemma_state_dict(ours.state_dict(), spec.shape))
    return ours, theirs


def _assert_close(ours: torch.Tensor, theirs: torch.Tensor, rtol: float, name: str) -> None:
    difference = float((ours.detach() - theirs.detach()).abs().max() / theirs.detach().abs().max())
    assert difference < rtol, f"{name}: {difference:.2e}"


@pytest.mark.parametrize("fast", [True, False], ids=["cpu-kernels", "plain"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.shape.name}-head{spec.shape.head_size}")
def test_equals_gemma(spec: ModelSpec, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "FAST_THREADS_MAX", torch.get_num_threads() if fast else 0)
    ours, theirs = _pair(spec)
    tokens = torch.randint(spec.vocab_size, (3, spec.seq_len + 1), generator=torch.Generator().manual_seed(1))

    logits = theirs(input_ids=tokens[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    our_loss = ours.loss(tokens)
    our_loss.backward()

    _assert_close(ours(tokens[:, :-1]), logits, RTOL_LOGITS, "logits")
    _assert_close(our_loss, loss, 1e-6, "loss")
    gradients = from_gemma_state_dict({name: p.grad for name, p in theirs.named_parameters()}, spec.shape)
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        _assert_close(parameter.grad, gradients[name], RTOL_GRADIENTS, name)


def test_gemma_round_trip() -> None:
    ours, theirs = _pair(SPECS[3])
    back = from_gemma_state_dict(theirs.state_dict(), SPECS[3].shape)
    assert back.keys() == ours.state_dict().keys()
    assert all(torch.equal(back[name], weight) for name, weight in ours.state_dict().items())
