"""The one place where weights change between our layout and transformers' GemmaForCausalLM.

Ours fuses queries, keys and values into one matrix, and gate and up into another; all else is the same, by other names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from shapelaw.model.transformer import ModelSpec
from shapelaw.shapes import Shape

_TOP = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
_BLOCK = {
    "norm_1.weight": "input_layernorm.weight",
    "attention.out.weight": "self_attn.o_proj.weight",
    "norm_2.weight": "post_attention_layernorm.weight",
    "mlp.down.weight": "mlp.down_proj.weight",
}
_QKV = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight")
_GATE_UP = ("mlp.gate_proj.weight", "mlp.up_proj.weight")


def gemma_config(spec: ModelSpec) -> dict[str, Any]:
    """Keyword arguments of transformers' GemmaConfig for the same function and gradients (no id is padding)."""
    shape = spec.shape
    return {
        "vocab_size": spec.vocab_size,
        "hidden_size": shape.width,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.n_head,
        "num_key_value_heads": shape.n_kv_head,
        "head_dim": shape.head_size,
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": spec.seq_len,
        "rms_norm_eps": spec.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_base},
        "attention_bias": False,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }


def to_gemma_state_dict(weights: Mapping[str, torch.Tensor], shape: Shape) -> dict[str, torch.Tensor]:
    """Our weights (or their gradients) under GemmaForCausalLM's names, fused matrices split; views, no copies."""
    renamed = {theirs: weights[ours] for ours, theirs in _TOP.items()}
    for layer in range(shape.depth):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        renamed |= {theirs + new: weights[ours + old] for old, new in _BLOCK.items()}
        qkv = torch.split(weights[ours + "attention.qkv.weight"], _qkv_rows(shape))
        renamed |= {theirs + name: part for name, part in zip(_QKV, qkv, strict=True)}
        gate_up = weights[ours + "mlp.gate_up.weight"].chunk(2)
        renamed |= {theirs + name: part for name, part in zip(_GATE_UP, gate_up, strict=True)}
    return renamed


def from_gemma_state_dict(weights: Mapping[str, torch.Tensor], shape: Shape) -> dict[str, torch.Tensor]:
    """GemmaForCausalLM's weights (or their gradients) under our names, fused."""
    renamed = {ours: weights[theirs] for ours, theirs in _TOP.items()}
    for layer in range(shape.depth):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        renamed |= {ours + old: weights[theirs + new] for old, new in _BLOCK.items()}
        renamed[ours + "attention.qkv.weight"] = torch.cat([weights[theirs + name] for name in _QKV])
        renamed[ours + "mlp.gate_up.weight"] = torch.cat([weights[theirs + name] for name in _GATE_UP])
    return renamed


def _qkv_rows(shape: Shape) -> list[int]:
    return [heads * shape.head_size for heads in (shape.n_head, shape.n_kv_head, shape.n_kv_head)]
