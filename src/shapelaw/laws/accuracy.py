"""Laws of a downstream error, the share of wrong answers: as a function of the held-out loss, or of params N and tokens T.

    exponential   error = epsilon - k exp(-gamma L)
    sigmoid       error = low + span / (1 + exp(-k (L - L_0)))
    direct        error = 1 - exp(-(A/N^alpha + B/T^beta))

The tables hold accuracies; the laws are fitted to error = 1 - accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shapelaw.laws.base import Array, Columns, Law, Prior
from shapelaw.laws.catalogue import register
from shapelaw.laws.sums import FALLING


class AccuracyLaw(Law):
    """A law that predicts an error, by default from a loss."""

    predictors: tuple[str, ...] = ("loss",)
    target = "error"

    @property
    def units(self) -> dict[str, str]:
        """The slope is per nat, the midpoint in nats; errors are shares."""
        return {name: "1" for name in self.parameters} | {"loss": "nats per token", "error": "share of wrong answers"}


@dataclass(frozen=True)
class ExponentialError(AccuracyLaw):
    """error = epsilon - k exp(-gamma L): an error of chance at a high loss that falls ever faster as the loss falls.

    theta holds ln epsilon, ln k, gamma; a theta whose error is nowhere positive has no logarithm and is skipped.
    """

    name: str = "accuracy_exponential"
    formula: str = "1 - accuracy = epsilon - k exp(-gamma loss)"
    source: str = "Gadre et al. 2024 (arXiv 2403.08540), eq 5"
    parameters: tuple[str, ...] = ("epsilon", "k", "gamma")
    log_parameters: frozenset[str] = frozenset({"epsilon", "k"})
    exponents: tuple[str, ...] = ("gamma",)

    def log_prediction(self, theta: Array, columns: Columns) -> Array:
        """Log of the error; not a number where it is not positive."""
        error = _exponential(theta, columns)[1]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.log(error))

    def jacobian(self, theta: Array, columns: Columns) -> Array:
        """Derivative of the log error by theta, (n, 3): epsilon, -right and right * L, each over the error."""
        right, error = _exponential(theta, columns)
        loss = np.asarray(columns["loss"], dtype=np.float64)
        rows = np.stack([np.full_like(right, np.exp(theta[0])), -right, right * loss], axis=1)
        return np.asarray(rows / error[:, None])

    def start_levels(self, spread: int | None = None) -> tuple[Array, ...]:
        """Errors of chance from a half to 1, few to many answers right by skill, and slopes per nat."""
        shares, logs = np.log(np.linspace(0.5, 1.0, spread or 3)), np.linspace(-2.0, 6.0, spread or 5)
        return shares, logs, np.linspace(0.25, 3.0, spread or 5)


@dataclass(frozen=True)
class SigmoidError(AccuracyLaw):
    """error = low + span / (1 + exp(-k (L - L_0))): between the lowest error and that of chance, half-way at L_0.

    theta holds ln low, ln span, ln k, L_0.
    """

    name: str = "accuracy_sigmoid"
    formula: str = "1 - accuracy = low + span / (1 + exp(-k (loss - L_0)))"
    source: str = "Bhagia et al. 2024 (arXiv 2412.04403), section 3.2, for the error in place of the accuracy"
    parameters: tuple[str, ...] = ("low", "span", "k", "L_0")
    log_parameters: frozenset[str] = frozenset({"low", "span", "k"})

    @property
    def units(self) -> dict[str, str]:
        """L_0 is a loss."""
        return super().units | {"L_0": "nats per token", "k": "1/nat"}

    def log_prediction(self, theta: Array, columns: Columns) -> Array:
        """ln(low + span * sigmoid), by a sum of exponentials that never overflows."""
        return np.asarray(np.logaddexp(theta[0], theta[1] + _log_sigmoid(theta, columns)))

    def jacobian(self, theta: Array, columns: Columns) -> Array:
        """Derivative of the log error by theta, (n, 4): shares of the two summands, and the sigmoid's slope."""
        log_sigmoid = _log_sigmoid(theta, columns)
        share = np.exp(theta[1] + log_sigmoid - self.log_prediction(theta, columns))
        slope = -share * np.expm1(log_sigmoid) * np.exp(theta[2])  # d ln sigmoid / dx = 1 - sigmoid
        away = np.asarray(columns["loss"], dtype=np.float64) - theta[3]
        return np.stack([1 - share, share, slope * away, -slope], axis=1)

    def start_levels(self, spread: int | None = None) -> tuple[Array, ...]:
        """Lowest errors, spans, slopes per nat and midpoints from 1 to 5 nats."""
        low, span = np.log(np.geomspace(0.02, 0.5, spread or 3)), np.log(np.linspace(0.2, 0.8, spread or 3))
        return low, span, np.linspace(-0.5, 2.0, spread or 4), np.linspace(1.0, 5.0, spread or 6)


@dataclass(frozen=True)
class DirectError(AccuracyLaw):
    """-ln accuracy = A/N^alpha + B/T^beta, without an intermediate loss; the objective uses the log error, like every law here.

    theta holds ln A, ln B, alpha, beta.
    """

    name: str = "accuracy_direct"
    formula: str = "-ln(accuracy) = A/params^alpha + B/tokens^beta"
    source: str = "Krajewski et al. 2025 (arXiv 2512.08894)"
    predictors: tuple[str, ...] = ("params", "tokens")
    parameters: tuple[str, ...] = ("A", "B", "alpha", "beta")
    log_parameters: frozenset[str] = frozenset({"A", "B"})
    exponents: tuple[str, ...] = ("alpha", "beta")

    @property
    def priors(self) -> Mapping[str, Prior]:
        """Priors of the exponents, as for any falling term."""
        return {"alpha": FALLING, "beta": FALLING}

    def log_prediction(self, theta: Array, columns: Columns) -> Array:
        """Log of the error."""
        with np.errstate(over="ignore", divide="ignore"):
            return np.asarray(np.log(-np.expm1(-sum(_surprisals(theta, columns)))))

    def jacobian(self, theta: Array, columns: Columns) -> Array:
        """Derivative of the log error by theta, (n, 4): of -ln accuracy, over exp(-ln accuracy) - 1."""
        by_params, by_tokens = _surprisals(theta, columns)
        n, t = (np.log(np.asarray(columns[name], dtype=np.float64)) for name in self.predictors)
        rows = np.stack([by_params, by_tokens, -by_params * n, -by_tokens * t], axis=1)
        with np.errstate(over="ignore"):
            return np.asarray(rows / np.expm1(by_params + by_tokens)[:, None])

    def start_levels(self, spread: int | None = None) -> tuple[Array, ...]:
        """Coefficients of up to e^15, exponents of up to 1."""
        logs, exponents = np.linspace(-1.0, 15.0, spread or 6), np.linspace(0.05, 1.0, spread or 5)
        return logs, logs, exponents, exponents


def _surprisals(theta: Array, columns: Columns) -> tuple[Array, Array]:
    """A/N^alpha and B/T^beta, each (n,)."""
    n, t = (np.log(np.asarray(columns[name], dtype=np.float64)) for name in ("params", "tokens"))
    with np.errstate(over="ignore"):
        return np.exp(theta[0] - theta[2] * n), np.exp(theta[1] - theta[3] * t)


def _exponential(theta: Array, columns: Columns) -> tuple[Array, Array]:
    """(k exp(-gamma L), error), each (n,)."""
    loss = np.asarray(columns["loss"], dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        right = np.exp(theta[1] - theta[2] * loss)
        return right, np.exp(theta[0]) - right


def _log_sigmoid(theta: Array, columns: Columns) -> Array:
    """ln of 1 / (1 + exp(-k (L - L_0)))."""
    away = np.asarray(columns["loss"], dtype=np.float64) - theta[3]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(-np.logaddexp(0.0, -np.exp(theta[2]) * away))


ACCURACY_EXPONENTIAL = register(ExponentialError())
ACCURACY_SIGMOID = register(SigmoidError())
ACCURACY_DIRECT = register(DirectError())
