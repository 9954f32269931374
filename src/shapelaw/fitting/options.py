"""Options of the resampling: plain values with their bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from shapelaw.errors import UserError

RESAMPLED = ("runs", "rows")
INTERVALS = ("percentile", "expanded", "bca")
MOST_REFITS = 1_000_000
"""Whose weights fit into memory."""


@dataclass(frozen=True)
class BootstrapOptions:
    """Values of the resampling.

    Args:
        n: number of refits.
        by: `runs` (whole runs are drawn: most residual variance lies between runs) or `rows`.
        kind: `percentile`, `expanded` (percentile, its level raised for few runs) or `bca` (bias-corrected and
            accelerated).
        level: share of refits inside the interval.
        workers: threads.

    Raises:
        UserError: for values outside these.
    """

    n: int = 1000
    by: str = "runs"
    kind: str = "percentile"
    level: float = 0.9
    workers: int = 1

    def __post_init__(self) -> None:
        if not 2 <= self.n <= MOST_REFITS:
            raise UserError(f"bootstrap.n={self.n}: allowed are whole numbers from 2 to {MOST_REFITS:,}; 1000 is usual")
        if self.by not in RESAMPLED:
            raise UserError(f"bootstrap.by={self.by}: allowed are {', '.join(RESAMPLED)}")
        if self.kind not in INTERVALS:
            raise UserError(f"bootstrap.kind={self.kind}: allowed are {', '.join(INTERVALS)}")
        if self.workers < 1:
            raise UserError(f"bootstrap.workers={self.workers}: allowed are whole numbers from 1")
        if not 0 < self.level < 1:
            raise UserError(f"bootstrap.level={self.level}: allowed are values between 0 and 1, such as 0.9")

    @classmethod
    def of(cls, options: BootstrapOptions | Mapping[str, Any] | None) -> BootstrapOptions | None:
        """Options from a mapping.

        Raises:
            UserError: for an unknown key.
        """
        if options is None or isinstance(options, BootstrapOptions):
            return options
        known = [field.name for field in fields(cls)]
        unknown = [key for key in options if key not in known]
        if unknown:
            raise UserError(f"bootstrap: unknown {', '.join(unknown)}; allowed are {', '.join(known)}")
        return cls(**options)
