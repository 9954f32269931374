"""The rules that turn a base learning rate into the rate of a shape, and the patch for extreme shapes. Imports no torch.

Source: Gemstones (arXiv 2502.06857), section 3.2 (rate rule) and appendix F.2 (patch).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from shapelaw.config import DepthPatch
from shapelaw.errors import UserError
from shapelaw.shapes import Shape

DEFAULT_PATCH = DepthPatch(patch_shapes=["1792x7", "2560x8", "3072x12"])
"""The paper's patch: the shapes that it names, and the rule of its text for any other."""
NO_PATCH = DepthPatch(patch_ratio=math.inf)
"""Leaves every shape unchanged."""

_DIVISORS: dict[str, Callable[[float, float], float]] = {
    "width_sqrt_depth": lambda width, depth: width * math.sqrt(depth),
    "width": lambda width, depth: width,
    "sqrt_depth": lambda width, depth: math.sqrt(depth),
    "none": lambda width, depth: 1.0,
}
LR_RULES = tuple(_DIVISORS)
_BATCH_FACTORS: dict[str, Callable[[float], float]] = {
    "sqrt": math.sqrt,
    "linear": lambda ratio: ratio,
}


def lr_eff(
    lr_base: float,
    shape: Shape,
    rule: str = "width_sqrt_depth",
    width_unit: float = 1.0,
    patch: DepthPatch = DEFAULT_PATCH,
) -> float:
    """Peak learning rate of a shape.

    With w = width * width_unit and d the effective depth (see DepthPatch, which also gets w):
    `width_sqrt_depth` lr_base / (w sqrt(d)), `width` lr_base / w, `sqrt_depth` lr_base / sqrt(d), `none` lr_base.

    Args:
        lr_base: base rate; the Gemstones used 5, and 2.5 in an ablation.
        shape: the shape.
        rule: name of the rule.
        width_unit: widths of the paper's models that one feature of this suite stands for: 1 for the Gemstones,
            128 / head_size for a suite of smaller heads (so that one head counts as one head of theirs).
        patch: for extreme shapes.

    Raises:
        UserError: for an unknown rule, or a base rate or unit that is not positive and finite.

    Source: Gemstones, section 3.2; the patched rates of appendix F.2 come out as published.
    """
    if rule not in _DIVISORS:
        raise UserError(f"lr_rule={rule}: allowed values are {', '.join(LR_RULES)}")
    for name, value in (("lr_base", lr_base), ("width_unit", width_unit)):
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{name}={value}: allowed values are positive finite numbers; give {name}=1 or another")
    width = shape.width * width_unit
    return lr_base / _DIVISORS[rule](width, patch.depth(width, shape.depth))


def batch_factor(scaling: str, batch_tokens: float, reference: float) -> float:
    """Factor of a batch on the rate, r = batch_tokens / reference: 1 (`none`), sqrt(r) or r (`linear`).

    Args:
        scaling: how the rate follows the batch.
        batch_tokens: tokens of one optimizer step.
        reference: tokens of the batch at which the base rate needs no scaling; `none` ignores it.
    """
    return 1.0 if scaling == "none" else _BATCH_FACTORS[scaling](batch_tokens / reference)
