"""A law of whole loss curves under any schedule of the rate, at one model size.

    L = E + A/S1^alpha - C S2

S1 (`lr_area`) is the rate summed over the steps so far, and S2 (`lr_annealed`) sums the falls of the rate, each counting for
longer the earlier it was (`shapelaw.runs.schedules`). Constant and cosine runs so predict runs of another schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shapelaw.laws.base import Array, Columns, Law, Prior
from shapelaw.laws.catalogue import register
from shapelaw.laws.sums import FALLING


@dataclass(frozen=True)
class Annealing(Law):
    """Tissue's law. theta holds ln A, ln C, alpha, ln E; a theta whose loss is nowhere positive is passed over."""

    name: str = "annealing"
    formula: str = "L = E + A/lr_area^alpha - C*lr_annealed"
    source: str = "Tissue et al. 2024 (arXiv 2408.11029), eq 1"
    predictors: tuple[str, ...] = ("lr_area", "lr_annealed")
    free_predictors: frozenset[str] = frozenset({"lr_annealed"})
    parameters: tuple[str, ...] = ("A", "C", "alpha", "E")
    log_parameters: frozenset[str] = frozenset({"A", "C", "E"})
    exponents: tuple[str, ...] = ("alpha",)
    irreducible: str = "E"

    @property
    def priors(self) -> Mapping[str, Prior]:
        """The exponent as of any term that falls."""
        return {"alpha": FALLING}

    def log_prediction(self, theta: Array, columns: Columns) -> Array:
        """Log of the loss; not a number where it is not positive."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return np.asarray(np.log(sum(_summands(theta, columns))))

    def jacobian(self, theta: Array, columns: Columns) -> Array:
        """Derivative of the log loss by theta, (n, 4)."""
        falling, annealed, irreducible = parts = _summands(theta, columns)
        by_alpha = -falling * np.log(np.asarray(columns["lr_area"], dtype=np.float64))
        rows = np.stack([falling, annealed, by_alpha, irreducible], axis=1)
        return np.asarray(rows / np.sum(parts, axis=0)[:, None])

    def start_levels(self, spread: int | None = None) -> tuple[Array, ...]:
        """Coefficients of e^-4 to e^4: sums of rates are of the order of 1 (published: A of 0.4 to 1.5, C of 0.3 to 1)."""
        logs = np.linspace(-4.0, 4.0, spread or 5)
        return logs, logs, np.linspace(0.1, 1.0, spread or 4), np.linspace(-1.0, 1.5, spread or 5)


def _summands(theta: Array, columns: Columns) -> tuple[Array, Array, Array]:
    """A/S1^alpha, -C S2 and E, each (n,)."""
    area, annealed = (np.asarray(columns[name], dtype=np.float64) for name in ("lr_area", "lr_annealed"))
    with np.errstate(over="ignore", invalid="ignore"):
        falling = np.exp(theta[0] - theta[2] * np.log(area))
        return falling, -np.exp(theta[1]) * annealed, np.full_like(area, np.exp(theta[3]))


ANNEALING = register(Annealing())
