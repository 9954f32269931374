"""Options of coordinates.py."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from shapelaw.config.training import TrainConfig
from shapelaw.config.values import LrRule


@dataclass
class CoordinatesConfig(TrainConfig):
    """A coordinate check: the first steps of several shapes, under train.py's own options. `shape` is the one that all lines
    go through: widths vary at its depth, depths at its width."""

    widths: list[int] | None = None
    """Widths at the shape's depth; null is every width that the suite's shapes have."""
    depths: list[int] | None = None
    """Depths at the shape's width; null is every depth that the suite's shapes have."""
    steps: int = MISSING
    """Steps of AdamW, at the peak rate from the first."""
    sequences: int = MISSING
    """Sequences of one step."""
    probe_sequences: int = MISSING
    """Held-out sequences on which activations are measured."""
    random_tokens: bool = MISSING
    """Whether uniformly random tokens stand in for the corpus, which then need not be prepared."""
    compare: LrRule | None = None
    """Rate rule drawn beside the chosen one, at the rate that gives the shape the same lr_eff; null is none."""
    flat_slope: float = MISSING
    """Largest exponent of a size in width or depth that is called flat."""
