"""Conditions on a shape beyond the suite's rules, and the real-valued widths and depths that meet both."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import NDArray

from shapelaw.config import ShapeLimits
from shapelaw.config.option import option, record
from shapelaw.errors import UserError
from shapelaw.prescribe.world import Points, World
from shapelaw.shapes import ShapeRules

Array = NDArray[np.float64]

ASPECT_TOLERANCE = math.log(1.15)
"""How far a whole shape may deviate from a fixed ratio, so that sizes lie close enough together."""
SAME = 1e-12
"""Relative difference of two sizes that counts as rounding."""
MOST_SHAPES = 200_000
"""Most whole shapes in a search; the suite's own rules allow some 8,000."""


@record("limits")
class Limits(ShapeLimits):
    """Conditions on a shape beyond the suite's rules: the options of `config.ShapeLimits` (params_min, params_max, aspect_min,
    aspect_max), and optionally one fixed ratio.

    Raises:
        UserError: for values that no size can meet.
    """

    aspect_ratio: float | None = option(
        "Width / depth to hold: within 15%, and of every width the depth nearest to it (exactly it, if relaxed).",
        default=None,
        above=0,
        advice="64 is usual",
    )

    def __str__(self) -> str:
        """The limits that are set, as options."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        limited = {name: value for name, value in values.items() if value != getattr(UNLIMITED, name)}
        return ", ".join(f"{name if name == 'aspect_ratio' else f'limits.{name}'}={v:g}" for name, v in limited.items())

    @property
    def given(self) -> bool:
        """Whether any limit is set."""
        return self != Limits()

    @property
    def aspects(self) -> tuple[float, float]:
        """Range of width / depth of a real-valued shape; a single ratio, if one is fixed."""
        held = self.aspect_ratio
        ends = self.aspect_min, self.aspect_max
        return ends if held is None else (max(ends[0], held), min(ends[1], held))

    def holding(self, ratio: float | None) -> Limits:
        """The same limits with another fixed ratio, or none."""
        return dataclasses.replace(self, aspect_ratio=ratio)

    def allow(self, points: Points) -> NDArray[np.bool_]:
        """Mask of the shapes that meet them."""
        assert points.width is not None
        assert points.depth is not None
        ratio = points.width / points.depth
        mask = (points.params >= self.params_min) & (points.params <= self.params_max)
        mask &= (ratio >= self.aspect_min) & (ratio <= self.aspect_max)
        if self.aspect_ratio is not None:
            nearest = points.depth == np.maximum(np.rint(points.width / self.aspect_ratio), 1)
            mask &= nearest | (np.abs(np.log(ratio / self.aspect_ratio)) <= ASPECT_TOLERANCE)
        return mask


UNLIMITED = Limits()


def no_shape(world: World, limits: Limits) -> UserError:
    """The error that no shape meets the rules and the limits."""
    having = f" has {limits}" if limits.given else ""
    return UserError(f"no shape of {world.rules}{having}; widen the ranges (rules.width_min, ...) or the limits")


def _check_size(rules: ShapeRules) -> None:
    """Refuse ranges with more shapes than memory holds."""
    widths = (rules.width_max - rules.width_min) // rules.head_size + 1
    depths = rules.depth_max - rules.depth_min + 1
    if widths * depths > MOST_SHAPES:
        raise UserError(
            f"rules.width_max={rules.width_max}, rules.depth_max={rules.depth_max}: {widths} widths by {depths} depths "
            f"are too many shapes to search; at most {MOST_SHAPES:,} are allowed; "
            "narrow rules.width_min to rules.width_max, or "
            "rules.depth_min to rules.depth_max, or give space=relaxed"
        )


def feasible_points(world: World, limits: Limits) -> Points:
    """Every whole shape that meets the suite's rules and the limits.

    Raises:
        UserError: if none does.
    """
    _check_size(world.rules)
    widths = np.array(world.rules.widths(), dtype=np.int64)
    depths = np.arange(world.rules.depth_min, world.rules.depth_max + 1, dtype=np.int64)
    points = world.points(np.repeat(widths, len(depths)), np.tile(depths, len(widths)))
    mask = limits.allow(points) if len(points.params) else np.zeros(0, dtype=bool)
    if not mask.any():
        raise no_shape(world, limits)
    return points.take(np.flatnonzero(mask))


@dataclass(frozen=True)
class Region:
    """Real widths and depths within a suite's ranges and the limits.

    Its coordinates are the logarithms of width and depth; of the width alone if the aspect ratio is fixed.
    """

    world: World
    limits: Limits

    @property
    def box(self) -> tuple[Array, Array]:
        """Ends of the coordinates: a box about the region.

        Raises:
            UserError: if it is empty.
        """
        if self.empty:
            raise no_shape(self.world, self.limits)
        rules, dimensions = self.world.rules, 1 if self.limits.aspect_ratio else 2
        low, high = np.log([self.widths, (rules.depth_min, rules.depth_max)]).T
        return low[:dimensions], high[:dimensions]

    def clip(self, coordinates: Array) -> Array:
        """Coordinates (..., dimensions) within the box, with depths moved to the nearest allowed ones."""
        if coordinates.shape[-1] == 1 or not self.limits.given:
            return coordinates
        log_width, log_depth = np.moveaxis(coordinates, -1, 0)
        shallow, deep = self.depths(np.exp(log_width))
        return np.stack([log_width, np.clip(log_depth, np.log(shallow), np.log(deep))], axis=-1)

    def points(self, coordinates: Array) -> Points:
        """Points at coordinates of shape (..., dimensions)."""
        sizes, ratio = np.exp(coordinates), self.limits.aspect_ratio
        return self.world.points(sizes[..., 0], sizes[..., 1] if ratio is None else sizes[..., 0] / ratio, relaxed=True)

    def grid(self, axes: Array) -> Points:
        """Points at all pairs of a log width and a log depth, (vectors, cells, 2) -> (vectors, cells, cells).

        Quantities that depend on one of them alone are computed once for all values of the other.
        """
        return self.world.points(np.exp(axes[:, :, None, 0]), np.exp(axes[:, None, :, 1]), relaxed=True)

    @property
    def empty(self) -> bool:
        """Whether no width has an allowed depth."""
        return self.widths[0] > self.widths[1]

    @cached_property
    def widths(self) -> tuple[float, float]:
        """Smallest and largest width with an allowed depth; the first exceeds the second if there is none.

        Params grow with both width and depth, so every width in between has an allowed depth too.
        """
        rules, limits, (low, high) = self.world.rules, self.limits, self.limits.aspects
        narrow, wide = max(rules.width_min, rules.depth_min * low), min(rules.width_max, rules.depth_max * high)
        if rules.depth_min > rules.depth_max or low > high * (1 + SAME) or narrow > wide * (1 + SAME):
            return math.inf, 0.0
        ends = narrow, max(narrow, wide)
        narrow = max(narrow, self._width_at(limits.params_min, lambda width: self._ends(width)[1], *ends))
        wide = min(wide, self._width_at(limits.params_max, lambda width: self._ends(width)[0], *ends))
        return narrow, max(narrow, wide) if narrow <= wide * (1 + SAME) else wide

    def depths(self, width: Array) -> tuple[Array, Array]:
        """Smallest and largest allowed depth of each width."""
        shallow, deep = self._ends(width)
        if self.limits.params_min > 0:
            shallow = np.maximum(shallow, self.world.depth_at(width, self.limits.params_min, "params"))
        if self.limits.params_max < math.inf:
            deep = np.minimum(deep, self.world.depth_at(width, self.limits.params_max, "params"))
        return shallow, np.maximum(shallow, deep)  # if a single depth remains, rounding must not remove it

    def inside(self, width: Array, depth: Array) -> NDArray[np.bool_]:
        """Mask of the shapes that lie in it."""
        (narrow, wide), (shallow, deep) = self.widths, self.depths(width)
        allowed = (width >= narrow * (1 - SAME)) & (width <= wide * (1 + SAME))
        return allowed & (depth >= shallow * (1 - SAME)) & (depth <= deep * (1 + SAME))

    def _ends(self, width: Array) -> tuple[Array, Array]:
        """Smallest and largest depth of each width without the limits on params."""
        rules, (low, high) = self.world.rules, self.limits.aspects
        deep = width / low if low > 0 else np.full_like(width, np.inf)
        return np.maximum(rules.depth_min, width / high), np.minimum(rules.depth_max, deep)

    def _width_at(self, params: float, depth: Callable[[Array], Array], low: float, high: float) -> float:
        """The width at which a shape has the given params; 0 if every width has more, infinite if every width has fewer."""

        wanted = math.log(params) if params > 0 else -math.inf

        def above(log_width: float) -> float:
            width = np.exp(np.array([log_width]))
            return math.log(self.world.points(width, depth(width), relaxed=True).params[0]) - wanted

        start, stop = math.log(low), math.log(high)
        if above(start) >= 0:
            return low if above(start) <= SAME else 0.0
        if above(stop) <= 0:
            return high if above(stop) >= -SAME else math.inf
        return math.exp(scipy.optimize.brentq(above, start, stop, xtol=1e-14))
