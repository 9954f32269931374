"""The fit's own rolling hold-out: refits up to a cut in size, or tokens, that grows, and how far they miss what lies beyond.

The error is known as a function of the distance, the log of the held-out value over the largest fitted one. It tells how far a
prediction beyond the runs may be off, which refits of resampled runs, all of one form and one range, do not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting.new_run import SAME, Rolling
from shapelaw.fitting.ridge import Ridge
from shapelaw.fitting.solve import Solution
from shapelaw.fitting.solvers import search_of
from shapelaw.fitting.spec import FitData, FitSpec

Array = NDArray[np.float64]

AXES = ("params", "tokens")
"""What grows."""
CUTS = 6
"""Cuts, even in the logarithm from the middle of the range to below its end."""
DISTINCT = 3
"""Fewest sizes (or token counts) below a cut."""
SPARE = 2
"""Rows beyond one per parameter that a fold needs."""
KEPT = 400
"""Most points of an axis that are kept, spread over the distances."""


def rolling(
    data: FitData, spec: FitSpec, solution: Solution, ridge: Ridge, sizes: Mapping[str, Array]
) -> dict[str, Rolling]:
    """The rolling hold-out of a fit along every axis.

    Args:
        solution: the fit, from whose optima the folds' refits start. They hear the law's expectations, as a fold has fewer
            sizes than the fit.
        sizes: params and tokens of the rows, each (n,), as distances count them.
    """
    tied = dataclasses.replace(data, prior=ridge.penalty(data.law)) if data.law.priors else data
    search, problem = search_of(spec.solver, tied.problem(spec)), data.problem(spec)
    out = {}
    for axis in AXES:
        folds = cuts(sizes[axis], len(data.law.parameters) + SPARE)
        refitted = [search.refit(solution.basins[:3], fitted * problem.weights)[0] for fitted in folds]
        found = [
            (np.log(sizes[axis][~fitted] / sizes[axis][fitted].max()), np.abs(problem.residuals(theta)[~fitted]))
            for fitted, theta in zip(folds, refitted, strict=True)
        ]
        out[axis] = _joined(float(sizes[axis].max()), found)
    return out


def cuts(values: Array, needed: int) -> list[NDArray[np.bool_]]:
    """Masks of what is fitted: all rows up to a cut, for every cut that leaves enough to fit and something to predict."""
    logs = np.log(values)
    masks: list[NDArray[np.bool_]] = []
    for cut in np.linspace((logs.min() + logs.max()) / 2, logs.max(), CUTS, endpoint=False):
        mask = logs <= cut + 1e-9
        fresh = not masks or mask.sum() != masks[-1].sum()
        if fresh and mask.sum() >= needed and distinct(logs[mask]) >= DISTINCT and not mask.all():
            masks.append(mask)
    return masks


def distinct(logs: Array) -> int:
    """Number of different sizes."""
    return int(len(logs) > 0) + int((np.diff(np.sort(logs)) > SAME).sum())


def _joined(largest: float, found: Sequence[tuple[Array, Array]]) -> Rolling:
    """Folds as one, at most `KEPT` points of them."""
    if not found:
        return Rolling(largest)
    distances, errors = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(distances, kind="stable")
    order = order[np.unique(np.linspace(0, len(order) - 1, KEPT).astype(int))]
    mean = float(np.mean([fold.mean() for _, fold in found]))
    return Rolling(largest, tuple(map(float, distances[order])), tuple(map(float, errors[order])), mean)
