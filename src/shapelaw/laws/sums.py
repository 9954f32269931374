"""Laws that are sums of power laws, as one declarative class: the form that the compiled solver supports.

With x the logs of the predictors, terms t_j = exp(c_j + o_j - sum_m a_m x_m) (exponents a_m, log coefficients c_j):

    L = E + (sum_j t_j)^rho * (1 + kappa^2 (ln(width/depth) - mu)^2)

where rho is 1 unless the law has a `power` and the last factor is 1 unless it has an `aspect`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from shapelaw.errors import UserError
from shapelaw.laws.base import Array, Columns, Law, Prior, level_range

BLOCK = 1_000_000
"""Most numbers in one array when many vectors are evaluated at once."""
FAR = 40.0
"""ln(kappa distance) above which 1 is negligible beside the square."""
ABSENT = -1
"""Place of a parameter that a law does not have."""

FALLING, GROWING = Prior(0.4, 0.4), Prior(0.2, 0.3)
POWER = Prior(0.5, 0.5)
LOG_KAPPA, MU = Prior(math.log(0.1), 0.7), Prior(math.log(60.0), 1.0)
"""Priors for use if the data cannot tell, far wider than the range of published fits: exponents of 0.05 to 0.9 under eq 1,
Kaplan's and Skaling's forms, kappa of 0.08 to 0.1 and a best width/depth of 40 to 100 (Kaplan et al. 2020; Gemstones)."""


@dataclass(frozen=True)
class Term:
    """One product of powers, `coefficient * prod grows^exponent / prod falls^exponent`.

    Args:
        coefficient: name of the coefficient.
        falls: predictor -> name of the exponent of its power in the denominator.
        grows: predictor -> name of the exponent of its power in the numerator.
        fixed: predictor -> exponent that is not fitted (positive: the term grows).
    """

    coefficient: str
    falls: Mapping[str, str] = field(default_factory=dict)
    grows: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)

    @property
    def exponents(self) -> tuple[tuple[str, str, float], ...]:
        """(name, predictor, sign) of every fitted exponent: sign +1 if the term grows with the predictor."""
        falling = tuple((name, predictor, -1.0) for predictor, name in self.falls.items())
        return falling + tuple((name, predictor, 1.0) for predictor, name in self.grows.items())

    @property
    def predictors(self) -> tuple[str, ...]:
        """Columns the term reads."""
        return (*self.falls, *self.grows, *self.fixed)


@dataclass(frozen=True)
class Design:
    """All data that a sum law needs: log t_j = c_j + offset_j + sum over m of theta_m features_m."""

    features: Array
    """(M, n): signed log predictor of each exponent."""
    owner: tuple[int, ...]
    """(M,): term that each exponent belongs to."""
    offset: Array
    """(K, n): log of each term's fixed part."""
    log_aspect: Array | None
    """(n,): ln(width/depth), or None for a law without an aspect factor."""


class Places(NamedTuple):
    """Indices in theta of the parameters that act on the whole sum; ABSENT if the law lacks them."""

    power: int
    """The exponent of the whole sum."""
    aspect: int
    """ln kappa; mu is the entry after it."""
    irreducible: int
    """ln E."""


@dataclass(frozen=True)
class SumLaw(Law):
    """A sum of power laws with an irreducible loss, and optionally a power or a cost of the aspect ratio.

    theta = (log coefficients, exponents, power, (log kappa, mu), log E), without the parameters that a law lacks.

    Args:
        terms: the summands.
        irreducible: name of the irreducible loss, or None for a law that falls to zero.
        power: name of the exponent rho of the whole sum, or None.
        aspect: names of kappa and mu, or None.
        optimum: (numerator, denominator names): the compute-optimal exponent of params is numerator / sum(denominator).
    """

    name: str
    formula: str
    source: str
    terms: tuple[Term, ...]
    irreducible: str | None = "E"
    power: str | None = None
    aspect: tuple[str, str] | None = None
    optimum: tuple[str, tuple[str, ...]] | None = None
    default_counting: str = "total"

    @property
    def predictors(self) -> tuple[str, ...]:  # type: ignore[override]
        """Columns the law reads, each once."""
        read = [p for term in self.terms for p in term.predictors] + (["width", "depth"] if self.aspect else [])
        return tuple(dict.fromkeys(read))

    @property
    def coefficients(self) -> tuple[str, ...]:
        """Names of the terms' coefficients."""
        return tuple(term.coefficient for term in self.terms)

    @property
    def exponents(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the terms' exponents."""
        return tuple(name for term in self.terms for name, _, _ in term.exponents)

    @property
    def extras(self) -> tuple[str, ...]:
        """Names of the parameters that act on the whole sum: the power, kappa and mu."""
        return ((self.power,) if self.power else ()) + (self.aspect or ())

    @property
    def places(self) -> Places:
        """Indices in theta of the parameters that act on the whole sum; every evaluation of the law uses them."""
        inner = len(self.terms) + sum(len(term.exponents) for term in self.terms)
        aspect = inner + (self.power is not None)
        last = aspect + len(self.aspect or ())
        return Places(
            inner if self.power else ABSENT, aspect if self.aspect else ABSENT, last if self.irreducible else ABSENT
        )

    @property
    def parameters(self) -> tuple[str, ...]:  # type: ignore[override]
        """All names in the order of theta."""
        return self.coefficients + self.exponents + self.extras + ((self.irreducible,) if self.irreducible else ())

    @property
    def log_parameters(self) -> frozenset[str]:  # type: ignore[override]
        """Coefficients, kappa and E, which are fitted in their logarithm."""
        return frozenset(
            self.coefficients + (self.aspect or ())[:1] + ((self.irreducible,) if self.irreducible else ())
        )

    @property
    def priors(self) -> Mapping[str, Prior]:
        """Weak priors of the exponents and of the parameters of the whole sum; coefficients and E have none."""
        out = {name: FALLING if sign < 0 else GROWING for term in self.terms for name, _, sign in term.exponents}
        out |= {self.power: POWER} if self.power else {}
        return out | (dict(zip(self.aspect, (LOG_KAPPA, MU), strict=True)) if self.aspect else {})

    def design(self, columns: Columns) -> Design:
        """The data as this law reads them (natural logs of the predictors).

        Raises:
            UserError: if a column is missing.
        """
        missing = [name for name in self.predictors if name not in columns]
        if missing:
            raise UserError(f"law {self.name} reads the columns {', '.join(self.predictors)}; missing: {missing}")
        logs = {name: np.log(np.asarray(columns[name], dtype=np.float64)) for name in self.predictors}
        n = max(np.size(values) for values in logs.values())
        exponents = [(j, p, sign) for j, term in enumerate(self.terms) for _, p, sign in term.exponents]
        features = np.array([np.broadcast_to(sign * logs[p], n) for _, p, sign in exponents]).reshape(-1, n)
        offset = np.zeros((len(self.terms), n))
        for j, term in enumerate(self.terms):
            for predictor, power in term.fixed.items():
                offset[j] += power * logs[predictor]
        log_aspect = np.broadcast_to(logs["width"] - logs["depth"], n) if self.aspect else None
        return Design(features, tuple(j for j, _, _ in exponents), offset, log_aspect)

    def log_prediction(self, theta: ArrayLike, columns: Columns) -> Array:
        """Log of the predicted loss, shape (n,)."""
        parts = _Parts.of(self, np.asarray(theta, dtype=np.float64), self.design(columns))
        return parts.log_loss

    def log_predictions(self, thetas: ArrayLike, columns: Columns) -> Array:
        """Log of the predicted loss at each of several vectors, (t, p) to (t, n), many at a time."""
        design, thetas = self.design(columns), np.asarray(thetas, dtype=np.float64)
        blocks = -(-thetas.shape[0] * design.offset.size // BLOCK) or 1
        return np.concatenate([_Parts.of(self, some, design).log_loss for some in np.array_split(thetas, blocks)])

    def jacobian(self, theta: ArrayLike, columns: Columns) -> Array:
        """Derivative of the log prediction by theta, shape (n, p)."""
        design = self.design(columns)
        parts = _Parts.of(self, np.asarray(theta, dtype=np.float64), design)
        weights = parts.rho * parts.shares
        rows = [*weights, *(weights[j] * x for j, x in zip(design.owner, design.features, strict=True))]
        if self.power:
            rows.append(parts.log_sum)
        if self.aspect:
            bend = 2 * (1 - np.exp(-parts.log_factor))  # 2 kappa^2 h^2 / (1 + kappa^2 h^2)
            slope = -2 * np.exp(2 * parts.log_kappa - parts.log_factor) * parts.distance
            rows += [bend, slope]
        reducible = [parts.reducible * row for row in rows]
        return np.stack(reducible + ([1 - parts.reducible] if self.irreducible else []), axis=1)

    def compute_optimal_exponent(self, parameters: Mapping[str, float]) -> float | None:
        """Exponent of the compute-optimal params in FLOPs ~ params x tokens, at the best aspect ratio.

        None unless the law has one term in params and one in tokens (otherwise the optimum over width, depth and tokens has
        no closed form), or if its exponents allow no interior optimum.
        """
        if self.optimum is None:
            return None
        numerator, denominator = self.optimum
        total = sum(parameters[name] for name in denominator)
        return float(parameters[numerator] / total) if total > 0 else None

    def slope_constraint(self, slope: float) -> tuple[Array, float] | None:
        """slope * sum(denominator) - numerator == 0, linear in theta."""
        if self.optimum is None:
            return None
        numerator, denominator = self.optimum
        row = np.array([slope * (name in denominator) - (name == numerator) for name in self.parameters])
        return row, 0.0

    def start_levels(self, spread: int | None = None) -> tuple[Array, ...]:
        """The authors' levels for coefficients, exponents and E; our own for the parameters of the whole sum."""
        levels = {}
        if self.power:
            levels[self.power] = np.linspace(0.1, 1.0, spread or 4)
        if self.aspect:
            levels[self.aspect[0]] = np.log(np.geomspace(0.03, 0.3, spread or 3))
            levels[self.aspect[1]] = np.linspace(2.0, 6.0, spread or 5)
        named = dict(zip(self.parameters, super().start_levels(spread), strict=True)) | levels
        named |= {name: level_range("exponent", spread) / 4 for term in self.terms for name in term.grows.values()}
        return tuple(named.values())


_UNTOLD = np.errstate(over="ignore", invalid="ignore")
"""Silences overflow; the caller reports values too large for a number."""


@dataclass(frozen=True)
class _Parts:
    """A sum law's intermediate values at one theta, (p,), or at several, (t, p): (..., n) each, shares (terms, ..., n)."""

    rho: Array
    log_kappa: Array
    log_terms: Array
    log_sum: Array
    distance: Array
    log_factor: Array
    log_reducible: Array
    log_loss: Array

    @classmethod
    @_UNTOLD
    def of(cls, law: SumLaw, theta: Array, design: Design) -> _Parts:
        k, places = len(law.terms), law.places
        at = np.moveaxis(theta, -1, 0)[..., None]  # (p, ..., 1)
        log_terms = at[:k] + design.offset.reshape(k, *(1,) * (theta.ndim - 1), -1)
        for i, (j, x) in enumerate(zip(design.owner, design.features, strict=True)):
            log_terms[j] += at[k + i] * x
        log_sum = np.logaddexp.reduce(log_terms, axis=0)
        rho = at[places.power] if law.power else np.ones(1)
        log_kappa, distance = np.full(1, -np.inf), np.zeros(log_sum.shape)
        if design.log_aspect is not None:
            log_kappa, distance = at[places.aspect], design.log_aspect - at[places.aspect + 1]
        log_factor = _log_price(log_kappa, distance)
        log_reducible = rho * log_sum + log_factor
        log_loss = np.logaddexp(log_reducible, at[places.irreducible]) if law.irreducible else log_reducible
        return cls(rho, log_kappa, log_terms, log_sum, distance, log_factor, log_reducible, log_loss)

    @property
    @_UNTOLD
    def shares(self) -> Array:
        """Share of each term in the sum."""
        return np.asarray(np.exp(self.log_terms - self.log_sum))

    @cached_property
    @_UNTOLD
    def reducible(self) -> Array:
        """Share of the loss that is not irreducible."""
        return np.asarray(np.exp(self.log_reducible - self.log_loss))


def _log_price(log_kappa: Array, distance: Array) -> Array:
    """ln(1 + kappa^2 distance^2); by logarithms far from the best aspect ratio, where the square would overflow."""
    far = log_kappa + np.log(np.maximum(np.abs(distance), 1e-300))
    return np.where(far > FAR, 2 * far, np.log1p((np.exp(log_kappa) * distance) ** 2))
