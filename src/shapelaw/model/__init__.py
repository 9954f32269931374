"""The transformer of the suites: model, attention back ends, initial weights, loss, export to transformers' Gemma."""

from shapelaw.model.attention import ATTENTIONS, check_attention
from shapelaw.model.gemma import from_gemma_state_dict, gemma_config, to_gemma_state_dict
from shapelaw.model.initialisation import InitSpec, initialise
from shapelaw.model.transformer import ModelSpec, Transformer

__all__ = [
    "ATTENTIONS",
    "InitSpec",
    "ModelSpec",
    "Transformer",
    "check_attention",
    "from_gemma_state_dict",
    "gemma_config",
    "initialise",
    "to_gemma_state_dict",
]
