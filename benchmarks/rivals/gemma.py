"""transformers' GemmaForCausalLM as a rival."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import GemmaConfig, GemmaForCausalLM
from transformers import __version__ as VERSION

from rivals.case import spec_of
from rivals.worker import Built, torch_built
from shapelaw.model import gemma_config

__all__ = ["VERSION", "build"]


def build(sizes: dict[str, Any], tokens: torch.Tensor) -> Built:
    """The model of the same function, and a step of it."""
    model: Any = GemmaForCausalLM(GemmaConfig(**gemma_config(spec_of(sizes)), use_cache=False)).to(tokens.device)

    def loss(tokens: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=tokens[:, :-1]).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())

    return torch_built(model, loss, tokens, bool(sizes.get("gpu")))
