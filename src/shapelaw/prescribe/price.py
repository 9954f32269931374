"""The cost of a token in FLOPs, device hours or dollars; hours from measured steps (interpolated over shape) or a given MFU."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.prescribe.world import Points, World
from shapelaw.runs.table import RunsTable

if TYPE_CHECKING:
    from shapelaw.config import ObjectiveConfig

Array = NDArray[np.float64]
UNITS = ("flops", "device_hours", "dollars")
SECONDS = 3600.0

_SURFACES: tuple[Callable[[Array, Array], list[Array]], ...] = (
    lambda w, d: [np.ones_like(w)],
    lambda w, d: [np.ones_like(w), w, d],
    lambda w, d: [np.ones_like(w), w, d, w * w, w * d, d * d],
)
"""Constant, linear and quadratic in log width and log depth."""


@dataclass(frozen=True)
class Throughput:
    """FLOP/s that one device reaches on a shape: log rate is a polynomial of centred log width and log depth.

    Args:
        degree: 0, 1 or 2.
        coefficients: coefficients of the polynomial, in the order 1, w, d, w^2, wd, d^2.
        covariance: covariance of the coefficients.
        centre: (log width, log depth) at which w = d = 0.
        error: relative error of a shape left out of the interpolation (root mean square); 0 for a given rate.
        source: its origin, for people.
    """

    degree: int
    coefficients: Array
    covariance: Array
    centre: tuple[float, float]
    error: float
    source: str

    @classmethod
    def given(cls, device_flops: float, mfu: float) -> Throughput:
        """A rated device at a model FLOPs utilisation.

        Raises:
            UserError: unless the rate is positive and 0 < mfu <= 1.
        """
        if not (math.isfinite(device_flops) and device_flops > 0):
            raise UserError(
                f"objective.device_flops={device_flops}: allowed values are positive rates in FLOP/s, such as 990e12"
            )
        if not 0 < mfu <= 1:
            raise UserError(f"objective.mfu={mfu}: allowed values are shares above 0 and up to 1, such as 0.4")
        rate = np.array([math.log(device_flops * mfu)])
        source = f"{device_flops:.3g} FLOP/s a device at {mfu:.0%} utilisation"
        return cls(0, rate, np.zeros((1, 1)), (0.0, 0.0), 0.0, source)

    @classmethod
    def measured(cls, runs: RunsTable, world: World) -> Throughput:
        """From the table's seconds per step: the polynomial that predicts a left-out shape best.

        Device seconds per token are seconds_per_step * num_devices / batch_tokens. Runs of one shape count once, by
        their median.

        Raises:
            UserError: if the table lacks shapes, seconds per step or batch.
        """
        width, depth, seconds = _per_shape(runs)
        log_rate = np.log(world.points(width, depth).train_flops / seconds)
        w, d = np.log(width), np.log(depth)
        centre = (float(w.mean()), float(d.mean()))
        fits = [_regress(degree, w - centre[0], d - centre[1], log_rate) for degree in _degrees(len(w))]
        degree, coefficients, covariance, error = min(fits, key=lambda fit: fit[3])
        return cls(degree, coefficients, covariance, centre, error, f"measured steps of {len(w)} shapes")

    def draws(self, n: int, seed: int = 0) -> Array:
        """Coefficients themselves, then n draws from their covariance; shape (n + 1, coefficients)."""
        generator = np.random.default_rng(seed)
        drawn = generator.multivariate_normal(self.coefficients, self.covariance, n, method="eigh")
        return np.vstack([self.coefficients, drawn])

    def rate(self, points: Points, coefficients: Array | None = None) -> Array:
        """FLOP/s of one device, broadcastable to (vectors, points), for coefficients of shape (vectors, k).

        Raises:
            UserError: for sizes without a shape, if the rate depends on it.
        """
        own = points.beside(self.coefficients[None] if coefficients is None else coefficients)
        if self.degree == 0:
            return np.asarray(np.exp(own[0]))
        if points.width is None or points.depth is None:
            raise UserError("objective: measured steps need a shape; give objective.mfu, or space=feasible")
        features = _SURFACES[self.degree](np.log(points.width) - self.centre[0], np.log(points.depth) - self.centre[1])
        return np.asarray(np.exp(sum(factor * x for factor, x in zip(own, features, strict=True))))


@dataclass(frozen=True)
class Cost:
    """The quantity that is spent, and how much of it a token of training and of inference costs.

    Args:
        unit: `flops`, `device_hours` or `dollars`.
        throughput: needed unless the unit is flops.
        price: dollars of one device hour.
        served_tokens: tokens of inference that the budget must also cover.
    """

    unit: str = "flops"
    throughput: Throughput | None = None
    price: float = 1.0
    served_tokens: float = 0.0

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise UserError(f"objective={self.unit}: allowed values are {', '.join(UNITS)}")
        if self.unit != "flops" and self.throughput is None:
            raise UserError(f"objective={self.unit}: needs a rate; give objective.mfu, or runs with seconds_per_step")
        if not (math.isfinite(self.price) and self.price > 0):
            raise UserError(f"objective.price={self.price}: allowed values are positive dollars per device hour")
        if not (math.isfinite(self.served_tokens) and self.served_tokens >= 0):
            raise UserError(f"objective.inference_tokens={self.served_tokens}: allowed values are numbers from 0")

    @property
    def words(self) -> str:
        """The unit for people."""
        flops = "FLOPs of training and serving" if self.served_tokens else "training FLOPs"
        return flops if self.unit == "flops" else self.unit.replace("_", " ")

    def per_flop(self, points: Points, coefficients: Array | None = None) -> Array:
        """Units of one FLOP, broadcastable to (vectors, points)."""
        if self.throughput is None or self.unit == "flops":
            return np.ones((1, 1))
        hours = 1.0 / (self.throughput.rate(points, coefficients) * SECONDS)
        return hours * self.price if self.unit == "dollars" else hours

    def total(self, points: Points, tokens: Array, coefficients: Array | None = None) -> Array:
        """Cost of training on these tokens and of serving, (vectors, points)."""
        flops = points.train_flops * tokens + points.serve_flops * self.served_tokens
        return np.asarray(flops * self.per_flop(points, coefficients))

    def tokens(self, points: Points, budget: Array | float, coefficients: Array | None = None) -> Array:
        """Training tokens that a budget leaves after serving; 0 or less if it leaves none."""
        flops = budget / self.per_flop(points, coefficients)
        return np.asarray((flops - points.serve_flops * self.served_tokens) / points.train_flops)


FLOPS = Cost()
"""A budget of training FLOPs."""


def measured_cost(runs: RunsTable, world: World, unit: str = "device_hours", price: float = 1.0) -> Cost:
    """Hours or dollars by the runs' own measured steps."""
    return Cost(unit, Throughput.measured(runs, world), price)


def cost_of(objective: ObjectiveConfig, runs: RunsTable, world: World) -> Cost:
    """The cost of an objective.

    Raises:
        UserError: for an incomplete rate, or runs without measured steps.
    """
    if objective.name not in ("device_hours", "dollars"):
        return Cost(objective.name, served_tokens=objective.inference_tokens)
    if (objective.mfu is None) != (objective.device_flops is None):
        raise UserError(
            f"objective.mfu={objective.mfu}, objective.device_flops={objective.device_flops}: give both, such as 0.4 "
            "and 990e12, or neither to use the runs' measured steps"
        )
    if objective.mfu is not None and objective.device_flops is not None:
        throughput = Throughput.given(objective.device_flops, objective.mfu)
    else:
        throughput = Throughput.measured(runs, world)
    return Cost(objective.name, throughput, objective.price, objective.inference_tokens)


def _degrees(n: int) -> range:
    """Degrees of polynomials with at least two shapes more than coefficients; always a constant."""
    return range(sum(n >= coefficients + 2 for coefficients in (3, 6)) + 1)


def _regress(degree: int, w: Array, d: Array, y: Array) -> tuple[int, Array, Array, float]:
    """Least squares: degree, coefficients, covariance, relative error of left-out points (closed form, hat matrix)."""
    x = np.stack(_SURFACES[degree](w, d), axis=1)
    inverse = np.linalg.pinv(x.T @ x)
    coefficients = inverse @ x.T @ y
    residuals = y - x @ coefficients
    spare = len(y) - x.shape[1]
    covariance = inverse * (residuals @ residuals / spare if spare > 0 else 0.0)
    leverage = np.einsum("ij,jk,ik->i", x, inverse, x)
    left_out = residuals / np.maximum(1.0 - leverage, 1e-9)
    return degree, coefficients, covariance, float(np.sqrt(np.mean(np.expm1(left_out) ** 2)))


def _per_shape(runs: RunsTable) -> tuple[Array, Array, Array]:
    """Width, depth and device seconds per token of every measured shape."""
    purpose = "objective.rate=measured"
    needed = ("width", "depth", "seconds_per_step", "batch_tokens")
    missing = [name for name in needed if name not in runs.kept]
    if missing:
        raise UserError(
            f"{purpose}: the runs lack {', '.join(missing)}, so no step was measured; give objective.mfu=0.4 and "
            "objective.device_flops=990e12, or others"
        )
    timed = runs.kept[runs.kept["seconds_per_step"].notna() & runs.kept["batch_tokens"].notna()]
    if timed.empty:
        raise UserError(f"{purpose}: no run has seconds_per_step; give objective.mfu and objective.device_flops")
    devices = timed["num_devices"].fillna(1) if "num_devices" in timed else 1
    seconds = timed["seconds_per_step"] * devices / timed["batch_tokens"]
    shapes = timed.assign(seconds=seconds).groupby(["width", "depth"])["seconds"].median().reset_index()
    return tuple(shapes[name].to_numpy(dtype=np.float64) for name in ("width", "depth", "seconds"))  # type: ignore[return-value]
