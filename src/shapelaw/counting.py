"""Parameters and FLOPs of a shape, each by a named convention.

All functions take scalars or arrays of widths and depths, whole or (relaxed, for optimisation) real. Conventions:

- parameters `total`, `no_embedding` (minus one vocab x width) and `no_embedding_and_head` (minus both).
- FLOPs per trained token `exact` (Gemstones appendix G: forward and backward, grouped queries, causal attention halved,
  GeGLU, norms, logits), `6n` (six times the parameters, Kaplan et al. 2020 section 2.1 with all of them counted) and
  `kaplan` (6N without embedding plus the attention term 6 * depth * seq_len * width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shapelaw.errors import UserError
from shapelaw.shapes import EXPAND, HEAD_SIZE

Array = NDArray[Any]

PARAMS_CONVENTIONS = ("total", "no_embedding", "no_embedding_and_head")
FLOPS_CONVENTIONS = ("exact", "6n", "kaplan")

VOCAB_SIZE_GEMSTONES = 50_304
SEQ_LEN_GEMSTONES = 2048


def params_total(
    width: ArrayLike,
    depth: ArrayLike,
    vocab_size: ArrayLike,
    head_size: ArrayLike = HEAD_SIZE,
    *,
    relaxed: bool = False,
) -> Array:
    """All parameters of the shape, including embedding and head.

    depth * (width*(h + 2k)*s + s*h*width + 12*width^2 + 2*width) + width + 2*vocab*width, with head size s,
    h = width // s query heads and k = max(h // 2, 1) key-value heads. Whole inputs are counted in 64-bit integers, exactly.

    Args:
        relaxed: h = width / s and k = h / 2 without rounding: smooth in the width, for optimisation, and the same count
            if the heads are whole and even.

    Source: checked against every published row of the Gemstones (GEMSTONES facts, section 1).
    """
    w, d, v, size = (np.asarray(one) for one in (width, depth, vocab_size, head_size))
    heads = w / size if relaxed else w // size
    kv_heads = heads / 2 if relaxed else np.maximum(heads // 2, 1)
    attention = w * (heads + 2 * kv_heads) * size + size * heads * w
    block = attention + 3 * EXPAND * w * w + 2 * w
    return np.asarray(d * block + w + 2 * v * w)


def params(
    width: ArrayLike,
    depth: ArrayLike,
    vocab_size: ArrayLike,
    convention: str = "total",
    head_size: int = HEAD_SIZE,
    *,
    relaxed: bool = False,
) -> Array:
    """Parameters by a named convention.

    Args:
        convention: `total`; `no_embedding` omits the token embedding (approach 3 of the paper calls this "no embeds");
            `no_embedding_and_head` also omits the head (approach 1's "no embeds").
        relaxed: see `params_total`.

    Raises:
        UserError: for an unknown convention.
    """
    return recount(params_total(width, depth, vocab_size, head_size, relaxed=relaxed), width, vocab_size, convention)


def recount(total: ArrayLike, width: ArrayLike, vocab_size: ArrayLike, convention: str) -> Array:
    """A total parameter count by another convention: minus none, one or both of the vocab x width matrices."""
    if convention not in PARAMS_CONVENTIONS:
        raise UserError(f"counting={convention}: allowed values are {', '.join(PARAMS_CONVENTIONS)}")
    matrices = PARAMS_CONVENTIONS.index(convention)
    return np.asarray(np.asarray(total) - matrices * np.asarray(width) * np.asarray(vocab_size))


@dataclass(frozen=True)
class Flops:
    """FLOPs per token of a shape, forward and backward."""

    forward: Array
    backward: Array

    @property
    def total(self) -> Array:
        """Forward plus backward: the cost of training on one token."""
        return np.asarray(self.forward + self.backward)


def flops_exact(
    width: ArrayLike,
    depth: ArrayLike,
    vocab_size: ArrayLike = VOCAB_SIZE_GEMSTONES,
    seq_len: int = SEQ_LEN_GEMSTONES,
    head_size: int = HEAD_SIZE,
    queries_per_kv: float = 2.0,
) -> Flops:
    """FLOPs per token counted operation by operation.

    Heads are width / head_size and key-value heads heads / queries_per_kv, not rounded, as the paper counts them (its
    384-wide models therefore count 1.5 key-value heads), so the same formula serves relaxed shapes. Attention scores are
    halved because the mask is triangular; the backward pass of the scores costs 2.5 times the forward (it recomputes them,
    as flash attention does), everything else twice. The token embedding is a look-up and costs nothing.

    Source: Gemstones (arXiv 2502.06857), appendix G.
    """
    w, d, v = (np.asarray(a, dtype=np.float64) for a in (width, depth, vocab_size))
    heads = w / head_size
    kv = heads / queries_per_kv
    projections = 2.0 * (heads + 2.0 * kv) * w * head_size + 3.5 * (heads + kv) * head_size  # qkv, rotary positions
    scores = (1.0 * head_size + 3.0 + 2.0 * head_size) * seq_len * heads  # q k^T (halved), softmax, weighted values
    output = 2.0 * w * head_size * heads
    hidden = EXPAND * w
    mlp = 6.0 * w * hidden + 10.0 * hidden + 2.0 * w  # three matmuls, the tanh-gelu, two residual additions
    norms = 2 * 7.0 * w
    ends = 7.0 * w + 2.0 * w * v  # final norm, logits
    forward = d * (projections + scores + output + mlp + norms) + ends
    backward = d * (2.0 * projections + 2.5 * scores + 2.0 * output + 2.0 * (mlp + norms)) + 2.0 * ends
    return Flops(np.asarray(forward), np.asarray(backward))


def flops_per_token(
    width: ArrayLike,
    depth: ArrayLike,
    vocab_size: ArrayLike = VOCAB_SIZE_GEMSTONES,
    seq_len: int = SEQ_LEN_GEMSTONES,
    head_size: int = HEAD_SIZE,
    convention: str = "exact",
    *,
    relaxed: bool = False,
) -> Array:
    """Training FLOPs per token by a named convention (see the module's text).

    Args:
        relaxed: whether `6n` and `kaplan` count parameters without rounding heads; `exact` never rounds them.

    Raises:
        UserError: for another convention.
    """
    if convention == "exact":
        return flops_exact(width, depth, vocab_size, seq_len, head_size).total
    if convention == "6n":
        return np.asarray(6.0 * params_total(width, depth, vocab_size, head_size, relaxed=relaxed))
    if convention == "kaplan":
        w, d = np.asarray(width, dtype=np.float64), np.asarray(depth, dtype=np.float64)
        counted = params(width, depth, vocab_size, "no_embedding_and_head", head_size, relaxed=relaxed)
        return np.asarray(6.0 * counted + 6.0 * d * seq_len * w)
    raise UserError(f"flops={convention}: allowed values are {', '.join(FLOPS_CONVENTIONS)}")


def flops_per_served_token(
    width: ArrayLike,
    depth: ArrayLike,
    vocab_size: ArrayLike = VOCAB_SIZE_GEMSTONES,
    seq_len: int = SEQ_LEN_GEMSTONES,
    head_size: int = HEAD_SIZE,
    convention: str = "exact",
    *,
    relaxed: bool = False,
) -> Array:
    """FLOPs of one token of inference: the forward pass at a full context, a third of the training FLOPs unless `exact`.

    Source: Sardana et al. 2024 (arXiv 2401.00448), section 2, for 2N against 6N.

    Raises:
        UserError: for another convention.
    """
    if convention == "exact":
        return flops_exact(width, depth, vocab_size, seq_len, head_size).forward
    return flops_per_token(width, depth, vocab_size, seq_len, head_size, convention, relaxed=relaxed) / 3.0
