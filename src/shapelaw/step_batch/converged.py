"""Stage N: the loss that each size converges to, and its power law in the size.

For every size, the longest run counts. Its last loss is above the limit that it converges to, so by default the limit is
extrapolated: L = floor(size) + (S_c/S_min)^alpha_S with one S_c and alpha_S for all sizes.
Then ln floor = alpha_N (ln N_c - ln N), or floor = (N_c/N)^alpha_N + E.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXPONENTS = np.geomspace(0.05, 3.0, 60)
"""alpha_S of starts; the fitted alpha_S is kept between the first and the last."""
FLOOR_MIN = 1e-3
"""Lowest floor, as a share of the lowest loss of its run; a lower one is not a measurement."""
TIGHT = 1e-15
"""Tolerance of the least squares: to rounding, so that exact curves give exact constants."""


@dataclass(frozen=True)
class Tails:
    """Rows of the longest run of each size.

    Args:
        params: sizes, (sizes,).
        size: index of each row's size, (n,).
        log_steps_min: adjusted steps, (n,).
        log_loss: (n,).
        weights: multiplicity of each row's run, (n,).
        size_weights: multiplicity of each size's run, (sizes,).
    """

    params: Array
    size: NDArray[np.intp]
    log_steps_min: Array
    log_loss: Array
    weights: Array
    size_weights: Array


@dataclass(frozen=True)
class Floors:
    """Converged losses.

    Args:
        values: converged loss of every size, nats per token, (sizes,).
        log_s_c, alpha_s: parameters of the common learning curve; NaN if the last losses were taken unchanged.
    """

    values: Array
    log_s_c: float = float("nan")
    alpha_s: float = float("nan")


@dataclass(frozen=True)
class Converged:
    """The size law: floor(N) = (N_c/N)^alpha_N + E.

    Args:
        log_n_c, alpha_n: its power; irreducible: E, 0 for the law without one.
        squares: weighted sum of squared residuals of the log floors.
    """

    log_n_c: float
    alpha_n: float
    irreducible: float
    squares: float

    def log_floor_at(self, log_params: Array) -> Array:
        """Log of the converged loss."""
        power = self.alpha_n * (self.log_n_c - np.asarray(log_params))
        return np.asarray(np.log(np.exp(power) + self.irreducible))


def extrapolate(tails: Tails, start: Floors | None = None) -> Floors | None:
    """Floors of all sizes with one learning curve, by least squares of the log loss; None if no curve bends."""
    first = start or _coarse(tails)
    if first is None:
        return None
    lowest = np.full(len(tails.params), np.inf)
    np.minimum.at(lowest, tails.size, np.exp(tails.log_loss))
    root = np.sqrt(tails.weights)
    one_hot = np.eye(len(tails.params))[tails.size]

    def parts(theta: Array) -> tuple[Array, Array]:
        term = np.exp(theta[1] * (theta[0] - tails.log_steps_min))
        return theta[2:][tails.size], term

    def residual(theta: Array) -> Array:
        floor, term = parts(theta)
        return np.asarray(root * (np.log(floor + term) - tails.log_loss))

    def slope(theta: Array) -> Array:
        floor, term = parts(theta)
        by_curve = np.stack([term * theta[1], term * (theta[0] - tails.log_steps_min)], axis=1)
        return np.asarray(np.hstack([by_curve, one_hot]) * (root / (floor + term))[:, None])

    low = np.concatenate([[-60.0, EXPONENTS[0]], FLOOR_MIN * lowest])
    high = np.concatenate([[60.0, EXPONENTS[-1]], lowest])
    x0 = np.clip(np.concatenate([[first.log_s_c, first.alpha_s], first.values]), low * 1.001 * np.sign(low) ** 2, high)
    inner = np.clip(x0, low + 1e-9 * np.abs(low), high - 1e-9 * np.abs(high))
    best = scipy.optimize.least_squares(
        residual, inner, jac=slope, bounds=(low, high), x_scale="jac", xtol=TIGHT, ftol=TIGHT, gtol=TIGHT
    )
    return Floors(best.x[2:], float(best.x[0]), float(best.x[1]))


def regress(params: Array, floors: Array, weights: Array, *, irreducible: bool) -> Converged | None:
    """The size law through the floors; None if fewer sizes than parameters remain or the loss does not fall with size."""
    used = weights > 0
    log_n, log_l, share = np.log(params[used]), np.log(floors[used]), weights[used]
    if used.sum() < (3 if irreducible else 2):
        return None
    plain = _power(log_n, log_l, share)
    if plain is None or not irreducible:
        return plain
    return _power_and_constant(log_n, log_l, share, plain)


def _coarse(tails: Tails) -> Floors | None:
    """Best of a grid of alpha_S, the floors and the coefficient by linear least squares of the relative loss."""
    loss = np.exp(tails.log_loss)
    root = np.sqrt(tails.weights) / loss
    one_hot = np.eye(len(tails.params))[tails.size]
    best, floors = np.inf, None
    for alpha in EXPONENTS:
        scale = alpha * tails.log_steps_min.min()
        design = np.column_stack([np.exp(scale - alpha * tails.log_steps_min), one_hot])
        solution = np.linalg.lstsq(design * root[:, None], loss * root, rcond=None)[0]
        squares = float(np.sum((root * (design @ solution - loss)) ** 2))
        if solution[0] > 0 and (solution[1:] > 0).all() and squares < best:
            best, floors = (
                squares,
                Floors(
                    np.asarray(solution[1:], dtype=np.float64),
                    float((np.log(solution[0]) + scale) / alpha),
                    float(alpha),
                ),
            )
    return floors


def _power(log_n: Array, log_l: Array, weights: Array) -> Converged | None:
    """ln L = alpha_N (ln N_c - ln N) by weighted least squares."""
    share = weights / weights.sum()
    x, y = share @ log_n, share @ log_l
    spread = share @ (log_n - x) ** 2
    if spread <= 0:
        return None
    alpha = float(-(share @ ((log_n - x) * (log_l - y))) / spread)
    if alpha <= 0:
        return None
    log_n_c = float(x + y / alpha)
    residual = log_l - alpha * (log_n_c - log_n)
    return Converged(log_n_c, alpha, 0.0, float(weights @ residual**2))


def _power_and_constant(log_n: Array, log_l: Array, weights: Array, plain: Converged) -> Converged:
    """The same with E, from several starts; the plain law if an E does not help."""
    root, middle, lowest = np.sqrt(weights), float(log_n.mean()), float(np.exp(log_l.min()))

    def residual(theta: Array) -> Array:
        return np.asarray(root * (np.log(np.exp(theta[0] - theta[1] * (log_n - middle)) + theta[2]) - log_l))

    def slope(theta: Array) -> Array:
        power = np.exp(theta[0] - theta[1] * (log_n - middle))
        columns = np.stack([power, -power * (log_n - middle), np.ones_like(power)], axis=1)
        return np.asarray(columns * (root / (power + theta[2]))[:, None])

    low, high = np.array([-60.0, 1e-4, 0.0]), np.array([60.0, 10.0, lowest])
    best = plain
    for share in (0.3, 0.6, 0.9):
        level = float(np.exp(log_l).mean()) - share * lowest
        start = np.clip([np.log(level), plain.alpha_n / (1 - share), share * lowest], low, high)
        x = scipy.optimize.least_squares(
            residual, start, jac=slope, bounds=(low, high), x_scale="jac", xtol=TIGHT, ftol=TIGHT, gtol=TIGHT
        ).x
        candidate = Converged(float(middle + x[0] / x[1]), float(x[1]), float(x[2]), float(np.sum(residual(x) ** 2)))
        best = candidate if candidate.squares < best.squares else best
    return best
