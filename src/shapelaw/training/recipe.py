"""What a configuration makes of a cell's model: its specification and its initial weights. A run and whatever measures one take
them from here."""

from __future__ import annotations

from shapelaw.cell import Cell
from shapelaw.config import TrainConfig
from shapelaw.model import InitSpec, ModelSpec


def model_spec(cell: Cell, config: TrainConfig) -> ModelSpec:
    """The model."""
    return ModelSpec(cell.shape, cell.vocab_size, cell.seq_len, attention=config.attention.name)


def init_spec(config: TrainConfig) -> InitSpec:
    """Its initial weights."""
    return InitSpec(config.lr_rule, config.suite.width_unit)
