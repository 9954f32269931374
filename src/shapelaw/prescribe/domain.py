"""The fitted domain: where the fitted rows lie, and by what factor a size lies beyond them, in each quantity and jointly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from shapelaw.counting import FLOPS_CONVENTIONS
from shapelaw.errors import UserError
from shapelaw.runs.table import RunsTable

Ranges = Mapping[str, tuple[float, float]]
ROUNDING = 1e-9
"""Relative difference from the end of a range that counts as rounding."""
JOINTLY_INSIDE = 1.1
"""Joint distance up to which a size counts as inside: whole shapes lie so far apart."""


@dataclass(frozen=True)
class Face:
    """A face of the domain: rows lie at weights . log(values) <= limit; the weights have length 1.

    Args:
        weights: weight of the logarithm of each axis.
        limit: the largest value among the rows.
    """

    weights: tuple[float, ...]
    limit: float


@dataclass(frozen=True)
class Domain:
    """Where fitted rows lie.

    Args:
        ranges: smallest and largest value of each quantity.
        axes: components of a size: width, depth and tokens, or params and tokens.
        faces: limits of the rows' logarithms along each axis, and along products and quotients of several.

    >>> two = Domain({}, ("params", "tokens"), _faces(np.log([[1e8, 1e9], [1e9, 1e8]])))
    >>> round(two.jointly({"params": 1e9, "tokens": 1e9}), 6)  # each in its range; their product is 10 times too large
    5.094561
    """

    ranges: Ranges = field(default_factory=dict)
    axes: tuple[str, ...] = ()
    faces: tuple[Face, ...] = ()

    def outside(self, values: Mapping[str, float]) -> dict[str, float]:
        """Values outside their ranges, with their factor over the largest or the smallest."""
        return outside_of(self.ranges, values)

    def jointly(self, values: Mapping[str, float]) -> float:
        """By what factor a size lies beyond the rows in all its axes together; 1 inside.

        exp of the largest distance from any face, so a size that is f times too large in one axis is at least f times beyond,
        and one that is f times too large in each of two is f^sqrt(2) times beyond.
        """
        if not self.faces or not all(values.get(name, 0.0) > 0 for name in self.axes):
            return 1.0
        logs = np.log([values[name] for name in self.axes])
        return math.exp(max(0.0, *(float(np.dot(face.weights, logs)) - face.limit for face in self.faces)))


def outside_of(ranges: Ranges, values: Mapping[str, float]) -> dict[str, float]:
    """Values outside their ranges, with their factor over the largest or the smallest."""
    out = {}
    for name, (low, high) in ranges.items():
        if name in values and not low * (1 - ROUNDING) <= values[name] <= high * (1 + ROUNDING):
            out[name] = values[name] / (high if values[name] > high else low)
    return out


def domain_of_shapes(runs: RunsTable, flops: str = "exact") -> Domain:
    """The domain of the kept rows, by all their parameters.

    Args:
        runs: the table that was fitted.
        flops: convention by which a prescription counts FLOPs; 6n if the rows lack the columns for it.
    """
    return _domain(runs, "total", _flops(runs, flops), ("width", "depth") if runs.has_shapes else ("params",))


def domain_of_sizes(runs: RunsTable, counting: str) -> Domain:
    """The domain of the kept rows as sizes without a shape: params by a convention, 6 FLOPs per parameter and token."""
    tokens = runs.kept["tokens"].to_numpy(dtype=np.float64)
    return _domain(runs, counting, 6.0 * runs.params(counting) * tokens, ("params",))


def _domain(runs: RunsTable, counting: str, flops: np.ndarray, sizes: tuple[str, ...]) -> Domain:
    kept = runs.kept
    shown = ("width", "depth", "params", "tokens")
    values = {name: kept[name].to_numpy(dtype=np.float64) for name in shown if name in kept}
    values["params"] = runs.params(counting)
    values["tokens_per_param"] = values["tokens"] / values["params"]
    if runs.has_shapes:
        values["aspect_ratio"] = values["width"] / values["depth"]
    values["flops"] = flops
    axes = (*sizes, "tokens")
    ranges = {name: (float(np.nanmin(v)), float(np.nanmax(v))) for name, v in values.items()}
    return Domain(ranges, axes, _faces(np.log(np.stack([values[name] for name in axes], axis=1))))


def _flops(runs: RunsTable, convention: str) -> np.ndarray:
    try:
        return runs.flops(convention if convention in FLOPS_CONVENTIONS else "exact")
    except UserError:  # rows without shapes or vocabulary
        return runs.flops("6n")


def _faces(logs: np.ndarray) -> tuple[Face, ...]:
    """One face for each combination of axes with weights of 1, 0 and -1, scaled to length 1."""
    faces = []
    for combined in itertools.product((-1.0, 0.0, 1.0), repeat=logs.shape[1]):
        if any(combined):
            weights = np.array(combined) / np.linalg.norm(combined)
            faces.append(Face(tuple(map(float, weights)), float((logs @ weights).max())))
    return tuple(faces)
