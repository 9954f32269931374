"""Initial weights: truncated normals whose width shrinks with depth (OLMo's "Mitchell" variant).

Standard deviation sigma before truncation at +-3 sigma, for width C and layer l from 0:

    embedding, query-key-value, gate and up, head    1 / sqrt(C)
    attention output                                 1 / sqrt(2 C (l + 1))
    MLP output (4C inputs)                           1 / sqrt(2 (4C) (l + 1))
    norm weights                                     constant 1, a gain of 2

Patched shapes (`config.DepthPatch`) have their layers spread over the depth that counts: l + 1 becomes (l + 1)
depth' / depth, so that the last layer's variance is that of a model of depth' layers. The paper says that indices are
rescaled, not how; this is our reading.

Source: Gemstones (arXiv 2502.06857), section 3.1 and appendix F.2, and its training code.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import nn

from shapelaw.config import DepthPatch
from shapelaw.lr_rules import DEFAULT_PATCH
from shapelaw.model.transformer import Transformer
from shapelaw.shapes import Shape

TRUNCATION = 3.0
"""Standard deviations beyond which no weight is drawn."""


@dataclass(frozen=True)
class InitSpec:
    """Settings of the initial weights.

    Args:
        patch: for extreme shapes; the same as the learning rate's.
        width_unit: the suite's unit of width, of which the patch is asked; see `lr_rules.lr_eff`.
        norm_weight: initial weight of the norms, whose gain is 1 + weight. The Gemstones' code starts at 1.
    """

    patch: DepthPatch = DEFAULT_PATCH
    width_unit: float = 1.0
    norm_weight: float = 1.0


DEFAULT_INIT = InitSpec()
"""The paper's."""


def initial_std(name: str, shape: Shape, spec: InitSpec = DEFAULT_INIT) -> float:
    """Standard deviation, before truncation, of the matrix of this parameter name."""
    if not name.endswith((".attention.out.weight", ".mlp.down.weight")):
        return 1.0 / math.sqrt(shape.width)
    layer = int(name.split(".")[1])
    depth = spec.patch.depth(shape.width * spec.width_unit, shape.depth)
    inputs = shape.intermediate if name.endswith(".mlp.down.weight") else shape.width
    return 1.0 / math.sqrt(2.0 * inputs * (layer + 1) * depth / shape.depth)


@torch.no_grad()
def initialise(model: Transformer, seed: int, spec: InitSpec = DEFAULT_INIT) -> None:
    """Sets every weight, and the rotary tables.

    Each matrix is drawn in float32 on the CPU from a generator of its own, seeded by `seed` and the parameter's name:
    the weights depend on nothing else, whatever the device, the number of processes or the order in which they ask.

    Args:
        model: on any device but meta.
        seed: whole number.
        spec: settings.
    """
    for name, parameter in model.named_parameters():
        parameter.copy_(initial_weight(name, parameter.shape, model.spec.shape, seed, spec))
    model.reset_tables()


def initial_weight(name: str, size: torch.Size, shape: Shape, seed: int, spec: InitSpec = DEFAULT_INIT) -> torch.Tensor:
    """Initial full tensor of the parameter of this name, in float32 on the CPU."""
    if len(size) == 1:
        return torch.full(size, spec.norm_weight)
    return _draw(size, initial_std(name, shape, spec), seed, name)


def _draw(size: torch.Size, std: float, seed: int, name: str) -> torch.Tensor:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    drawn = torch.empty(size, dtype=torch.float32)
    return nn.init.trunc_normal_(drawn, 0.0, std, -TRUNCATION * std, TRUNCATION * std, generator)
