"""Refits of resampled data, by runs (clusters) or by rows, and intervals of any function of the parameters.

Points of one run share its noise (on the published data four fifths of the residual variance lie between runs), so
resampling rows makes intervals several times too narrow; resampling runs is the default.

Source: Davison and Hinkley 1997, section 3.8 (resampling of clusters); Efron 1987 (BCa).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtrit

from shapelaw.errors import UserError
from shapelaw.fitting import intervals
from shapelaw.fitting.general import GeneralNewton
from shapelaw.fitting.newton import Newton
from shapelaw.fitting.objective import Problem
from shapelaw.fitting.solve import Solution
from shapelaw.laws import Columns, Law, SumLaw

Array = NDArray[np.float64]
Statistic = Callable[[Mapping[str, float]], float]

BY = ("runs", "rows")
KINDS = ("percentile", "expanded", "bca")
BLOCKS = 200
"""Most groups of the jackknife by rows: longer tables leave out blocks of rows."""
BASINS = 3
"""Distinct optima of the fit that every refit starts from."""
NEAR = 2.0
"""Only optima with an objective of at most this many times the best are worth a start."""


@dataclass(frozen=True)
class Bootstrap:
    """Refits of resampled data.

    Draws with fewer distinct points than the law has parameters, which nothing would identify, are drawn again.
    """

    law: Law
    estimate: Array
    """theta of the fit to the data themselves, (p,)."""
    thetas: Array
    """theta of every refit, (n, p)."""
    objectives: Array
    """Objective of every refit, (n,)."""
    jackknife: Array
    """theta without each run (or row, or block of rows) in turn, (groups, p)."""
    by: str
    seed: int

    @cached_property
    def draws(self) -> dict[str, Array]:
        """Natural parameters of every refit, each (n,)."""
        return _columns(self.law, self.thetas)

    def values(self, statistic: str | Statistic) -> Array:
        """A statistic of every refit, (n,): the name of a parameter, or a function of the natural parameters."""
        return _values(self.law, self.thetas, statistic)

    def interval(self, statistic: str | Statistic, level: float = 0.9, kind: str = "percentile") -> tuple[float, float]:
        """Interval of a scalar function of the parameters.

        Args:
            statistic: name of a parameter, or a function of the natural parameters (a mapping name -> value).
            level: share of the refits inside.
            kind: `percentile`; `expanded`, the percentile interval with its level raised as Student's t is wider than
                the normal for so many groups (Hesterberg 2015, section 5.3: few clusters make percentiles too narrow);
                or `bca`, bias-corrected and accelerated, its skew from leaving each run out in turn.

        Raises:
            UserError: for another kind, a level outside (0, 1), or a statistic that no refit defines.
        """
        if kind not in KINDS:
            raise UserError(f"kind={kind}: allowed are {', '.join(KINDS)}")
        if not 0 < level < 1:
            raise UserError(f"level={level}: allowed are values between 0 and 1, such as 0.9")
        values = self.values(statistic)
        values = values[np.isfinite(values)]
        if not len(values):
            raise UserError("the statistic is not finite in any refit; choose one that the law defines")
        if kind == "percentile":
            return intervals.percentile(values, level)
        if kind == "expanded":
            return intervals.percentile(values, expanded_level(level, len(self.jackknife)))
        estimate = float(_values(self.law, self.estimate[None], statistic)[0])
        return intervals.bca(values, level, estimate, _values(self.law, self.jackknife, statistic))

    def covariance(self) -> Array:
        """Covariance of the natural parameters over the refits, (p, p)."""
        return np.atleast_2d(np.cov(np.stack([self.draws[name] for name in self.law.parameters])))


def expanded_level(level: float, groups: int) -> float:
    """Level at which normal quantiles equal Student's for `groups` groups, times sqrt(groups / (groups - 1))."""
    if groups < 2:
        return level
    quantile = float(stdtrit(groups - 1, (1 + level) / 2)) * np.sqrt(groups / (groups - 1))
    return float(2 * ndtr(quantile) - 1)


def bootstrap(
    law: Law,
    columns: Columns,
    loss: ArrayLike,
    groups: ArrayLike,
    solution: Solution,
    *,
    n: int = 1000,
    by: str = "runs",
    delta: float = 1e-4,
    seed: int = 0,
    workers: int = 1,
) -> Bootstrap:
    """Refit n resampled data sets, each from the best optima of the fit.

    Args:
        columns, loss, delta: as in `solve`.
        groups: run of each point, (n_points,).
        solution: the fit to the data themselves.
        n: number of refits.
        by: `runs` draws whole runs with replacement, `rows` single points.
        seed: of the draws.
        workers: threads.

    Raises:
        UserError: on input that cannot be fitted, n < 2, another `by`, groups of another length, or a single run.
    """
    problem = Problem.of(law, columns, loss, delta)
    if n < 2:
        raise UserError(f"n={n}: allowed are whole numbers from 2; 1000 is usual")
    if by not in BY:
        raise UserError(f"by={by}: allowed are {', '.join(BY)}")
    labels = _labels(groups, len(problem.log_loss)) if by == "runs" else np.arange(len(problem.log_loss))
    if labels.max() < 1:
        raise UserError("a single run cannot be resampled by runs; use by=rows, or give the run of each point")
    weights = list(_resamples(labels, n, len(law.parameters), np.random.default_rng(seed)))
    thetas, objectives = _refit_all(problem, solution, np.array(weights), workers)
    left_out, _ = _refit_all(problem, solution, np.array(list(_leave_out(labels, seed))), workers)
    return Bootstrap(law, np.asarray(solution.theta), thetas, objectives, left_out, by, seed)


def _labels(groups: ArrayLike, points: int) -> NDArray[np.int64]:
    given = np.asarray(groups)
    if given.shape != (points,):
        raise UserError(f"groups has shape {given.shape}; give the run of each of the {points} points")
    return np.asarray(np.unique(given, return_inverse=True)[1], dtype=np.int64).ravel()


def _resamples(labels: NDArray[np.int64], n: int, parameters: int, rng: np.random.Generator) -> Iterator[Array]:
    """Multiplicities of the points in each draw."""
    count = int(labels.max()) + 1
    for _ in range(n):
        for _attempt in range(100):
            weights = rng.multinomial(count, np.full(count, 1 / count))[labels].astype(np.float64)
            if np.count_nonzero(weights) >= parameters:
                break
        yield weights


def _leave_out(labels: NDArray[np.int64], seed: int) -> Iterator[Array]:
    """Weights of the jackknife: each group 0 in turn; many groups are first joined to blocks at random."""
    count = int(labels.max()) + 1
    blocks = np.arange(count)
    if count > BLOCKS:
        blocks = np.random.default_rng(seed).permutation(count) % BLOCKS
    for block in range(int(blocks.max()) + 1):
        yield (blocks[labels] != block).astype(np.float64)


def _refit_all(problem: Problem, solution: Solution, weights: Array, workers: int) -> tuple[Array, Array]:
    """Best refit at each row of weights: (thetas, objectives)."""
    starts = _refit_starts(problem, solution)

    def some(part: Array) -> tuple[Array, Array]:
        refit = Newton(problem).refit if isinstance(problem.law, SumLaw) else GeneralNewton(problem).refit
        ends = [refit(starts, row) for row in part]
        return np.array([theta for theta, _ in ends]), np.array([value for _, value in ends])

    workers = min(workers, len(weights))
    if workers <= 1:
        return some(weights)
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(some, np.array_split(weights, workers)))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _refit_starts(problem: Problem, solution: Solution) -> Array:
    """The best optima of the fit."""
    near = [theta for theta in solution.basins[:BASINS] if problem.value(theta) <= NEAR * solution.objective]
    return np.array([solution.theta, *near[1:]])


def _columns(law: Law, thetas: Array) -> dict[str, Array]:
    named = [law.natural(theta) for theta in thetas]
    return {name: np.array([one[name] for one in named]) for name in law.parameters}


def _values(law: Law, thetas: Array, statistic: str | Statistic) -> Array:
    if isinstance(statistic, str):
        if statistic not in law.parameters:
            raise UserError(f"statistic={statistic}: allowed are {', '.join(law.parameters)}, or a function of them")
        name = statistic
        return np.array([law.natural(theta)[name] for theta in thetas])
    return np.array([_number(statistic(law.natural(theta))) for theta in thetas])


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
