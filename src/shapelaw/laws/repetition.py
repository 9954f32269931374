"""Laws of runs that see their data more than once: params N, tokens T, and U different tokens (`unique_tokens`).

    data_constrained   L = A/N'^alpha + B/T'^beta + E         repeated tokens, and params that U tokens cannot fill, decay
    overfitting        L = A/N^alpha + B/T^beta + P R^delta (N/U)^kappa + E        repeated tokens do harm

R = max(T/U - 1, 0) is the number of repetitions. With fresh tokens throughout, both are eq 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shapelaw.laws.base import LOG_FLOOR, Array, Columns, Law, Prior
from shapelaw.laws.catalogue import register
from shapelaw.laws.sums import FALLING

PREDICTORS = ("params", "tokens", "unique_tokens")


@dataclass(frozen=True)
class DataConstrained(Law):
    """Muennighoff's law: repeated tokens and excess params are worth exponentially less.

        T' = U + U r_T (1 - exp(-R / r_T)),        U = min(unique_tokens, T),   R = T/U - 1
        N' = V + V r_N (1 - exp(-(N/V - 1) / r_N)), V = min(N, N_opt(U))

    where N_opt(U) = G (U G)^(beta/alpha), G = (alpha A / (beta B))^(1/(alpha + beta)) are the compute-optimal params for U
    fresh tokens. theta holds ln A, ln B, alpha, beta, ln r_T, ln r_N, ln E; exponents at or below 0 have no optimum and are
    skipped.
    """

    name: str = "data_constrained"
    formula: str = "L = A/params'^alpha + B/tokens'^beta + E, where repeated tokens and excess params decay (r_T, r_N)"
    source: str = "Muennighoff et al. 2023 (arXiv 2305.16264), section 3 and appendix A"
    predictors: tuple[str, ...] = PREDICTORS
    free_predictors: frozenset[str] = frozenset({"unique_tokens"})
    parameters: tuple[str, ...] = ("A", "B", "alpha", "beta", "r_T", "r_N", "E")
    log_parameters: frozenset[str] = frozenset({"A", "B", "r_T", "r_N", "E"})
    exponents: tuple[str, ...] = ("alpha", "beta")
    irreducible: str = "E"

    @property
    def questions(self) -> tuple[str, ...]:
        """Those of a law of params and tokens; the number of different tokens must be given as well."""
        return ("best", "reach", "size")

    @property
    def priors(self) -> Mapping[str, Prior]:
        """Exponents as under eq 1."""
        return {"alpha": FALLING, "beta": FALLING}

    @property
    def units(self) -> dict[str, str]:
        """Decay constants count repetitions of the tokens and multiples of the best params."""
        return super().units | {"r_T": "repetitions", "r_N": "multiples"}

    def log_prediction(self, theta: Array, columns: Columns) -> Array:
        """Log of the loss; not a number where an exponent is not positive."""
        return np.asarray(_Decayed(theta, columns).log_loss)

    def jacobian(self, theta: Array, columns: Columns) -> Array:
        """Derivative of the log loss by theta, (n, 7)."""
        return _Decayed(theta, columns).slopes

    def start_levels(self, spread: int | None = None) -> tuple[Array, ...]:
        """Those of eq 1 at positive exponents; decay constants of 1 to 50, between which the published 5.3 and 15.4 lie."""
        coefficients, exponents = np.linspace(0.0, 20.0, spread or 5), np.linspace(0.1, 0.9, spread or 5)
        decays = np.log(np.geomspace(1.0, 50.0, spread or 4))
        return coefficients, coefficients, exponents, exponents, decays, decays, np.linspace(-1.0, 1.0, spread or 5)


class _Decayed:
    """Muennighoff's law at one theta."""

    def __init__(self, theta: Array, columns: Columns) -> None:
        self.log_a, self.log_b, self.alpha, self.beta, log_r_t, log_r_n, self.log_e = np.asarray(
            theta, dtype=np.float64
        )
        n, t, unique = (np.asarray(columns[name], dtype=np.float64) for name in PREDICTORS)
        with np.errstate(all="ignore"):
            self.log_g = np.log(self.alpha / self.beta) + self.log_a - self.log_b
            self.log_g = np.where(min(self.alpha, self.beta) > 0, self.log_g / (self.alpha + self.beta), np.nan)
            self.fresh = np.log(np.minimum(unique, t))
            self.log_best = self.log_g + (self.beta / self.alpha) * (self.fresh + self.log_g)
            self.filled = np.minimum(np.log(n), self.log_best)
            self.tokens = _worth(self.fresh, np.log(t), log_r_t)
            self.params = _worth(self.filled, np.log(n), log_r_n)
            parts = self.log_a - self.alpha * self.params.log, self.log_b - self.beta * self.tokens.log
            self.log_loss = np.logaddexp(np.logaddexp(*parts), self.log_e)
            self.by_params, self.by_tokens = (np.exp(part - self.log_loss) for part in parts)

    @property
    @np.errstate(divide="ignore", invalid="ignore")
    def slopes(self) -> Array:
        """Derivative of the log loss by theta."""
        excess = np.where(self.filled >= self.log_best, self.params.by_base, 0.0)  # zero if all params are filled
        share = -self.alpha * self.by_params
        moved = share * excess
        along = self.fresh + self.log_g  # ln(U G): ln N_opt = ln G + beta/alpha ln(U G)
        by_alpha = (1 / self.alpha - self.log_g) / self.alpha - self.beta / self.alpha**2 * along
        by_beta = (-1 / self.beta - self.log_g) / self.alpha + along / self.alpha
        return np.stack(
            [
                self.by_params + moved / self.alpha,
                self.by_tokens - moved / self.alpha,
                -self.by_params * self.params.log + moved * by_alpha,
                -self.by_tokens * self.tokens.log + moved * by_beta,
                -self.beta * self.by_tokens * self.tokens.by_decay,
                share * self.params.by_decay,
                np.exp(self.log_e - self.log_loss),
            ],
            axis=1,
        )


@dataclass(frozen=True)
class _Worth:
    """The worth of an amount whose part beyond a base decays: its log, and the derivatives of this log by the logs of the
    base and of the decay constant."""

    log: Array
    by_base: Array
    by_decay: Array


def _worth(log_base: Array, log_amount: Array, log_decay: float) -> _Worth:
    """ln(base (1 + r (1 - exp(-x)))) with x = (amount/base - 1) / r."""
    decay = np.exp(max(log_decay, LOG_FLOOR))  # a decay of 0 is the limit of ever smaller ones
    repeated = np.maximum(np.expm1(log_amount - log_base), 0.0)
    x = repeated / decay
    total = 1 - decay * np.expm1(-x)
    return _Worth(
        log=log_base + np.log(total),
        by_base=1 - np.exp(-x) * (1 + repeated) / total,
        by_decay=decay * (-np.expm1(-x) - x * np.exp(-x)) / total,
    )


@dataclass(frozen=True)
class Overfitting(Law):
    """Lovelace's law: eq 1 plus a cost of repetition, which grows with the model's size relative to its different tokens.

    theta holds ln A, ln B, ln P, alpha, beta, delta, kappa, ln E; a row without repetition has no such cost.
    """

    name: str = "overfitting"
    formula: str = (
        "L = A/params^alpha + B/tokens^beta + P*R^delta*(params/unique_tokens)^kappa + E, R = tokens/unique_tokens - 1"
    )
    source: str = "Lovelace et al. 2026 (arXiv 2605.01640)"
    predictors: tuple[str, ...] = PREDICTORS
    free_predictors: frozenset[str] = frozenset({"unique_tokens"})
    parameters: tuple[str, ...] = ("A", "B", "P", "alpha", "beta", "delta", "kappa", "E")
    log_parameters: frozenset[str] = frozenset({"A", "B", "P", "E"})
    exponents: tuple[str, ...] = ("alpha", "beta", "delta", "kappa")
    irreducible: str = "E"

    @property
    def priors(self) -> Mapping[str, Prior]:
        """Exponents as under eq 1; those of the penalty about 1, as of a straight line."""
        return {"alpha": FALLING, "beta": FALLING, "delta": Prior(1.0, 1.0), "kappa": Prior(0.5, 0.5)}

    @property
    def questions(self) -> tuple[str, ...]:
        """Budgets only: its loss may rise with tokens, so that two token counts or none may reach a loss."""
        return ("best",)

    def log_prediction(self, theta: Array, columns: Columns) -> Array:
        """Log of the loss."""
        return np.asarray(np.logaddexp.reduce(_summands(theta, columns), axis=0))

    def jacobian(self, theta: Array, columns: Columns) -> Array:
        """Derivative of the log loss by theta, (n, 8): the summands' shares, times the logs of the bases of exponents."""
        parts = _summands(theta, columns)
        a, b, p, e = np.exp(parts - np.logaddexp.reduce(parts, axis=0))
        n, t, repeated, capacity = _logs(columns)
        grown = np.where(np.isfinite(repeated), repeated, 0.0)
        return np.stack([a, b, p, -a * n, -b * t, p * grown, p * capacity, e], axis=1)

    def start_levels(self, spread: int | None = None) -> tuple[Array, ...]:
        """Those of eq 1; penalties of e^-6 to e^2 nats at one repetition and one parameter per token."""
        usual = super().start_levels(spread)
        powers = np.linspace(0.25, 1.75, spread or 4)
        return (*usual[:2], np.linspace(-6.0, 2.0, spread or 5), *usual[3:5], powers, powers, usual[-1])


def _logs(columns: Columns) -> tuple[Array, Array, Array, Array]:
    """ln N, ln T, ln R (minus infinity without repetition) and ln(N/U)."""
    n, t, unique = (np.log(np.asarray(columns[name], dtype=np.float64)) for name in PREDICTORS)
    with np.errstate(divide="ignore", over="ignore"):
        return n, t, np.log(np.maximum(np.expm1(t - unique), 0.0)), n - unique


def _summands(theta: Array, columns: Columns) -> Array:
    """Logs of the four summands, (4, n)."""
    log_a, log_b, log_p, alpha, beta, delta, kappa, log_e = map(float, theta)
    n, t, repeated, capacity = _logs(columns)
    fresh = ~np.isfinite(repeated)
    penalty = np.where(fresh, -np.inf, log_p + delta * np.where(fresh, 0.0, repeated) + kappa * capacity)
    return np.stack([log_a - alpha * n, log_b - beta * t, penalty, np.full_like(n, log_e)])


DATA_CONSTRAINED = register(DataConstrained())
OVERFITTING = register(Overfitting())
