"""The compiled solver for sum laws: it translates a problem to the kernels' coordinates and back."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting.descent import Geometry, descend_all, scratch
from shapelaw.fitting.kernels import Data, additive
from shapelaw.fitting.multistart import BOUND_HIT, CONVERGED, Endpoints
from shapelaw.fitting.objective import Penalty, Problem
from shapelaw.fitting.solver import Search
from shapelaw.laws import LOG_FLOOR, SumLaw

Array = NDArray[np.float64]

UP_COEFFICIENT, DOWN_COEFFICIENT, STEP_EXPONENT = 1e3, 0.9, 0.1
"""Largest steps: a coefficient grows at most to 1001 times or falls to a tenth, an exponent moves by 0.1."""
EXPONENT_BOUND = 30.0
"""Largest magnitude of an exponent; one that reaches it is not identified."""
SAMPLE = 256
"""Points of the sample for the first stage, if the table has at least twice as many."""
LONG, LONG_SAMPLE = 100_000, 8192
"""Rows from which on a search descends on a sample first, and the rows of that sample."""
ONE_OPTIMUM = 1e-4
"""Relative difference of the sample's objectives up to which starts continue as one."""
REVIVED = -7.0
"""Least log of the (centred) coefficients at the start of a refit."""
LEAST_SQUARES = 1e9
"""The first delta: far above every residual."""
LOOSE, TIGHT, POLISHED = 1e-3, 1e-9, 1e-14
"""Relative decrease at which a stage before the last, a start, and a polished optimum count as converged."""
ITERATIONS_STAGE, ITERATIONS = 60, 300
"""Most iterations of a stage before the last, and at the target delta."""
LOG_BOUND = 600.0
"""Largest magnitude of exponent x log predictor, which keeps coefficients in natural units finite."""


@dataclass(frozen=True)
class Compiled:
    """A sum law's problem in the kernels' coordinates: phi = to_phi @ theta + shift (log E at the floor if none)."""

    problem: Problem
    law: SumLaw
    data: Data
    sample: Data | None
    """A random sample of a long table."""
    to_phi: Array
    shift: Array
    geometry: Geometry

    @classmethod
    def of(cls, problem: Problem) -> Compiled:
        """Centre the predictors, find each term's distinct points and set bounds and limits.

        Raises:
            TypeError: if the law is not a SumLaw.
        """
        law = problem.law
        if not isinstance(law, SumLaw):
            raise TypeError(f"law {law.name} is not a sum law")
        used = problem.weights > 0
        design = law.design({name: values[used] for name, values in problem.columns.items()})
        mean, offset_mean = design.features.mean(axis=1), design.offset.mean(axis=1)
        owner = np.array(design.owner, dtype=np.int64)
        features = np.array(design.features - mean[:, None], order="C")
        tables, offsets, sizes, places = _distinct(owner, features, design.offset - offset_mean[:, None])
        log_aspect = np.zeros(1) if design.log_aspect is None else np.array(design.log_aspect)
        centres, precisions = _penalties(law, [problem.prior])
        data = Data(
            law.places.power, law.places.aspect, owner, features, tables, offsets, sizes, places, log_aspect,
            problem.log_loss[used], problem.weights[used], centres[0], precisions[0], problem.over_cost,
        )  # fmt: skip
        k, p = len(law.terms), len(law.parameters)
        to_phi = np.eye(p + (law.irreducible is None), p)
        to_phi[owner, k + np.arange(len(owner))] = mean
        shift = np.zeros(len(to_phi))
        shift[:k] = offset_mean
        if law.irreducible is None:
            shift[-1] = LOG_FLOOR
        return cls(problem, law, data, _sampled(data), to_phi, shift, _geometry(law, design.features, shift))

    def phi(self, thetas: Array) -> Array:
        """Kernel coordinates of each row of thetas."""
        return np.array(thetas @ self.to_phi.T + self.shift, order="C")

    def theta(self, phis: Array) -> Array:
        """The law's vectors of each row of phis."""
        p = self.to_phi.shape[1]
        # to_phi is unit upper triangular (its last row is zero for a law without E)
        return np.asarray(np.linalg.solve(self.to_phi[:p], (phis - self.shift)[:, :p].T).T, dtype=np.float64)

    def constrained(self, row: Array, target: float) -> Compiled:
        """The problem with the free coordinate on which row @ theta depends most as a function of the others."""
        p, geometry = self.to_phi.shape[1], self.geometry
        slope = np.linalg.solve(self.to_phi[:p].T, row)
        along = slope @ geometry.basis[:p]
        level = target + float(slope @ self.shift[:p]) - float(slope @ geometry.origin[:p])
        # a term too small to matter is given by its coefficient: to follow it, an exponent would have to leave its bounds
        coefficients = np.abs(along) * geometry.linear[geometry.free]
        pivot = int(np.argmax(coefficients if target < LOG_FLOOR and coefficients.any() else np.abs(along)))
        others = np.arange(len(along)) != pivot
        direction = geometry.basis[:, pivot] / along[pivot]
        basis = geometry.basis[:, others] - np.outer(direction, along[others])
        changed = geometry._replace(
            basis=np.ascontiguousarray(basis),
            origin=geometry.origin + direction * level,
            free=geometry.free[others],
            plain=False,
        )
        return replace(self, geometry=changed)

    def at_bound(self, phis: Array) -> NDArray[np.bool_]:
        """Whether an exponent, the power or mu of each row sits at its bound; (S,)."""
        free = ~self.geometry.linear
        return np.asarray(((phis <= self.geometry.low) | (phis >= self.geometry.high))[:, free].any(axis=1))


def _penalties(law: SumLaw, priors: Sequence[Penalty | None]) -> tuple[Array, Array]:
    """(centres, precisions) of priors in phi, each (R, P); phi differs from theta only in the coefficients, which have no
    prior."""
    size, terms = len(law.parameters) + (law.irreducible is None), len(law.terms)
    centres, precisions = np.zeros((len(priors), size)), np.zeros((len(priors), size))
    for i, prior in enumerate(priors):
        if prior is not None:
            centres[i, : len(prior.centre)], precisions[i, : len(prior.centre)] = prior
    precisions[:, :terms] = 0.0
    return centres, precisions


def _sampled(data: Data) -> Data | None:
    points = len(data.log_loss)
    if points < 2 * SAMPLE:
        return None
    chosen = np.sort(np.random.default_rng(0).choice(points, SAMPLE, replace=False))
    return data._replace(
        features=np.ascontiguousarray(data.features[:, chosen]),
        places=np.ascontiguousarray(data.places[:, chosen]),
        log_aspect=data.log_aspect[chosen] if data.aspect >= 0 else data.log_aspect,
        log_loss=data.log_loss[chosen],
        weights=data.weights[chosen],
    )


def _distinct(
    owner: NDArray[np.int64], features: Array, offset: Array
) -> tuple[Array, Array, NDArray[np.int64], NDArray[np.int32]]:
    """Distinct points of each term: (tables (M, U), offsets (K, U), sizes (K,), places (K, n))."""
    columns, places = [], []
    for j in range(len(offset)):
        rows = np.vstack([features[owner == j], offset[j : j + 1]])
        distinct, place = np.unique(rows, axis=1, return_inverse=True)
        columns.append(distinct)
        places.append(place.ravel())
    widest = max(rows.shape[1] for rows in columns)
    tables, offsets = np.zeros((len(owner), widest)), np.zeros((len(offset), widest))
    for j, rows in enumerate(columns):
        tables[np.flatnonzero(owner == j), : rows.shape[1]] = rows[:-1]
        offsets[j, : rows.shape[1]] = rows[-1]
    sizes = np.array([rows.shape[1] for rows in columns], dtype=np.int64)
    return tables, offsets, sizes, np.array(places, dtype=np.int32)


def _geometry(law: SumLaw, raw_features: Array, shift: Array) -> Geometry:
    """Free coordinates, bounds and step limits of a law."""
    k, m, size = len(law.terms), len(raw_features), len(shift)
    linear = np.zeros(size, dtype=np.bool_)
    linear[:k] = True
    linear[-1] = True
    low, high = np.full(size, -EXPONENT_BOUND), np.full(size, EXPONENT_BOUND)
    reach = np.minimum(EXPONENT_BOUND, LOG_BOUND / np.abs(raw_features).max(axis=1))
    low[k : k + m], high[k : k + m] = -reach, reach
    low[:k], high[:k] = LOG_FLOOR, -LOG_FLOOR
    low[-1], high[-1] = LOG_FLOOR, -LOG_FLOOR
    up, down = np.full(size, STEP_EXPONENT), np.full(size, STEP_EXPONENT)
    up[linear], down[linear] = UP_COEFFICIENT, DOWN_COEFFICIENT
    power, aspect, _ = law.places
    if law.power:
        low[power] = 1e-3
    if law.aspect:
        up[aspect], down[aspect] = 1.0, 1.0
        low[aspect], high[aspect] = -20.0, 5.0
        up[aspect + 1], down[aspect + 1] = 0.3, 0.3
    free = np.arange(size - (law.irreducible is None), dtype=np.int64)
    basis = np.eye(size)[:, free]
    origin = np.zeros(size)
    if law.irreducible is None:
        origin[-1] = LOG_FLOOR
    return Geometry(np.array(basis, order="C"), origin, free, len(free) == size, linear, low, high, up, down)


def schedule(delta: float) -> Array:
    """Rows (delta, tolerance, iterations): least squares, powers of ten from 1e-2 down to above delta, then delta."""
    falling = [LEAST_SQUARES] + [10.0**-i for i in range(2, 300) if 10.0**-i > delta * (1 + 1e-9)]
    before = [(value, LOOSE, ITERATIONS_STAGE) for value in falling if value > delta]
    return np.array([*before, (delta, TIGHT, ITERATIONS)])


def _descended(
    phis: Array, weights: Array, centres: Array, precisions: Array, data: Data, geometry: Geometry, stages: Array
) -> tuple[Array, NDArray[np.int64]]:
    """`descend_all` with its own memory: phis (R, S, P) move in place; returns (objectives, statuses), each (R, S)."""
    values, statuses = np.full(phis.shape[:2], np.inf), np.zeros(phis.shape[:2], dtype=np.int64)
    memory = scratch(data, geometry, thinned=not weights.all())
    whole = None if additive(data) else True
    weights = np.ascontiguousarray(weights)
    descend_all(phis, weights, centres, precisions, data, geometry, np.array(stages), memory, values, statuses, whole)
    return values, statuses


class Newton(Search):
    """Compiled search of a sum law's problem."""

    improves = True

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.compiled = Compiled.of(problem)
        self.stages = schedule(problem.delta)

    def constrained(self, row: Array, target: float) -> Newton:
        """The same problem on the hyperplane row @ theta == target."""
        other = copy(self)
        other.compiled = self.compiled.constrained(row, target)
        return other

    def measuring(self, log_loss: Array, prior: Penalty | None) -> Newton:
        """The same rows with other log losses and priors, without another search for their distinct points."""
        other, law = copy(self), self.compiled.law
        other.problem = replace(self.problem, log_loss=log_loss, prior=prior)
        centres, precisions = _penalties(law, [prior])
        data = self.compiled.data._replace(
            log_loss=log_loss[self.problem.weights > 0], centre=centres[0], precision=precisions[0]
        )
        other.compiled = replace(self.compiled, problem=other.problem, data=data, sample=_sampled(data))
        return other

    def follow(self, thetas: Array) -> Endpoints:
        """Continuation in delta from every row; the first, least-squares stage on a sample of a long table."""
        if len(self.compiled.data.log_loss) >= LONG and self.compiled.geometry.plain:
            return self._follow_long(thetas)
        phis = self._phis(thetas)
        stages = self.stages
        if self.compiled.sample is not None and len(stages) > 1:
            self._descend(phis, self.compiled.sample, stages[:1])
            stages = stages[1:]
        return self._finish(phis, stages)

    def _follow_long(self, thetas: Array) -> Endpoints:
        """The whole continuation on a sample, then the last stages on all rows from each optimum found."""
        problem = self.problem
        used = np.flatnonzero(problem.weights > 0)
        rows = np.sort(np.random.default_rng(0).choice(used, LONG_SAMPLE, replace=False))
        columns = {name: np.asarray(values)[rows] for name, values in problem.columns.items()}
        sampled = replace(problem, columns=columns, log_loss=problem.log_loss[rows], weights=problem.weights[rows])
        found = Newton(sampled).follow(thetas)
        order = np.argsort(found.objectives, kind="stable")
        apart = np.diff(found.objectives[order]) > ONE_OPTIMUM * found.objectives[order][:-1]
        optimum = np.empty(len(order), dtype=np.int64)
        optimum[order] = np.concatenate([[0], np.cumsum(apart)])
        first = order[np.concatenate([[True], apart])]
        delta = self.stages[-1, 0]
        stages = np.array([(10 * delta, LOOSE, ITERATIONS_STAGE), (delta, TIGHT, ITERATIONS)])
        return self._finish(self._phis(found.thetas[first]), stages).take(optimum)

    def polish(self, thetas: Array) -> Endpoints:
        """Newton at the target delta alone, to rounding."""
        return self._finish(self._phis(thetas), np.array([[self.stages[-1, 0], POLISHED, ITERATIONS]]))

    def held(self, row: Array, target: float, thetas: Array) -> tuple[Array, float]:
        """Best optimum with row @ theta == target, from every row of thetas: (theta, objective)."""
        return self.constrained(row, target).refit(thetas, self.problem.weights)

    def refit(self, thetas: Array, weights: Array) -> tuple[Array, float]:
        """One refit, as by `refits`."""
        found, objectives = self.refits(thetas, np.asarray(weights, dtype=np.float64)[None], [self.problem.prior])
        return found[0], float(objectives[0])

    def refits(self, thetas: Array, weights: Array, priors: Sequence[Penalty | None]) -> tuple[Array, Array]:
        """Best optimum at each row of multiplicities, all of them in one compiled loop.

        Continues from ten times delta; coefficients at zero are raised first, since no multiplicative step could raise them.
        Points whose weight was zero from the start are ignored.
        """
        phis = self._phis(thetas)
        geometry = self.compiled.geometry
        alive = geometry.free[geometry.linear[geometry.free]]
        phis[:, alive] = np.maximum(phis[:, alive], REVIVED)
        phis = geometry.origin + phis[:, geometry.free] @ geometry.basis.T
        delta = self.stages[-1, 0]
        stages = np.array([(10 * delta, LOOSE, ITERATIONS_STAGE), (delta, TIGHT, ITERATIONS)])
        ends = np.tile(phis, (len(weights), 1, 1))
        used = self.problem.weights > 0
        weights = weights if used.all() else weights[:, used]
        expected = _penalties(self.compiled.law, priors)
        values, _ = _descended(ends, weights, *expected, self.compiled.data, geometry, stages)
        best = np.argmin(values, axis=1)
        every = np.arange(len(best))
        return self.compiled.theta(ends[every, best]), values[every, best]

    def hop(self, theta: Array, sigma: float, count: int, rng: np.random.Generator) -> Array:
        """`count` random neighbours of theta, sigma away in every centred coordinate."""
        phi = self._phis(theta[None])
        return self.compiled.theta(phi + sigma * rng.standard_normal((count, phi.shape[1])))

    def _phis(self, thetas: Array) -> Array:
        geometry = self.compiled.geometry
        phis = np.clip(self.compiled.phi(thetas), geometry.low, geometry.high)
        return (
            phis
            if geometry.plain
            else np.ascontiguousarray(geometry.origin + phis[:, geometry.free] @ geometry.basis.T)
        )

    def _descend(self, phis: Array, data: Data, stages: Array) -> tuple[Array, NDArray[np.int64]]:
        each = phis[None], data.weights[None], data.centre[None], data.precision[None]
        values, statuses = _descended(*each, data, self.compiled.geometry, stages)
        return values[0], statuses[0]

    def _finish(self, phis: Array, stages: Array) -> Endpoints:
        values, statuses = self._descend(phis, self.compiled.data, stages)
        statuses[(statuses == CONVERGED) & self.compiled.at_bound(phis)] = BOUND_HIT
        return Endpoints(self.compiled.theta(phis), values, statuses)
