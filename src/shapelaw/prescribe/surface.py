"""A law under many parameter vectors at once, bound to points: losses from tokens, and tokens from losses.

Row 0 of every array is the fit's own optimum; the rows after it are its refits on resampled runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.result import FitResult
from shapelaw.laws import Law, SumLaw
from shapelaw.prescribe.world import Points, law_of

Array = NDArray[np.float64]

LOG_TOKENS_MIN, LOG_TOKENS_MAX = 0.0, 115.0
"""Range of the search for tokens: 1 to 1e50."""
BISECTIONS = 64
LEVEL = 0.9
"""Level of the intervals if the fit names none."""
READ = {"width", "depth", "params", "tokens"}
"""Predictors that a question may use."""


def level_of(fit: FitResult) -> float:
    """Share of a fit's refits that lie inside an interval."""
    return float((fit.settings.get("bootstrap") or {}).get("level", LEVEL))


class Bound(ABC):
    """A law at points, as a function of tokens; values have the shape (parameter vectors, points), or that of a grid."""

    @abstractmethod
    def loss(self, log_tokens: Array) -> Array:
        """Predicted loss, nats per token; log_tokens broadcasts against (vectors, points)."""

    @abstractmethod
    def log_tokens_for(self, loss: Array) -> Array:
        """Natural log of the tokens at which the loss is reached; infinite if it never is.

        Args:
            loss: broadcasts against (vectors, points).
        """


@dataclass(frozen=True)
class Surface:
    """A law under parameter vectors `thetas` of shape (vectors, parameters), in the solver's coordinates."""

    law: Law
    thetas: Array

    @classmethod
    def of(cls, fit: FitResult, refits: bool = True, given: Iterable[str] = ()) -> Surface:
        """The fit's optimum, then its refits without the failed ones.

        Args:
            fit: fit of a law.
            refits: whether to include them.
            given: further predictors that every point gives (`Points.given`).

        Raises:
            UserError: if the fit is not a law of the loss, or the law needs more than sizes and tokens.
        """
        law = law_of(fit)
        further = sorted({*law.predictors} - READ - {*given})
        if further == ["unique_tokens"]:
            raise UserError(
                f"law={law.name}: reads unique_tokens too; give unique_tokens=NUMBER, the different tokens available"
            )
        if further:
            raise UserError(
                f"law={law.name}: reads {', '.join(further)} too, so it answers no budget and no comparison of laws; "
                "give a fit of a law of width, depth, params and tokens"
            )
        return cls(law, np.array([fit.vector, *(fit.vectors if refits else ())]))

    def __len__(self) -> int:
        """Number of parameter vectors."""
        return len(self.thetas)

    def rows(self, start: int, stop: int) -> Surface:
        """Some of the parameter vectors."""
        return Surface(self.law, self.thetas[start:stop])

    def at(self, points: Points) -> Bound:
        """The law at points."""
        if isinstance(self.law, SumLaw):
            return _sum_at(self.law, self.thetas, points)
        return _AnyBound(self, points)


@dataclass(frozen=True)
class _SumBound(Bound):
    """A sum law in parts: E + (fixed + sum exp(prefix + power * log tokens))^rho * factor."""

    fixed: Array
    moving: tuple[tuple[Array, Array], ...]
    """(prefix, power) of every term that reads tokens."""
    rho: Array | None
    factor: Array | None
    floor: Array

    def loss(self, log_tokens: Array) -> Array:
        total = self.fixed
        for prefix, power in self.moving:
            exponent = power * log_tokens
            exponent = exponent + prefix
            total = total + np.exp(exponent, out=exponent)
        if self.rho is not None:
            total = total**self.rho
        return np.asarray(self.floor + (total if self.factor is None else total * self.factor))

    def log_tokens_for(self, loss: Array) -> Array:
        if len(self.moving) != 1:
            return _bisect(self, loss)
        (prefix, power), *_ = self.moving
        needed = np.maximum(loss - self.floor, 0.0)
        needed = needed if self.factor is None else needed / self.factor
        needed = needed if self.rho is None else needed ** (1.0 / self.rho)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_tokens = (np.log(np.maximum(needed - self.fixed, 0.0)) - prefix) / power
        return np.where((power < 0) & np.isfinite(log_tokens), log_tokens, np.inf)


def _sum_at(law: SumLaw, thetas: Array, points: Points) -> _SumBound:
    logs = {name: np.log(values) for name, values in points.columns.items() if name in law.predictors}
    entries = points.beside(thetas)
    fixed = np.zeros(np.broadcast_shapes(entries.shape[1:], points.params.shape))
    moving: list[tuple[Array, Array]] = []
    place = len(law.terms)
    for j, term in enumerate(law.terms):
        exponent, power = entries[j], np.zeros_like(entries[j])
        for _, predictor, sign in term.exponents:
            slope = sign * entries[place]
            place += 1
            power, exponent = (
                (power + slope, exponent) if predictor == "tokens" else (power, exponent + slope * logs[predictor])
            )
        for predictor, fixed_power in term.fixed.items():
            if predictor == "tokens":
                power = power + fixed_power
            else:
                exponent = exponent + fixed_power * logs[predictor]
        if "tokens" in term.predictors:
            moving.append((exponent, power))
        else:
            fixed += np.exp(exponent)
    exponent_of_sum, aspect, irreducible = law.places
    rho = entries[exponent_of_sum] if law.power else None
    factor = None
    if law.aspect:
        distance = np.exp(entries[aspect]) * (logs["width"] - logs["depth"] - entries[aspect + 1])
        factor = 1.0 + distance * distance
    floor = np.exp(entries[irreducible]) if law.irreducible else np.zeros_like(entries[0])
    return _SumBound(fixed, tuple(moving), rho, factor, floor)


@dataclass(frozen=True)
class _AnyBound(Bound):
    """Any law, by its own prediction, one parameter vector at a time."""

    surface: Surface
    points: Points

    def loss(self, log_tokens: Array) -> Array:
        columns = self.points.columns | {"tokens": np.exp(log_tokens)}
        shape = np.broadcast_shapes(self.points.beside(self.surface.thetas).shape[1:], self.points.params.shape)
        each = {name: np.broadcast_to(values, shape).reshape(len(self.surface), -1) for name, values in columns.items()}
        rows = []
        for i, theta in enumerate(self.surface.thetas):
            row = {name: values[i] for name, values in each.items()}
            rows.append(np.exp(self.surface.law.log_prediction(theta, row)))
        return np.array(rows).reshape(shape)

    def log_tokens_for(self, loss: Array) -> Array:
        return _bisect(self, loss)


def _bisect(bound: Bound, loss: Array) -> Array:
    """Tokens by bisection, for laws whose loss falls with tokens."""
    low = np.full_like(bound.loss(np.array(LOG_TOKENS_MIN)), LOG_TOKENS_MIN)
    high = np.full_like(low, LOG_TOKENS_MAX)
    reached = bound.loss(high) <= loss
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        above = bound.loss(middle) > loss
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(reached, high, np.inf)
