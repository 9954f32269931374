"""The run to train next: the one that tells most, for its FLOPs, about a prescription or the loss of a larger model.

    score = ln(variance of the target / its variance by refits that include the candidate) / sqrt(FLOPs of the candidate)

The target is the logarithm of the best size for a budget, or of the loss of a size. Each refit gives the runs random weights
and draws the centres of the law's priors again, so that a parameter that the runs do not identify varies as much as it is
unknown. A candidate enters each refit with the losses that the fit predicts and the noise of a run. All candidates share the
same weights, prior draws and noise, so that these draws cause no differences between candidates.

The logarithm is the information gained (about a normal target). The difference of the variances would not work: if little is
known, every cheap run removes half of the variance and no run can remove more than all of it, so the cheapest run would
always win, however far from the target.

Source: Rubin 1981 (weights of the runs); Lindley 1956 (the information provided by an experiment).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.bootstrap import drawn_priors
from shapelaw.fitting.objective import Penalty
from shapelaw.fitting.result import FitResult
from shapelaw.fitting.ridge import break_ties, find_ridge
from shapelaw.fitting.solve import solve
from shapelaw.fitting.solvers import search_of
from shapelaw.fitting.spec import FitData, FitSpec, spec_of
from shapelaw.laws import SumLaw
from shapelaw.laws.fixed import expanded
from shapelaw.prescribe.candidates import Cadence, Candidates, rows_of
from shapelaw.prescribe.goals import SpendBudget
from shapelaw.prescribe.search import SizeSearch
from shapelaw.prescribe.surface import Surface
from shapelaw.prescribe.world import Points
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]

DRAWS = 40
"""Refits of each candidate."""
NOISES = (np.arange(8) + 0.5) / 8
"""Equally likely quantiles of a run's residuals."""
SMALLEST = 1e-12
"""Standard deviation that counts as zero."""
INFORMS = 0.02
"""Least share of the target's variance that the best candidate must remove."""


class Target(Protocol):
    """The quantity to learn about."""

    @property
    def told(self) -> str:
        """In words."""

    def values(self, thetas: Array) -> Array:
        """Its logarithm under parameter vectors (k, p), each (k,)."""


@dataclass(frozen=True)
class LossOf:
    """The loss of a size and token count.

    Args:
        fit: fit of the law.
        point: one size.
        tokens: its training tokens.
    """

    fit: FitResult
    point: Points
    tokens: float

    @property
    def told(self) -> str:
        """In words."""
        if self.point.width is None or self.point.depth is None:
            size = f"{self.point.params[0]:.4g} parameters"
        else:
            size = f"{self.point.width[0]:.0f}x{self.point.depth[0]:.0f}"
        return f"the loss of {size} at {self.tokens:.4g} tokens"

    def values(self, thetas: Array) -> Array:
        """Log loss."""
        law = Surface.of(self.fit, refits=False, given=self.point.given).law
        loss = Surface(law, thetas).at(self.point).loss(np.array([[np.log(self.tokens)]]))
        return np.asarray(np.log(loss[:, 0]))


@dataclass(frozen=True)
class BestSize:
    """The best size for a budget.

    Args:
        search: search over sizes, with whole shapes relaxed to real-valued ones.
        budget: budget in the unit of its cost.
    """

    search: SizeSearch
    budget: float

    @property
    def told(self) -> str:
        """In words."""
        return f"the best size for {self.budget:.4g} {self.search.cost.words}"

    def values(self, thetas: Array) -> Array:
        """Log params."""
        fit = dataclasses.replace(self.search.fit, refits=tuple(map(tuple, thetas)), replicates={})
        found = self.search.replaced(fit=fit, intervals=True).search(SpendBudget(self.budget))
        return np.asarray(np.log(found.points.params[1:]))


@dataclass(frozen=True)
class NextRun:
    """A run to train.

    Args:
        candidates: all compared candidates.
        place: index of this run among them.
        before, after: standard deviation of the target's logarithm without it, and with each candidate, (n,).
        scores: score of each candidate, (n,).
    """

    candidates: Candidates
    place: int
    before: float
    after: Array
    scores: Array

    @property
    def best(self) -> Candidates:
        """The run."""
        return self.candidates.take(np.array([self.place]))


@dataclass(frozen=True)
class Draws:
    """The inputs that differ between refits, one row per refit.

    Args:
        weights: weights of the fitted rows, (k, n).
        log_loss: log loss of the rows, (k, n); with noise for a candidate that counts as trained.
        priors: the law's priors; None for laws without any.
        noise: deviation of a further run's log loss from the law's prediction, (k,).
        starts: starts of each refit, (k, starts, p).
    """

    weights: Array
    log_loss: Array
    priors: Sequence[Penalty | None]
    noise: Array
    starts: Array


def plan(
    fit: FitResult,
    runs: RunsTable,
    candidates: Candidates,
    target: Target,
    count: int = 1,
    seconds: float = math.inf,
) -> list[NextRun]:
    """The runs to train next; for each choice, the earlier ones count as trained.

    The result has fewer runs than `count` if no further candidate informs the target.

    Args:
        fit: fit of a law to the runs.
        runs: the fitted runs.
        candidates: runs that could be trained.
        target: the quantity to learn about.
        count: number of runs to choose.
        seconds: time limit for the comparison of all candidates.

    Raises:
        UserError: if no candidate informs the target, or the time is not enough.

    >>> import pandas as pd
    >>> from shapelaw import RunsTable, fit
    >>> from shapelaw.prescribe.candidates import feasible
    >>> from shapelaw.prescribe.limits import UNLIMITED
    >>> from shapelaw.prescribe.world import World
    >>> sizes = pd.DataFrame({"params": [1e8, 2e8, 4e8] * 3, "tokens": [1e9] * 3 + [4e9] * 3 + [16e9] * 3})
    >>> runs = RunsTable(sizes.assign(run=range(9), loss=1.5 + 400 / sizes.params**0.34 + 400 / sizes.tokens**0.28))
    >>> law = fit(runs)
    >>> world = World.of(law, runs)
    >>> large = LossOf(law, world.sizes([4e9]), 8e10)
    >>> chosen = plan(law, runs, feasible(world, runs, 1e20, UNLIMITED), large)[0]
    >>> bool(chosen.after[chosen.place] < chosen.before)
    True
    """
    until = time.monotonic() + seconds
    spec = _spec(fit)
    cadence, data = Cadence.of(runs), FitData.of(runs, spec)
    draws, theta, data = _draws(data, spec)
    chosen: list[NextRun] = []
    for _ in range(min(count, len(candidates))):
        refits = _refits(data, spec, draws, theta, candidates, cadence, until)
        found = _compared([expanded(data.law, thetas) for thetas in refits], candidates, target)
        share = 1.0 - float(np.min(found.after) / found.before) ** 2 if found.before > 0 else 0.0
        if not share >= INFORMS:
            if chosen:
                break
            raise UserError(
                f"target: none of {len(candidates)} candidates informs {target.told}: the best would reduce its "
                f"variance by only {max(share, 0.0):.1%}; give a larger budget, wider limits, or another target"
            )
        chosen.append(found)
        rows = rows_of(candidates, found.place, cadence)
        data, draws = _including(data, draws, theta, rows, cadence.weight, refits[1 + found.place])
        candidates = candidates.take(np.delete(np.arange(len(candidates)), found.place))
    return chosen


def _spec(fit: FitResult) -> FitSpec:
    """The spec of the fit, but with the compiled solver if the fit's own stops early."""
    delta = float(fit.settings.get("delta") or FitSpec().delta)
    return dataclasses.replace(spec_of(fit), delta=delta, ties=str(fit.settings.get("ties") or "priors"))


def _draws(data: FitData, spec: FitSpec) -> tuple[Draws, Array, FitData]:
    """The refits' weights, priors and noise; the fit's vector; and its rows."""
    found = solve(data, spec)
    ridge = find_ridge(data, spec, found)
    tied, solution = break_ties(data, spec, found, ridge)
    rng = np.random.default_rng(spec.seed)
    labels = np.unique(data.runs, return_inverse=True)[1]
    weights = rng.exponential(size=(DRAWS, labels.max() + 1))[:, labels]
    if data.weights is not None:
        weights = weights * data.weights
    residuals = data.residuals(solution.theta)[slice(None) if data.weights is None else data.weights > 0]
    runs = int(labels.max()) + 1
    widened = np.sqrt(runs / max(runs - len(solution.theta), 1))
    levels = np.quantile(residuals, NOISES) * widened
    noise = np.concatenate([rng.permutation(levels) for _ in range(-(-DRAWS // len(levels)))])[:DRAWS]
    log_loss = np.tile(np.log(data.loss), (DRAWS, 1))
    hears = bool(data.law.priors) and isinstance(data.law, SumLaw)
    priors = drawn_priors(data.law, ridge.penalty(data.law), DRAWS, rng) if hears else [None] * DRAWS
    starts = np.tile(np.vstack([solution.theta, *solution.basins[1:2]]), (DRAWS, 1, 1))
    draws = Draws(weights, log_loss, priors, noise, starts)
    thetas = _refit(tied, spec, draws, np.zeros((DRAWS, 0)))
    return dataclasses.replace(draws, starts=thetas[:, None]), np.asarray(solution.theta), data


def _refit(data: FitData, spec: FitSpec, draws: Draws, further: Array, weight: float = 1.0) -> Array:
    """theta of every refit, (k, p); the last rows of the data are a candidate's.

    Args:
        further: log losses of the candidate's rows, (k, rows).
        weight: weight of each of them.
    """
    search = search_of(spec.solver, data.problem(spec))
    log_loss = np.hstack([draws.log_loss, further])
    weights = np.hstack([draws.weights, np.full(further.shape, weight)])
    return np.array(
        [
            search.measuring(losses, prior).refit(start, row)[0]
            for losses, prior, start, row in zip(log_loss, draws.priors, draws.starts, weights, strict=True)
        ]
    )


def _refits(
    data: FitData, spec: FitSpec, draws: Draws, theta: Array, candidates: Candidates, cadence: Cadence, until: float
) -> list[Array]:
    """The refits without a candidate, and those that include each.

    Raises:
        UserError: if they are not done by `until`, a reading of the monotonic clock.
    """
    refits = [draws.starts[:, 0]]
    for i in range(len(candidates)):
        if time.monotonic() > until:
            raise UserError(
                f"time ran out after {i} of {len(candidates)} candidates; `shapelaw next` takes as long as it needs"
            )
        rows = rows_of(candidates, i, cadence)
        predicted = data.law.log_prediction(theta, rows)
        extended = _extended(data, rows, predicted)
        refits.append(_refit(extended, spec, draws, predicted + draws.noise[:, None], cadence.weight))
    return refits


def _compared(refits: Sequence[Array], candidates: Candidates, target: Target) -> NextRun:
    """Every candidate's score, from the refits without one and those that include it."""
    values = target.values(np.concatenate(refits)).reshape(len(refits), -1)
    spread = np.array([_deviation(row) for row in values])
    known = np.maximum(spread, SMALLEST)
    scores = 2.0 * np.log(known[0] / known[1:]) / np.sqrt(candidates.flops)
    return NextRun(candidates, int(np.argmax(scores)), float(spread[0]), spread[1:], scores)


def _deviation(values: Array) -> float:
    """Standard deviation; infinite if no refit has a value."""
    known = values[np.isfinite(values)]
    return float(known.std()) if len(known) > 1 else float("inf")


def _extended(data: FitData, rows: dict[str, Array], log_loss: Array) -> FitData:
    """The rows together with those of one more run."""
    columns = {name: np.concatenate([values, rows[name]]) for name, values in data.columns.items()}
    runs = np.concatenate([data.runs, np.full(len(log_loss), f"candidate {len(data.runs)}")])
    loss = np.concatenate([data.loss, np.exp(log_loss)])
    weights = None if data.weights is None else np.concatenate([data.weights, np.ones(len(log_loss))])
    return dataclasses.replace(data, columns=columns, loss=loss, runs=runs, weights=weights)


def _including(
    data: FitData, draws: Draws, theta: Array, rows: dict[str, Array], weight: float, refits: Array
) -> tuple[FitData, Draws]:
    """The rows and draws with a candidate counted as trained; the next candidate gets different noise."""
    predicted = data.law.log_prediction(theta, rows)
    further = predicted + draws.noise[:, None]
    return _extended(data, rows, predicted), dataclasses.replace(
        draws,
        weights=np.hstack([draws.weights, np.full(further.shape, weight)]),
        log_loss=np.hstack([draws.log_loss, further]),
        noise=np.roll(draws.noise, 1),
        starts=refits[:, None],
    )
