"""Options of coordinates.py."""

from __future__ import annotations

from shapelaw.config.option import option, record
from shapelaw.config.training import TrainConfig
from shapelaw.config.values import LrRule


@record()
class CoordinatesConfig(TrainConfig):
    """A coordinate check: the first steps of several shapes, under train.py's own options. `shape` is the one that all lines
    go through: widths vary at its depth, depths at its width."""

    widths: list[int] | None = option(
        "Widths at the shape's depth; null takes every width among the suite's shapes.", default=None
    )
    depths: list[int] | None = option(
        "Depths at the shape's width; null takes every depth among the suite's shapes.", default=None
    )
    steps: int = option("Steps of AdamW, at the peak rate from the first.", low=1, unit="steps")
    sequences: int = option("Sequences of one step.", low=1)
    probe_sequences: int = option("Held-out sequences on which activations are measured.", low=1)
    random_tokens: bool = option("Whether uniformly random tokens replace the corpus, which then need not be prepared.")
    compare: LrRule | None = option(
        "Rate rule drawn beside the chosen one, at the rate that gives the shape the same lr_eff; null draws none.",
        default=None,
    )
    flat_slope: float = option("Largest exponent of a size in width or depth that counts as flat.", low=0, below=1)
