"""Logits, loss and gradients of our model and litgpt's for the same weights, each against ours in float64."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping

import torch

from rivals.case import Case
from rivals.entrants import Worker
from shapelaw.model import Transformer, initialise
from shapelaw.shapes import Shape


def parity(case: Case, worker: Worker) -> Iterator[str]:
    """Lines of the report."""
    model, tokens = Transformer(case.spec), case.batch_of_tokens()
    initialise(model, seed=1)
    shape = case.spec.shape
    with tempfile.TemporaryDirectory() as folder:
        given, out = f"{folder}/given.pt", f"{folder}/out.pt"
        torch.save({"weights": litgpt_names(model.state_dict(), shape), "tokens": tokens}, given)
        worker.ask(do="parity", given=given, out=out)
        theirs = torch.load(out)
    ours, exact = (litgpt_names(_results(m, tokens), shape) for m in (model, copy.deepcopy(model).double()))
    right = True
    yield "largest errors over largest values, against float64:"
    for name, values in (("logits", ["logits"]), ("loss", ["loss"]), ("gradients", list(theirs["gradients"]))):
        their_values = theirs["gradients"] if name == "gradients" else theirs
        our_error, their_error = (
            max(_difference(given[value].double(), exact[value]) for value in values) for given in (ours, their_values)
        )
        right &= our_error <= 2 * their_error + 1e-7
        yield f"  {name:10} ours {our_error:.1e}, litgpt {their_error:.1e}"
    yield "parity OK" if right else "parity FAILED"


def _results(model: Transformer, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients by parameter name, logits and loss."""
    value = model.loss(tokens)
    torch.autograd.backward(value)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {**gradients, "logits": model(tokens[:, :-1]).detach(), "loss": value.detach()}


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def litgpt_names(weights: Mapping[str, torch.Tensor], shape: Shape) -> dict[str, torch.Tensor]:
    """Our weights or gradients under litgpt's names (its fused matrix has our order); logits and loss keep theirs."""
    names = {
        "embedding.weight": "transformer.wte.weight",
        "norm.weight": "transformer.ln_f.weight",
        "head.weight": "lm_head.weight",
    }
    renamed = {names.get(old, old): weights[old] for old in (*names, "logits", "loss") if old in weights}
    inside = {"norm_1": "norm_1", "norm_2": "norm_2", "attention.qkv": "attn.qkv", "attention.out": "attn.proj"}
    for layer in range(shape.depth):
        ours, theirs = f"blocks.{layer}.", f"transformer.h.{layer}."
        renamed |= {f"{theirs}{new}.weight": weights[f"{ours}{old}.weight"] for old, new in inside.items()}
        gate, up = weights[ours + "mlp.gate_up.weight"].chunk(2)
        renamed |= {theirs + "mlp.fc_1.weight": gate, theirs + "mlp.fc_2.weight": up}
        renamed[theirs + "mlp.proj.weight"] = weights[ours + "mlp.down.weight"]
    return renamed
