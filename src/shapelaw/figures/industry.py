"""Widely used models beside ours: shapes and losses as the Gemstones' authors published them, tokens as their makers state."""

from __future__ import annotations

import pandas as pd

from shapelaw.files import read_json
from shapelaw.runs.fetch import fetch
from shapelaw.runs.registry import GEMSTONES, INDUSTRY_MODELS

TOKENS = {
    "Llama-2": 2e12,
    "Llama-3-": 15e12,
    "Llama-3.1-": 15e12,
    "Llama-3.2-": 9e12,
    "Gemma-2b": 3e12,
    "Gemma-7b": 6e12,
    "Gemma-2-2b": 2e12,
    "Gemma-2-9b": 8e12,
    "Gemma-2-27b": 13e12,
    "Qwen2-0.5B": 12e12,
    "Qwen2-": 7e12,
    "Qwen2.5-": 18e12,
}
"""Start of a name -> training tokens that its maker states; the first that fits counts."""


def models() -> pd.DataFrame:
    """A row per model: name, family, width, depth, params, tokens, loss, flops (6N per token, as in the paper), aspect_ratio,
    tokens_per_param. The loss is on the Gemstones' validation text, per token of the model's own tokenizer.

    Raises:
        UserError: if the file cannot be had.
    """
    content = read_json(fetch(INDUSTRY_MODELS, GEMSTONES))
    frame = pd.DataFrame({name: content[name] for name in ("width", "depth", "params", "loss")})
    names = [str(name).split("/")[-1].removesuffix("-hf") for name in content["hf_name"]]
    tokens = [next(count for start, count in TOKENS.items() if name.startswith(start)) for name in names]
    family = [name.split("-")[0].rstrip("0123456789.") for name in names]
    frame = frame.assign(name=names, family=family, tokens=tokens)
    return frame.assign(
        flops=6.0 * frame["params"] * frame["tokens"],
        aspect_ratio=frame["width"] / frame["depth"],
        tokens_per_param=frame["tokens"] / frame["params"],
    )
