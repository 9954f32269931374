"""litgpt's GPT as a rival, in an environment that need not have shapelaw."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from litgpt import GPT, Config
from litgpt.utils import chunked_cross_entropy

from rivals.worker import Built, torch_built

VERSION = version("litgpt")


def build(sizes: dict[str, Any], tokens: torch.Tensor) -> Built:
    """Model and step; compiled as its pretraining script does it, torch.compile of the model, where that is asked for."""
    model = gpt(sizes).to(tokens.device)
    called = torch.compile(model) if sizes.get("compiled") else model
    return torch_built(model, lambda ids: loss_of(called, ids, sizes["chunk_size"]), tokens, sizes["gpu"])


def gpt(sizes: dict[str, Any]) -> GPT:
    """The model of the same function; "Gemma" in the name makes litgpt's norms add 1 to their weights."""
    config = Config(
        name="Gemma-like",
        block_size=sizes["seq_len"],
        padded_vocab_size=sizes["vocab_size"],
        n_layer=sizes["depth"],
        n_embd=sizes["width"],
        n_head=sizes["n_head"],
        n_query_groups=sizes["n_kv_head"],
        head_size=sizes["head_size"],
        intermediate_size=sizes["intermediate"],
        rotary_percentage=1.0,
        rope_base=sizes["rope_base"],
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=sizes["norm_eps"],
        mlp_class_name="GemmaMLP",
        gelu_approximate="tanh",
        scale_embeddings=True,
    )
    return GPT(config)


def loss_of(model: GPT, tokens: torch.Tensor, chunk_size: int) -> torch.Tensor:
    """litgpt's own loss, as its pretraining script calls it (chunk_size 128) or in one piece (0)."""
    return chunked_cross_entropy(model(tokens[:, :-1]), tokens[:, 1:], chunk_size=chunk_size)


def parity(model: GPT, given: str, out: str) -> None:
    """Saves logits, loss and gradients for the given weights and tokens."""
    case = torch.load(given)
    model.load_state_dict(case["weights"])
    model.zero_grad()
    loss = loss_of(model, case["tokens"], chunk_size=0)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    logits = model(case["tokens"][:, :-1]).detach()
    torch.save({"logits": logits, "loss": loss.detach(), "gradients": gradients}, out)
