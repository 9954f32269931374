"""The step-and-batch law: loss of a size after S steps of B tokens, by way of the critical batch and the adjusted steps.

    S_min = S / (1 + B_crit(L)/B),  B_crit(L) = B_star / L^(1/alpha_B)
    L = (N_c/N)^alpha_N + (S_c/S_min)^alpha_S (+ E),  implicit in L

Source: Su et al. 2024 (arXiv 2403.06563), after Kaplan et al. 2020 (arXiv 2001.08361) and McCandlish et al. 2018
(arXiv 1812.06162).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from shapelaw.errors import UserError
from shapelaw.laws.base import Array, Columns, Law, level_range

ITERATIONS = 200
"""Most iterations; bisection alone ends within 70."""
Parameters = Mapping[str, float]


@dataclass(frozen=True)
class StepsBatchLaw(Law):
    """L(N, S, B); the columns are params N, tokens E = B S and batch_tokens B.

    theta holds ln N_c, alpha_N, ln S_c, alpha_S, ln B_star, alpha_B (and ln E).
    """

    name: str
    irreducible: str | None = None
    source: str = "Su et al. 2024 (arXiv 2403.06563), section 3"
    predictors: tuple[str, ...] = ("params", "tokens", "batch_tokens")
    exponents: tuple[str, ...] = ("alpha_N", "alpha_S", "alpha_B")
    default_counting: str = "no_embedding_and_head"
    questions: tuple[str, ...] = ("lowest_loss", "steps_to_loss", "critical_batch", "loss_curve")
    methods: tuple[str, ...] = ("staged",)

    @property
    def formula(self) -> str:  # type: ignore[override]
        """As text."""
        base = "L = (N_c/N)^alpha_N + [S_c/S (1 + B_star/(B L^(1/alpha_B)))]^alpha_S, S = tokens/B"
        return base + (" + E" if self.irreducible else "")

    @property
    def parameters(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names in natural units."""
        names = ("N_c", "alpha_N", "S_c", "alpha_S", "B_star", "alpha_B")
        return names + ((self.irreducible,) if self.irreducible else ())

    @property
    def log_parameters(self) -> frozenset[str]:  # type: ignore[override]
        """Scales and E."""
        return frozenset({"N_c", "S_c", "B_star", "E"} & set(self.parameters))

    @property
    def units(self) -> dict[str, str]:
        """N_c counts parameters, S_c steps, B_star tokens (at a loss of 1 nat)."""
        return super().units | {"N_c": "parameters", "S_c": "steps", "B_star": "tokens"}

    def log_prediction(self, theta: Array, columns: Columns) -> Array:
        """Log of the loss: the only root of x = ln(floor + term(x)), whose two sides differ by a slope of at least 1."""
        return self._solve(np.asarray(theta, dtype=np.float64), columns)[0]

    def jacobian(self, theta: Array, columns: Columns) -> Array:
        """Derivative of the log prediction by theta, by the implicit function theorem, shape (n, p)."""
        theta = np.asarray(theta, dtype=np.float64)
        x, share, gate, slope = self._solve(theta, columns)
        log_n, log_s, log_b = _logs(columns)
        size = (theta[0] - log_n) * theta[1]
        of_floor = np.exp(size - self._log_floor(theta, log_n))
        log_excess = np.logaddexp(0.0, theta[4] - log_b - x / theta[5])
        still = 1 - share
        rows = [
            still * of_floor * theta[1],
            still * of_floor * (theta[0] - log_n),
            share * theta[3],
            share * (theta[2] - log_s + log_excess),
            share * theta[3] * gate,
            share * theta[3] * gate * x / theta[5] ** 2,
        ]
        if self.irreducible:
            rows.append(still * (1 - of_floor))
        return np.asarray(np.stack(rows, axis=1) / slope[:, None])

    def converged_loss(self, parameters: Parameters, params: ArrayLike) -> Array:
        """L(N) = (N_c/N)^alpha_N (+ E): nats per token that no number of steps can undercut."""
        floor = self._log_floor(self.theta(parameters), np.log(np.asarray(params, dtype=np.float64)))
        return np.asarray(np.exp(floor))

    def curve(self, parameters: Parameters, params: ArrayLike, steps_min: ArrayLike) -> Array:
        """L(N, S_min): loss after S_min steps of a batch far above the critical one."""
        steps = np.asarray(steps_min, dtype=np.float64)
        term = (parameters["S_c"] / steps) ** parameters["alpha_S"]
        return np.asarray(self.converged_loss(parameters, params) + term)

    def critical_batch(self, parameters: Parameters, loss: ArrayLike) -> Array:
        """B_crit(L) = B_star / L^(1/alpha_B), tokens."""
        power = np.log(np.asarray(loss, dtype=np.float64)) / parameters["alpha_B"]
        return np.asarray(parameters["B_star"] * np.exp(-power))

    def steps_min_to(self, parameters: Parameters, params: float, loss: float) -> float:
        """S_min at which L(N, S_min) equals the loss.

        Raises:
            UserError: if the loss is not above L(N), or not below the loss after one step.
        """
        floor, first = float(self.converged_loss(parameters, params)), float(self.curve(parameters, params, 1.0))
        if not floor < loss < first:
            raise UserError(
                f"loss={loss:g}: a model of {params:,.0f} parameters reaches losses between {floor:.4f}, its L(N) "
                f"after any number of steps, and {first:.4g}; give a loss between them, or a larger model"
            )
        return float(parameters["S_c"] / (loss - floor) ** (1 / parameters["alpha_S"]))

    def steps_to(self, parameters: Parameters, params: float, loss: float, batch_tokens: ArrayLike) -> Array:
        """S = S_min (1 + B_crit(L)/B): steps to a loss at any batch; tokens are B times as many."""
        batches = np.asarray(batch_tokens, dtype=np.float64)
        ratio = self.critical_batch(parameters, loss) / batches
        return np.asarray(self.steps_min_to(parameters, params, loss) * (1 + ratio))

    def start_levels(self, spread: int | None = None) -> tuple[Array, ...]:
        """Levels of theta, which the staged estimation does not need."""
        scale, power = np.linspace(5.0, 40.0, spread or 4), np.linspace(0.05, 0.8, spread or 3)
        levels = (scale, power, scale[: len(scale) // 2], power, scale[: len(scale) // 2 + 1], power)
        return levels + ((level_range("irreducible", spread),) if self.irreducible else ())

    def _log_floor(self, theta: Array, log_n: Array) -> Array:
        size = (theta[0] - log_n) * theta[1]
        return np.asarray(np.logaddexp(size, theta[6]) if self.irreducible else size)

    def _solve(self, theta: Array, columns: Columns) -> tuple[Array, Array, Array, Array]:
        """(log loss, the term's share of the loss, B_crit/(B + B_crit), slope at the root), each (n,)."""
        log_n, log_s, log_b = _logs(columns)
        floor = self._log_floor(theta, log_n)

        def sides(x: Array) -> tuple[Array, Array, Array, Array]:
            excess = np.logaddexp(0.0, theta[4] - log_b - x / theta[5])
            term = theta[3] * (theta[2] - log_s + excess)
            total = np.logaddexp(floor, term)
            share = np.exp(term - total)
            gate = -np.expm1(-excess)
            return x - total, share, gate, 1 + share * gate * theta[3] / theta[5]

        low = floor.copy()
        high = low - sides(low)[0]
        x = (low + high) / 2
        for _ in range(ITERATIONS):
            gap, _share, _gate, slope = sides(x)
            low, high = np.where(gap < 0, x, low), np.where(gap < 0, high, x)
            newton = x - gap / slope
            new = np.where((newton > low) & (newton < high), newton, (low + high) / 2)
            done = np.abs(new - x) <= 4e-16 * np.maximum(1.0, np.abs(x))
            x = new
            if done.all():
                break
        return x, *sides(x)[1:]


def _logs(columns: Columns) -> tuple[Array, Array, Array]:
    """Logs of N, S = tokens / B, and B."""
    params, tokens, batch = (np.asarray(columns[k], dtype=np.float64) for k in ("params", "tokens", "batch_tokens"))
    log_n, log_e, log_b = np.broadcast_arrays(np.log(params), np.log(tokens), np.log(batch))
    return np.atleast_1d(log_n), np.atleast_1d(log_e - log_b), np.atleast_1d(log_b)


STEPS_BATCH = StepsBatchLaw("steps_batch")
STEPS_BATCH_E = StepsBatchLaw("steps_batch_e", irreducible="E")
"""The same with an irreducible loss."""
