"""Profiles: the rise of the objective when one statistic is held away from its optimum and everything else is refitted.

If any slope between .57 and .82 is within 0.1% of the minimum, the fit does not identify the slope. The profile shows this; a
standard error, which sees the curvature at one point only, would not.

Source: Venzon and Moolgavkar 1988 (profile likelihood); the scale is ours and documented in `likelihood_rise`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.objective import Problem
from shapelaw.fitting.solve import Solution, solve
from shapelaw.fitting.solver import Search
from shapelaw.fitting.solvers import search_of
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.laws import EXPONENT, LOG_FLOOR, Law
from shapelaw.laws.base import LOG_CEILING, from_log, to_log

Array = NDArray[np.float64]

RISE = 1e-3
"""Share of the minimum by which the objective may rise."""
FIRST_STEP, GROWTH, MOST_STEPS = 0.01, 1.5, 40
"""First step away from the optimum (of an exponent, or relative), its growth, and the most steps per side."""
HALVINGS = 30
"""Most steps of the search for the crossing of the profile with a cut."""
EXPONENT_RANGE = 20.0
"""Largest exponent that is tried."""
CONTAINED = 1e-6
"""Precision of an end, as a share of the bracket's own scale."""


@dataclass(frozen=True)
class Profile:
    """The profile of one statistic and two intervals read off it."""

    statistic: str
    estimate: float
    values: Array
    """Values at which the other parameters were refitted, ascending, (m,)."""
    objectives: Array
    """Lowest objective at each of them, (m,)."""
    interval: tuple[float, float]
    """Values whose objective is within `rise` (relative) of the minimum."""
    rise: float
    likelihood_interval: tuple[float, float]
    """Values whose objective is within `likelihood_rise` of the minimum."""
    likelihood_rise: float
    level: float
    open_ends: tuple[bool, bool]
    """Whether an end of `interval` is only the end of the tried range (0 for coefficients and E)."""


def profile(
    data: FitData,
    spec: FitSpec,
    statistic: str = EXPONENT,
    solution: Solution | None = None,
    *,
    rise: float = RISE,
    level: float = 0.9,
    effective: float | None = None,
    weights: ArrayLike | None = None,
) -> Profile:
    """Profile a parameter or the compute-optimal exponent.

    Args:
        data: rows as the law reads them.
        spec: delta and solver are read.
        statistic: name of a parameter (natural units), or `compute_optimal_exponent`.
        solution: the fit; None computes it.
        rise: relative rise of the objective that bounds `interval`.
        level: level of the likelihood interval.
        effective: number of independent points behind the likelihood interval; use the number of runs if the points of a
            run share noise. None counts every point.
        weights: multiplicity of each row, (n,).

    Raises:
        UserError: for input that cannot be fitted, rise <= 0, level outside (0, 1), or a statistic without a profile.
    """
    problem = data.problem(spec, weights)
    if not rise > 0 or not 0 < level < 1:
        raise UserError(f"rise={rise}, level={level}: allowed values are a rise above 0 and a level between 0 and 1")
    solution = solution or solve(data, spec, weights)
    estimate = _estimate(data.law, solution, statistic)
    trace = _Trace(search_of(spec.solver, problem), solution, statistic)
    likely = likelihood_rise(problem, solution, level, effective)
    cuts = sorted({rise, likely})
    sides = {direction: trace.side(estimate, direction, cuts) for direction in (-1, 1)}
    values, objectives = trace.curve()

    def interval(cut: float) -> tuple[float, float]:
        return sides[-1][cut][0], sides[1][cut][0]

    return Profile(
        statistic, estimate, values, objectives, interval(rise), rise, interval(likely), likely, level,
        (sides[-1][rise][1], sides[1][rise][1]),
    )  # fmt: skip


def likelihood_rise(problem: Problem, solution: Solution, level: float, effective: float | None = None) -> float:
    """Relative rise of the objective that a likelihood-ratio test at `level` would accept.

    Taking exp(-Huber(r)/s) as a density of unknown scale and profiling out the scale gives a log likelihood of
    -(n/k) log f, where k = sum r psi(r) / f is 2 for residuals below delta (normal) and 1 far above (Laplace). So
    2 (n/k) log(f/f0) is compared with the chi-squared quantile of one degree of freedom.
    """
    residual = problem.residuals(solution.theta)
    points = float(problem.weights.sum()) if effective is None else float(effective)
    if solution.objective <= 0:
        return RISE
    shape = float(np.sum(residual * problem.slopes(residual))) / solution.objective
    return float(np.expm1(scipy.special.chdtri(1, 1 - level) * shape / (2 * points)))


def _estimate(law: Law, solution: Solution, statistic: str) -> float:
    parameters = law.natural(solution.theta)
    value = law.compute_optimal_exponent(parameters) if statistic == EXPONENT else parameters.get(statistic)
    if value is None:
        law.constraint(statistic, 0.5)  # raises the error that lists what is allowed, if that is the reason
        raise UserError(f"the fit of law {law.name} has no interior compute-optimal exponent; nothing to profile")
    law.constraint(statistic, value)
    return float(value)


def constrained_minimum(search: Search, solution: Solution, statistic: str, value: float) -> float:
    """Lowest objective with the statistic held at `value`.

    Raises:
        UserError: if the statistic is not a linear constraint on theta under the law.
    """
    return search.held(*search.problem.law.constraint(statistic, value), _seeds(solution))[1]


def _seeds(solution: Solution) -> Array:
    """The best optima of the fit."""
    return np.array([solution.theta, *solution.basins[1:3]])


class _Trace:
    """Profiled objectives, found by walking away from the optimum with warm starts."""

    def __init__(self, search: Search, solution: Solution, statistic: str) -> None:
        self.search, self.law, self.statistic = search, search.problem.law, statistic
        self.minimum, self.seeds = solution.objective, _seeds(solution)
        self.known: list[tuple[float, float]] = []
        self.logarithmic = statistic in self.law.log_parameters
        low, high = (0.0, 1.0) if statistic == EXPONENT else (-EXPONENT_RANGE, EXPONENT_RANGE)
        self.range = low + 1e-6, high - 1e-6
        if self.logarithmic:
            lowest = LOG_FLOOR if statistic == self.law.irreducible else -LOG_CEILING
            self.range = lowest, -lowest

    def to_natural(self, coordinate: float) -> float:
        """The statistic there; 0 at the lower end of a logarithm."""
        if not self.logarithmic:
            return coordinate
        return from_log(coordinate) if coordinate > self.range[0] else 0.0

    def from_natural(self, value: float) -> float:
        """The coordinate at which the statistic has this value."""
        return max(to_log(value), self.range[0]) if self.logarithmic else value

    def curve(self) -> tuple[Array, Array]:
        """All points so far, ascending."""
        known = np.array(sorted(self.known))
        return known[:, 0], known[:, 1]

    def _refit(self, coordinate: float, near: Array) -> tuple[float, Array]:
        value = self.to_natural(coordinate)
        held = self.law.constraint(self.statistic, value)
        theta, objective = self.search.held(*held, np.concatenate([near[None], self.seeds]))
        self.known.append((value, objective))
        return objective, theta

    def side(self, estimate: float, direction: int, cuts: list[float]) -> dict[float, tuple[float, bool]]:
        """For each cut, the value at which the profile crosses it on one side, and whether it never crosses it."""
        bound = self.range[0] if direction < 0 else self.range[1]
        inside, theta, step = self.from_natural(estimate), self.seeds[0], FIRST_STEP
        if not self.logarithmic:
            step *= max(abs(estimate), 0.1)
        crossed: dict[float, tuple[float, bool]] = {}
        for _ in range(MOST_STEPS):
            if len(crossed) == len(cuts):
                return crossed
            outside = inside + direction * step
            outside = max(outside, bound) if direction < 0 else min(outside, bound)
            objective, moved = self._refit(outside, theta)
            for cut in cuts:
                if cut not in crossed and objective > self.minimum * (1 + cut):
                    crossed[cut] = self._cross(inside, outside, theta, cut), False
            inside, theta, step = outside, moved, step * GROWTH
            if outside == bound:
                break
        return {cut: crossed.get(cut, (self.to_natural(inside), True)) for cut in cuts}

    def _cross(self, inside: float, outside: float, theta: Array, cut: float) -> float:
        """The point where the profile rises above the cut, by bisection."""
        scale = max(abs(outside - inside), abs(inside), 1e-3)
        for _ in range(HALVINGS):
            middle = 0.5 * (inside + outside)
            objective, moved = self._refit(middle, theta)
            if objective > self.minimum * (1 + cut):
                outside = middle
            else:
                inside, theta = middle, moved
            if abs(outside - inside) <= CONTAINED * scale:
                break
        return self.to_natural(inside)
