"""Ridges: parameters that can move far while the law fits as well as before, and how such ties are broken.

A parameter lies on a ridge if the data say less about it than its weak prior does (`Law.priors`): either the weighted
Jacobian at the optimum has no rank in its direction, or the profile stays below its likelihood-ratio cut (`profile`, with runs
as independent points) over a stretch as wide as the prior's own 90% interval. Refits stay where they started on such a ridge,
so their spread means nothing.

The priors themselves break ties, as a normal prior at the noise of the runs. They do not affect a fit without a ridge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from shapelaw.fitting.objective import Penalty, Problem
from shapelaw.fitting.profile import likelihood_rise
from shapelaw.fitting.solve import Solution
from shapelaw.fitting.solver import Search
from shapelaw.fitting.solvers import newton, search_of
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.laws import EXPONENT, Law, Prior
from shapelaw.laws.choices import MedianLaw
from shapelaw.laws.fixed import sum_of

Array = NDArray[np.float64]

REACH = 1.645
"""Standard deviations of a prior on each side that hold 90% of it."""
SURE = 0.25
"""Standard error, as a share of the prior's, below which a parameter is identified without checking its profile."""
SINGULAR = 1e-6
"""Singular value of the Jacobian with unit columns, as a share of the largest, below which a direction has no rank."""
HEAVY = 0.01
"""Share of the largest part of such a direction from which a parameter is named."""
PRECISION = 1e-5
"""Log residual below which errors come from rounding and the form, not from the runs."""
LEVEL = 0.9
STRETCHES = ((-1.0, 1.0), (-0.5, 1.5), (-1.5, 0.5), (0.0, 2.0), (-2.0, 0.0))
"""Positions, around the optimum, of stretches as wide as 90% of a prior, in halves of their width."""
REVIVED_SHARE = 1e-3
"""Least share of the smallest loss for E in the search for ridges."""
DEAD_SHARE = 1e-6
"""A term (or E) that is nowhere more than this share of the loss is dead; its parameters lie on no ridge."""
FARTHEST = {"coefficient": float(np.log(2.0)), "irreducible": 0.1, EXPONENT: 0.1}
"""How far a quantity without a prior may move along a ridge (coefficients and E in logarithms) and count as identified."""


@dataclass(frozen=True)
class Ridge:
    """The quantities that the data do not identify.

    Args:
        names: parameters, and the compute-optimal exponent, that are not identified.
        vectors: theta of laws that fit as well, as far apart as the search went, (k, p).
        scale: noise of the runs: the objective per independent run.
        starts: theta with a parameter of the ridge at its prior's centre, (m, p).
    """

    names: tuple[str, ...]
    vectors: Array
    scale: float
    starts: Array

    def penalty(self, law: Law) -> Penalty:
        """The law's priors in units of the objective."""
        expected = [law.priors.get(name) for name in law.parameters]
        centre = np.array([0.0 if one is None else one.centre for one in expected])
        precision = np.array([0.0 if one is None else self.scale / one.sd**2 for one in expected])
        return Penalty(centre, precision)


def noise_scale(problem: Problem, theta: Array, runs: int) -> float:
    """s of the likelihood exp(-objective/s) for this number of independent runs, less one degree of freedom per parameter.

    The objective per run times k = sum r psi(r) / objective, which is 2 for residuals below delta and 1 far above.
    """
    residual, independent = problem.residuals(theta), max(runs - len(theta), 1)
    return max(float(np.sum(residual * problem.slopes(residual))), _least(problem)) / independent


def _least(problem: Problem) -> float:
    """Noise of all rows together that rounding alone causes."""
    return min(PRECISION, problem.delta) * PRECISION * float(problem.weights.sum())


def find_ridge(data: FitData, spec: FitSpec, solution: Solution) -> Ridge:
    """The ridge of a fit.

    Args:
        data: rows without a prior.
        solution: the fit; if its solver stops early, the search for a ridge starts from the true optimum below it.
    """
    problem, law = data.problem(spec), data.law
    if isinstance(law, MedianLaw):  # its members were chosen among laws that the data identify
        return Ridge((), _rows([], law), 0.0, _rows([], law))
    if not search_of(spec.solver, problem).improves:
        theta, objective = newton(problem).polish(solution.theta[None]).best
        solution = dataclasses.replace(solution, theta=theta, objective=objective)
    scale = noise_scale(problem, solution.theta, len(np.unique(data.runs)))
    suspects, flat = _suspects(problem, solution.theta, scale)
    if not suspects and not flat:
        return Ridge((), _rows([], law), scale, _rows([], law))
    walk = _Walk(newton(problem), solution, _cut(problem, solution, len(np.unique(data.runs))))
    ends = {name: list(walk.ends(name)) for name in dict.fromkeys((*suspects, *flat))}
    ends = {name: reached for name, reached in ends.items() if reached or name in flat}
    vectors = _rows([end for reached in ends.values() for end in reached], law)
    moved = _moved(law, np.vstack([solution.theta, vectors])) if len(vectors) else set()
    names = tuple(name for name in (*law.parameters, EXPONENT) if name in {*ends, *moved})
    return Ridge(names, vectors, scale, _rows([walk.expected(name) for name in ends if name in law.priors], law))


def _cut(problem: Problem, solution: Solution, runs: int) -> float:
    """Objective below which a law fits as well: at the end of the profiles' likelihood interval, so that both agree on what is
    identified; above rounding if the runs have no noise."""
    rise = solution.objective * likelihood_rise(problem, solution, LEVEL, runs)
    rounding = 0.5 * float(scipy.special.chdtri(1, 1 - LEVEL)) * _least(problem) / max(runs - len(solution.theta), 1)
    return solution.objective + max(rise, rounding)


def _rows(thetas: list[Array], law: Law) -> Array:
    return np.array(thetas).reshape(-1, len(law.parameters))


def break_ties(data: FitData, spec: FitSpec, solution: Solution, ridge: Ridge) -> tuple[FitData, Solution]:
    """The rows and the fit with the law's priors if something lies on a ridge; otherwise unchanged.

    The objective stays that of the optimum. A law that is not a sum of powers is left unchanged, and so is a fit by a
    solver that stops early.
    """
    tied = dataclasses.replace(data, prior=ridge.penalty(data.law))
    problem = tied.problem(spec)
    breakable = bool(data.law.priors) and sum_of(data.law) is not None and search_of(spec.solver, problem).improves
    if not ridge.names or not breakable or spec.ties == "optimum":
        return data, solution
    reached = newton(problem).follow(np.vstack([solution.basins[:3], ridge.vectors, ridge.starts]))
    theta, _ = newton(problem).polish(reached.best[0][None]).best
    basins = np.vstack([theta, ridge.vectors])
    return tied, dataclasses.replace(solution, theta=theta, basins=basins)


def _suspects(problem: Problem, theta: Array, scale: float) -> tuple[list[str], list[str]]:
    """Parameters with a prior that may tell more than the data, and parameters in directions without rank."""
    law, theta = problem.law, _revived(problem, theta)
    jacobian = np.asarray(law.jacobian(theta, problem.columns))
    live = _alive(law, jacobian)
    weighted = jacobian[:, live] * np.sqrt(problem.damping(problem.residuals(theta)))[:, None]
    names, norms = [law.parameters[k] for k in live], np.linalg.norm(weighted, axis=0)
    if not len(names) or not np.isfinite(norms).all() or not (norms > 0).all():
        return [], [name for name, norm in zip(names, norms, strict=True) if not norm > 0]
    _, values, directions = np.linalg.svd(weighted / norms, full_matrices=False)
    without = np.abs(directions[values <= SINGULAR * values[0]])
    heavy = (without > HEAVY * without.max(axis=1, keepdims=True, initial=0.0)).any(axis=0)
    errors = _errors(values, directions, norms, [law.priors.get(name) for name in names], scale)
    doubtful = [name for name, error in zip(names, errors, strict=True) if error > SURE]
    return doubtful, [name for name, named in zip(names, heavy, strict=True) if named]


def _revived(problem: Problem, theta: Array) -> Array:
    """theta with a vanishing E raised a little, and a vanishing cost of the aspect ratio set to its prior: at that end of a
    ridge, everything else looks identified."""
    law, known = problem.law, sum_of(problem.law)
    raised = np.array(theta)
    if law.irreducible in law.log_parameters:
        place = law.parameters.index(str(law.irreducible))
        raised[place] = max(raised[place], float(problem.log_loss.min()) + np.log(REVIVED_SHARE))
    if known and known.aspect and set(known.aspect) <= set(law.parameters):
        places = [law.parameters.index(name) for name in known.aspect]
        share = np.abs(np.asarray(law.jacobian(theta, problem.columns))[:, places[0]]).max()
        if share <= DEAD_SHARE:
            raised[places] = [law.priors[name].centre for name in known.aspect]
    return raised


def _alive(law: Law, jacobian: Array) -> list[int]:
    """Indices of the parameters of terms that are somewhere a noticeable part of the loss; dead terms drop out."""
    shares = np.abs(jacobian).max(axis=0)
    dead = {
        name
        for name, share in zip(law.parameters, shares, strict=True)
        if name in law.log_parameters and share <= DEAD_SHARE
    }
    if known := sum_of(law):
        gone = {name for term in known.terms if term.coefficient in dead for name, _, _ in term.exponents}
        dead |= gone | (set(known.aspect) if known.aspect and known.aspect[0] in dead else set())
    return [k for k, name in enumerate(law.parameters) if name not in dead]


def _errors(values: Array, directions: Array, norms: Array, priors: list[Prior | None], scale: float) -> Array:
    """Standard error of each parameter, from data and prior, over that of its prior; 0 without a prior."""
    sds = np.array([np.inf if one is None else one.sd for one in priors])
    scaled = directions.T * values
    information = scaled @ scaled.T / scale + np.diag((norms * sds) ** -2.0)
    variance = np.diag(np.linalg.pinv(information, rcond=1e-14, hermitian=True)) / norms**2
    return np.where(np.isfinite(sds), np.sqrt(np.maximum(variance, 0.0)) / sds, 0.0)


@dataclass(frozen=True)
class _Walk:
    """Laws with one parameter held far from the optimum and everything else refitted."""

    search: Search
    solution: Solution
    cut: float

    def ends(self, name: str) -> Iterator[Array]:
        """The two ends of a stretch as wide as 90% of the prior over which the law fits as well; nothing if there is none."""
        law = self.search.problem.law
        prior = law.priors.get(name)
        if prior is None:
            return
        place, reach = law.parameters.index(name), REACH * prior.sd
        for low, high in STRETCHES:
            ends = [self._held(place, side * reach) for side in (low, high) if side]
            if all(objective <= self.cut for _, objective in ends):
                yield from (theta for theta, _ in ends)
                return

    def expected(self, name: str) -> Array:
        """The law with the parameter at its prior's centre."""
        law = self.search.problem.law
        place = law.parameters.index(name)
        return self._held(place, law.priors[name].centre - float(self.solution.theta[place]))[0]

    def _held(self, place: int, away: float) -> tuple[Array, float]:
        row = np.eye(len(self.solution.theta))[place]
        seeds = np.vstack([self.solution.theta, self.solution.basins[1:3]])
        return self.search.held(row, float(self.solution.theta[place]) + away, seeds)


def _moved(law: Law, thetas: Array) -> set[str]:
    """Quantities that move farther along the ridge than an identified one may."""
    span = dict(zip(law.parameters, np.ptp(thetas, axis=0), strict=True))
    out = set()
    for name, width in span.items():
        prior = law.priors.get(name)
        kind = "irreducible" if name == law.irreducible else "coefficient"
        limit = FARTHEST[kind] if prior is None else 2 * REACH * prior.sd
        out |= {name} if width >= limit else set()
    slopes = [law.compute_optimal_exponent(law.natural(theta)) for theta in thetas]
    known = [slope for slope in slopes if slope is not None]
    if known and (len(known) < len(slopes) or np.ptp(known) > FARTHEST[EXPONENT]):
        out.add(EXPONENT)
    return out
