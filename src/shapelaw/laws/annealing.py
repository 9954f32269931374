"""Laws of whole loss curves under any schedule of the rate, at one model size: constant and cosine runs predict others.

    annealing     L = E + A/S1^alpha - C S2
    multi_power   L = E + A/S1^alpha - B sum_k (lr_{k-1} - lr_k) G(S_k / lr_k^gamma),   G(x) = 1 - (1 + C x)^-beta

S1 (`lr_area`) is the rate summed over the steps so far, and S2 (`lr_annealed`) sums the falls of the rate, each of which counts
for longer the earlier it was. The second law sums over the falls themselves (`lr_falls`); S_k is the rate summed since the
k-th fall (`shapelaw.runs.schedules`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shapelaw.laws.base import Array, Columns, Law, Prior
from shapelaw.laws.catalogue import register
from shapelaw.laws.sums import FALLING

LEAST_RATE = 1e-12
"""Substitute for a rate of 0, so that a fall to it counts in full at once."""


@dataclass(frozen=True)
class Annealing(Law):
    """Tissue's law. theta holds ln A, ln C, alpha, ln E; a theta whose loss is nowhere positive is skipped."""

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
        """Prior of the exponent, as for any falling term."""
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


@dataclass(frozen=True)
class MultiPower(Law):
    """The multi-power law. theta holds ln A, ln B, ln C, alpha, beta, gamma, ln E; a theta whose loss is nowhere positive is
    skipped."""

    name: str = "multi_power"
    formula: str = "L = E + A/lr_area^alpha - B*sum of falls*[1 - (1 + C*area_since/lr^gamma)^-beta]"
    source: str = "Luo et al. 2025 (arXiv 2503.12811), eq 1"
    predictors: tuple[str, ...] = ("lr_area", "lr_falls")
    histories: frozenset[str] = frozenset({"lr_falls"})
    parameters: tuple[str, ...] = ("A", "B", "C", "alpha", "beta", "gamma", "E")
    log_parameters: frozenset[str] = frozenset({"A", "B", "C", "E"})
    exponents: tuple[str, ...] = ("alpha", "beta", "gamma")
    irreducible: str = "E"

    @property
    def priors(self) -> Mapping[str, Prior]:
        """Priors: alpha as for any falling term; the others about half, as in the authors' fits."""
        return {"alpha": FALLING, "beta": Prior(0.5, 0.5), "gamma": Prior(0.5, 0.5)}

    def log_prediction(self, theta: Array, columns: Columns) -> Array:
        """Log of the loss; not a number where it is not positive."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.log(_Falls(theta, columns).loss))

    def jacobian(self, theta: Array, columns: Columns) -> Array:
        """Derivative of the log loss by theta, (n, 7)."""
        parts = _Falls(theta, columns)
        return np.asarray(parts.slopes / parts.loss[:, None])

    def start_levels(self, spread: int | None = None) -> tuple[Array, ...]:
        """Around the published fits: A of 0.4 to 1.5, B of 100 to 1,000, C of 0.05 to 2, exponents of 0.3 to 0.9."""
        coefficients = np.linspace(-2.0, 2.0, spread or 4), np.linspace(2.0, 8.0, spread or 4)
        exponents = np.linspace(0.2, 0.9, spread or 3)
        half = np.linspace(0.3, 0.9, spread or 3)
        return (
            *coefficients,
            np.linspace(-4.0, 2.0, spread or 4),
            exponents,
            half,
            half,
            np.linspace(-1.0, 1.5, spread or 5),
        )


class _Falls:
    """The multi-power law at one theta."""

    def __init__(self, theta: Array, columns: Columns) -> None:
        log_a, log_b, log_c, self.alpha, self.beta, gamma, log_e = np.asarray(theta, dtype=np.float64)
        self.log_area = np.log(np.asarray(columns["lr_area"], dtype=np.float64))
        every = np.asarray(columns["lr_falls"], dtype=np.float64)
        self.rows, groups = np.nonzero(every[..., 0])
        fall, rate, since = every[self.rows, groups].T
        with np.errstate(all="ignore"):
            self.log_rate = np.log(np.maximum(rate, LEAST_RATE))
            self.grown = np.exp(log_c - gamma * self.log_rate) * since  # C x
            self.log_left = -self.beta * np.log1p(self.grown)
            self.drop = np.exp(log_b) * fall
            self.falling = np.exp(log_a - self.alpha * self.log_area)
            self.irreducible = np.exp(log_e)
            self.dropped = -self._sum(self.drop * np.expm1(self.log_left))
            self.loss = self.irreducible + self.falling - self.dropped

    def _sum(self, falls: Array) -> Array:
        """Sum over the falls before each row, (n,)."""
        return np.asarray(np.bincount(self.rows, falls, len(self.log_area)), dtype=np.float64)

    @property
    def slopes(self) -> Array:
        """Derivative of the loss by theta, (n, 7)."""
        with np.errstate(all="ignore"):
            left = self.drop * np.exp(self.log_left)
            by_log_x = left * self.beta * self.grown / (1 + self.grown)
            rows = [
                self.falling,
                -self.dropped,
                -self._sum(by_log_x),
                -self.falling * self.log_area,
                -self._sum(left * np.log1p(self.grown)),
                self._sum(by_log_x * self.log_rate),
                np.full_like(self.falling, self.irreducible),
            ]
        return np.stack(rows, axis=1)


ANNEALING = register(Annealing())
MULTI_POWER = register(MultiPower())
