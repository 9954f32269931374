"""Parameters and FLOPs of a planned run's model: of the built-in one by formula, of a user's as they are counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shapelaw.counting import flops_exact, params, params_total
from shapelaw.extras import require
from shapelaw.planned_run import PlannedRun

if TYPE_CHECKING:
    from shapelaw.model.own import Measured


@dataclass(frozen=True)
class Sizes:
    """Of a model.

    Args:
        params: all parameters.
        params_no_embedding: without the embedding.
        params_no_embedding_and_head: without the head, too.
        flops_per_token: of training.
        columns: further numbers of the model, which the runs table holds beside its shape.
    """

    params: int
    params_no_embedding: int
    params_no_embedding_and_head: int
    flops_per_token: float
    columns: Mapping[str, float] = field(default_factory=dict)


def sizes_of(planned: PlannedRun) -> Sizes:
    """What is counted of a run's model.

    Raises:
        UserError: if it is a user's and none that can be trained.
    """
    return _counted(measured_of(planned)) if planned.model.own else _by_formula(planned)


def measured_of(planned: PlannedRun) -> Measured:
    """What is measured of a run's model, which is a user's; imports torch."""
    require("model=path/to/file.py:NAME", "torch")
    from shapelaw.model.own import measure
    from shapelaw.model.transformer import ModelSpec

    return measure(planned.model, ModelSpec(planned.shape, planned.vocab_size, planned.seq_len))


def _by_formula(planned: PlannedRun) -> Sizes:
    shape = planned.shape
    sizes = (shape.width, shape.depth, planned.vocab_size)
    no_embedding, neither = (int(params(*sizes, f"no_embedding{rest}", shape.head_size)) for rest in ("", "_and_head"))
    flops = float(flops_exact(*sizes, planned.seq_len, shape.head_size).total)
    return Sizes(int(params_total(*sizes, shape.head_size)), no_embedding, neither, flops)


def _counted(found: Measured) -> Sizes:
    without = found.params - found.embedding
    return Sizes(found.params, without, without - found.head, found.flops_per_token, found.columns)
