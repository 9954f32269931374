"""Starts by variable projection: exponents on a grid, then coefficients by non-negative least squares.

For fixed exponents (and fixed kappa, mu, or power and E) a sum law is linear in its coefficients, so each grid point
costs one small non-negative least-squares problem on relative residuals; the best ones are starts close to the optimum.

Source: Golub and Pereyra 1973 (variable projection).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting.objective import Problem
from shapelaw.laws import Design, SumLaw

Array = NDArray[np.float64]

FALLING = (0.1, 0.25, 0.5, 0.9, 1.5)
GROWING = (0.0, 0.1, 0.2, 0.35, 0.6)
POWERS = (0.1, 0.2, 0.4, 0.8)
IRREDUCIBLE_SHARES = (0.0, 0.3, 0.6)
KAPPAS = (0.05, 0.15)
ASPECT_QUANTILES = (0.25, 0.5, 0.75)
REVIVED = 1e-3
"""Share of the loss that a zero coefficient starts with, so that it can still grow."""


@dataclass(frozen=True)
class _Outer:
    """One choice of the factors on the whole sum: the fitted target and the factor on every term."""

    extras: tuple[float, ...]
    target: Array
    factor: Array
    irreducible: float | None
    """E if the choice fixes it (a law with a power); otherwise it is fitted as a column."""


def projected_starts(problem: Problem, count: int) -> Array:
    """The `count` best grid points as rows of theta, (<= count, p).

    Raises:
        TypeError: if the law is not a SumLaw.
    """
    law = problem.law
    if not isinstance(law, SumLaw):
        raise TypeError(f"law {law.name} is not a sum law")
    used = problem.weights > 0
    design = law.design({name: values[used] for name, values in problem.columns.items()})
    loss, weights = problem.loss[used], problem.weights[used]
    best: list[tuple[float, Array]] = []
    for outer in _outers(law, design, loss):
        best += _project(law, design, outer, weights, count)
        best = sorted(best, key=lambda pair: pair[0])[:count]
    return np.array([theta for _, theta in best]).reshape(-1, len(law.parameters))


def _outers(law: SumLaw, design: Design, loss: Array) -> Iterator[_Outer]:
    """Every choice of the power (together with E, which determines the terms' sum) and of the aspect factor."""
    shares = IRREDUCIBLE_SHARES if law.irreducible else (0.0,)
    for aspect, factor in _aspects(design, len(loss)):
        if not law.power:
            yield _Outer(aspect, loss, factor, None)
            continue
        for power, share in itertools.product(POWERS, shares):
            fixed = share * float(loss.min())
            yield _Outer((power, *aspect), ((loss - fixed) / factor) ** (1 / power), np.ones(len(loss)), fixed)


def _aspects(design: Design, points: int) -> Iterator[tuple[tuple[float, ...], Array]]:
    """((ln kappa, mu), factor on every point); a single factor of ones for a law without an aspect factor."""
    if design.log_aspect is None:
        yield (), np.ones(points)
        return
    for kappa, quantile in itertools.product(KAPPAS, ASPECT_QUANTILES):
        mu = float(np.quantile(design.log_aspect, quantile))
        yield (float(np.log(kappa)), mu), 1 + (kappa * (design.log_aspect - mu)) ** 2


def _project(law: SumLaw, design: Design, outer: _Outer, weights: Array, count: int) -> list[tuple[float, Array]]:
    """The `count` best grid points of the exponents under one outer choice: (squared error, theta)."""
    columns, choices = _term_columns(law, design)
    scale = np.sqrt(weights) / outer.target
    matrix = np.concatenate(columns, axis=1) * (outer.factor * scale)[:, None]
    with_constant = law.irreducible is not None and outer.irreducible is None
    if with_constant:
        matrix = np.concatenate([matrix, scale[:, None]], axis=1)
    gram, moment = matrix.T @ matrix, matrix.T @ np.sqrt(weights)
    offsets = np.cumsum([0] + [len(options) for options in choices])[:-1]
    picks = np.array(list(itertools.product(*(range(len(options)) for options in choices))))
    constant = np.full((len(picks), int(with_constant)), matrix.shape[1] - 1)
    places = np.concatenate([picks + offsets, constant], axis=1)
    errors, coefficients = non_negative(gram[places[:, :, None], places[:, None, :]], moment[places])
    best = np.argsort(errors, kind="stable")[:count]
    return [(errors[i], _theta(law, design, outer, _exponents(choices, picks[i]), coefficients[i])) for i in best]


def _exponents(choices: list[list[tuple[float, ...]]], picks: NDArray[np.int_]) -> list[tuple[float, ...]]:
    return [options[pick] for options, pick in zip(choices, picks, strict=True)]


def _term_columns(law: SumLaw, design: Design) -> tuple[list[Array], list[list[tuple[float, ...]]]]:
    """For every term, the values of its centred power for every choice of its exponents, and the choices."""
    columns, choices = [], []
    centred = design.features - design.features.mean(axis=1, keepdims=True)
    for j, term in enumerate(law.terms):
        features = centred[[m for m, owner in enumerate(design.owner) if owner == j]]
        options = list(itertools.product(*[FALLING] * len(term.falls), *[GROWING] * len(term.grows)))
        offset = design.offset[j] - design.offset[j].mean()
        columns.append(np.stack([np.exp(np.array(o) @ features + offset) for o in options], axis=1))
        choices.append(options)
    return columns, choices


def non_negative(grams: Array, moments: Array) -> tuple[Array, Array]:
    """min |X c - y|^2 over c >= 0 from X'X and X'y, up to the constant |y|^2, of many small problems at once.

    The minimum equals the least squares over a subset of the columns, so every subset is tried.

    Args:
        grams: (problems, columns, columns).
        moments: (problems, columns).

    Returns:
        Values, (problems,), and coefficients, (problems, columns).
    """
    ridged = grams * (1 + 1e-12 * np.eye(moments.shape[1]))
    values, coefficients = np.zeros(len(moments)), np.zeros_like(moments)
    for used in itertools.product([False, True], repeat=moments.shape[1]):
        places = np.flatnonzero(used)
        found = np.zeros_like(moments)
        found[:, places] = np.linalg.solve(ridged[:, places[:, None], places], moments[:, places, None])[..., 0]
        reached = np.einsum("gi,gij,gj->g", found, ridged, found) - 2 * np.sum(found * moments, axis=1)
        better = (found >= 0).all(axis=1) & (reached < values)
        values, coefficients = np.where(better, reached, values), np.where(better[:, None], found, coefficients)
    return values, coefficients


def _theta(
    law: SumLaw, design: Design, outer: _Outer, exponents: list[tuple[float, ...]], coefficients: Array
) -> Array:
    """The law's vector at one grid point."""
    k = len(law.terms)
    flat = np.array([a for choice in exponents for a in choice])
    level = float(np.median(outer.target))
    logs = np.log(np.maximum(coefficients[:k], REVIVED * level)) - design.offset.mean(axis=1)
    for m, owner in enumerate(design.owner):
        logs[owner] -= flat[m] * design.features[m].mean()
    tail = []
    if law.irreducible is not None:
        fixed = coefficients[k] if outer.irreducible is None else outer.irreducible
        tail = [np.log(max(fixed, REVIVED * level if outer.irreducible is None else REVIVED))]
    return np.concatenate([logs, flat, outer.extras, tail])
