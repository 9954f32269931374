"""Refits of resampled data, by runs (clusters) or by rows, and intervals of any function of the parameters.

Points of one run share its noise (on the published data four fifths of the residual variance lie between runs), so
resampling rows makes intervals several times too narrow; resampling runs is the default.

Source: Davison and Hinkley 1997, section 3.8 (resampling of clusters); Efron 1987 (BCa).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from shapelaw.config import BootstrapOptions
from shapelaw.config.option import check_option
from shapelaw.errors import UserError
from shapelaw.fitting import intervals
from shapelaw.fitting.objective import Penalty, Problem
from shapelaw.fitting.progress import EVERY_SECONDS, Progress
from shapelaw.fitting.solve import Solution, solve
from shapelaw.fitting.solvers import search_of
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.laws import Law

Array = NDArray[np.float64]
Statistic = Callable[[Mapping[str, float]], float | None]
"""A function of the natural parameters; None if it is undefined."""

BLOCKS = 200
"""Most groups of the jackknife by rows: longer tables leave out blocks of rows."""
BASINS = 3
"""Distinct optima of the fit that every refit starts from."""
AT_ONCE = 16
"""Refits between two updates of the progress."""
NEAR = 2.0
"""Only optima with an objective of at most this many times the best are worth a start."""


@dataclass(frozen=True)
class Bootstrap:
    """Refits of resampled data.

    A draw with fewer distinct points than the law has parameters could not be fitted, so it is repeated.
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
    def _natural(self) -> list[dict[str, float]]:
        return [self.law.natural(theta) for theta in self.thetas]

    @cached_property
    def draws(self) -> dict[str, Array]:
        """Natural parameters of every refit, each (n,)."""
        return {name: np.array([parameters[name] for parameters in self._natural]) for name in self.law.parameters}

    def values(self, statistic: str | Statistic) -> Array:
        """A statistic of every refit, (n,): the name of a parameter, or a function of the natural parameters."""
        return _values(self.law, self._natural, statistic)

    def interval(self, statistic: str | Statistic, level: float = 0.9, kind: str = "percentile") -> tuple[float, float]:
        """Interval of a scalar function of the parameters.

        Args:
            statistic: name of a parameter, or a function of the natural parameters (a mapping name -> value).
            level: share of the refits inside.
            kind: `percentile`; `expanded`, the percentile interval at a level raised as far as Student's t is wider than
                the normal for this number of groups (Hesterberg 2015, section 5.3: few clusters make percentiles too
                narrow); or `bca`, bias-corrected and accelerated, with the skew from leaving each run out in turn.

        Raises:
            UserError: for an unknown kind, a level outside (0, 1), or a statistic that no refit defines.
        """
        check_option(BootstrapOptions, "kind", kind)
        check_option(BootstrapOptions, "level", level)
        values = self.values(statistic)
        values = values[np.isfinite(values)]
        if not len(values):
            raise UserError("the statistic is not finite in any refit; choose one that the law defines")
        if kind == "percentile":
            return intervals.percentile(values, level)
        if kind == "expanded":
            return intervals.percentile(values, expanded_level(level, len(self.jackknife)))
        estimate = float(_values(self.law, [self.law.natural(self.estimate)], statistic)[0])
        without = [self.law.natural(theta) for theta in self.jackknife]
        return intervals.bca(values, level, estimate, _values(self.law, without, statistic))

    def covariance(self) -> Array:
        """Covariance of the natural parameters over the refits, (p, p)."""
        with np.errstate(over="ignore", invalid="ignore"):  # squares of coefficients near the largest number: no number
            return np.atleast_2d(np.cov(np.stack([self.draws[name] for name in self.law.parameters])))


def expanded_level(level: float, groups: int) -> float:
    """Level at which normal quantiles equal Student's for `groups` groups, times sqrt(groups / (groups - 1))."""
    if groups < 2:
        return level
    quantile = float(scipy.special.stdtrit(groups - 1, (1 + level) / 2)) * np.sqrt(groups / (groups - 1))
    return float(2 * scipy.special.ndtr(quantile) - 1)


def bootstrap(data: FitData, spec: FitSpec, solution: Solution | None = None) -> Bootstrap:
    """Refit resampled data sets, each from the best optima of the fit.

    Args:
        data: rows as the law reads them.
        spec: bootstrap (n, by, workers; its defaults if None), delta, solver and seed are read.
        solution: the fit to the data themselves; None computes it.

    Raises:
        UserError: for input that cannot be fitted, runs of another length than the rows, or a single run.
    """
    wanted, solution = spec.bootstrap or BootstrapOptions(), solution or solve(data, spec)
    thetas, objectives = resampled(data, spec, solution)
    problem, labels = data.problem(spec), groups_of(data, wanted)
    left_out = np.array(list(_leave_out(labels, spec.seed)))
    priors = [problem.prior] * len(left_out)
    left_out, _ = _refit_all(problem, spec, _refit_starts(problem, solution), wanted.workers, left_out, priors)
    return Bootstrap(data.law, np.asarray(solution.theta), thetas, objectives, left_out, wanted.by, spec.seed)


def resampled(data: FitData, spec: FitSpec, solution: Solution | None = None) -> tuple[Array, Array]:
    """The refits of `bootstrap` alone, without those that leave each run out: their thetas (n, p) and objectives (n,)."""
    wanted, problem = spec.bootstrap or BootstrapOptions(), data.problem(spec)
    solution, labels = solution or solve(data, spec), groups_of(data, wanted)
    rng = np.random.default_rng(spec.seed)
    weights = np.array(list(resamples(labels, wanted.n, len(data.law.parameters), rng)), dtype=np.float64)
    priors = _expectations(problem, wanted.n, spec.seed)
    return _refit_all(problem, spec, _refit_starts(problem, solution), wanted.workers, weights, priors)


def groups_of(data: FitData, wanted: BootstrapOptions) -> NDArray[np.int64]:
    """The group of each row that is resampled as one."""
    labels = _labels(data.runs, len(data.loss)) if wanted.by == "runs" else np.arange(len(data.loss))
    if labels.max() < 1:
        raise UserError("a single run cannot be resampled by runs; give by=rows, or the run of each point")
    return labels


def _labels(runs: ArrayLike, points: int) -> NDArray[np.int64]:
    labels = np.asarray(runs)
    if labels.shape != (points,):
        raise UserError(f"groups has shape {labels.shape}; give the run of each of the {points} points")
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64).ravel()


def resamples(
    labels: NDArray[np.int64], n: int, parameters: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Multiplicities of the points in each draw."""
    count = int(labels.max()) + 1
    chances = np.full(count, 1 / count)
    for _ in range(n):
        for _attempt in range(100):
            weights = rng.multinomial(count, chances)[labels]
            if np.count_nonzero(weights) >= parameters:
                break
        yield weights


def _leave_out(labels: NDArray[np.int64], seed: int) -> Iterator[Array]:
    """Weights of the jackknife: each group in turn gets 0; many groups are first joined into random blocks."""
    count = int(labels.max()) + 1
    blocks = np.arange(count)
    if count > BLOCKS:
        blocks = np.random.default_rng(seed).permutation(count) % BLOCKS
    for block in range(int(blocks.max()) + 1):
        yield (blocks[labels] != block).astype(np.float64)


def _expectations(problem: Problem, n: int, seed: int) -> list[Penalty | None]:
    """The priors that break ties in each refit, each with centres drawn from the law's priors.

    Refits then spread as far as the data allow, instead of all ending at the centre of a prior.
    """
    if problem.prior is None:
        return [None] * n
    return drawn_priors(problem.law, problem.prior, n, np.random.default_rng([seed, n]))


def drawn_priors(law: Law, prior: Penalty, n: int, rng: np.random.Generator) -> list[Penalty | None]:
    """A law's priors around centres drawn from these priors, n times."""
    sds = np.array([law.priors[name].sd if name in law.priors else 0.0 for name in law.parameters])
    return [Penalty(prior.centre + sds * rng.standard_normal(len(sds)), prior.precision) for _ in range(n)]


def _refit_all(
    problem: Problem, spec: FitSpec, starts: Array, workers: int, weights: Array, priors: Sequence[Penalty | None]
) -> tuple[Array, Array]:
    """Best refit for each row of weights and its prior: (thetas, objectives)."""

    def some(part: NDArray[np.intp], progress: Progress) -> tuple[Array, Array]:
        search, found = search_of(spec.solver, problem), []
        for few in np.split(part, range(AT_ONCE, len(part), AT_ONCE)):
            found.append(search.refits(starts, weights[few] * problem.weights, [priors[i] for i in few]))
            progress.step(len(few))
        thetas, objectives = zip(*found, strict=True)
        return np.concatenate(thetas), np.concatenate(objectives)

    workers, places = min(workers, len(weights)), np.arange(len(weights))
    with Progress(len(weights), "refits") as progress:
        if workers <= 1:
            return some(places, progress)
        with ThreadPoolExecutor(workers) as pool:
            parts = [pool.submit(some, part, progress) for part in np.array_split(places, workers)]
            while wait(parts, EVERY_SECONDS).not_done:
                progress.show()
            found = [part.result() for part in parts]
    return np.concatenate([p[0] for p in found]), np.concatenate([p[1] for p in found])


def _refit_starts(problem: Problem, solution: Solution) -> Array:
    """The best optima of the fit."""
    near = [theta for theta in solution.basins[:BASINS] if problem.value(theta) <= NEAR * solution.objective]
    return np.array([solution.theta, *near[1:]])


def _values(law: Law, natural: Sequence[Mapping[str, float]], statistic: str | Statistic) -> Array:
    if isinstance(statistic, str):
        if statistic not in law.parameters:
            raise UserError(
                f"statistic={statistic}: allowed values are {', '.join(law.parameters)}, or a function of them"
            )
        name = statistic
        return np.array([parameters[name] for parameters in natural])
    return np.array([_number(statistic(parameters)) for parameters in natural])


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
