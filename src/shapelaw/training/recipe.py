"""What a configuration makes of a run's model: its specification and its initial weights. A run and whatever measures one take
them from here."""

from __future__ import annotations

from shapelaw.config import TrainConfig
from shapelaw.model import InitSpec, ModelSpec
from shapelaw.planned_run import PlannedRun


def model_spec(planned: PlannedRun, config: TrainConfig) -> ModelSpec:
    """The model."""
    return ModelSpec(planned.shape, planned.vocab_size, planned.seq_len, attention=config.attention.name)


def init_spec(config: TrainConfig) -> InitSpec:
    """Its initial weights."""
    return InitSpec(config.lr_rule, config.suite.width_unit)
