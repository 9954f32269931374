"""Starts of the solvers: the authors' grid, grids of other sizes, and variable projection."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.laws import Law

Array = NDArray[np.float64]

CHUNK = 4096
"""Starts held in memory at once when a grid is streamed."""


def grid_levels(law: Law, grid_size: int | None = None) -> tuple[Array, ...]:
    """Levels of each entry of theta for a full product grid.

    None, or the authors' own count, gives the authors' levels (exponents 0..2 by 0.5, log coefficients 0..25 by 5,
    log E -1..1 by 0.5: 4,500 / 4,050,000 / 135,000 starts for eq 1 / 2 / 3). Any other size gives the regular grid
    whose product of level counts, one count for exponents, one for coefficients and one for the rest, comes nearest to
    it, over the wider box of the study of grid sizes (exponents 0..2.5, log coefficients 0..30, log E -1..1.5).

    Source: Gemstones (arXiv 2502.06857), section 4 and Fig 20.
    """
    levels = law.start_levels()
    if grid_size is None or grid_size == math.prod(map(len, levels)):
        return levels
    kinds = [_kind(law, name) for name in law.parameters]
    counts = _nearest_counts(kinds, grid_size)
    return tuple(law.start_levels(counts[kind])[i] for i, kind in enumerate(kinds))


def _kind(law: Law, name: str) -> str:
    if name in law.exponents:
        return "exponent"
    return "rest" if name == law.irreducible or name not in law.log_parameters else "coefficient"


def _nearest_counts(kinds: Sequence[str], grid_size: int) -> dict[str, int]:
    """Level counts of 2 to 12 per kind whose grid is nearest in size, the most even one among equals."""
    used = sorted(set(kinds))

    def badness(counts: tuple[int, ...]) -> tuple[float, int]:
        size = math.prod(counts[used.index(kind)] for kind in kinds)
        return abs(size - grid_size), max(counts) - min(counts)

    best = min(itertools.product(range(2, 13), repeat=len(used)), key=badness)
    return dict(zip(used, best, strict=True))


def grid_starts(law: Law, grid_size: int | None = None, chunk: int = CHUNK) -> Iterator[Array]:
    """Every start of a grid, streamed in blocks of at most `chunk` rows so that memory does not grow with the grid.

    A size below that of the smallest regular grid (two levels everywhere) takes `grid_size` points of the authors' grid
    instead, spread over it by a fixed permutation; a smaller set is part of a larger one.

    Raises:
        UserError: if grid_size is below 1.
    """
    if grid_size is not None and grid_size < 1:
        raise UserError(
            f"grid_size={grid_size}: allowed values are whole numbers from 1, or none for the authors' grid"
        )
    full = law.start_levels()
    if grid_size is not None and grid_size < min(2 ** len(full), math.prod(map(len, full))):
        yield from _rows(full, spread_indices(math.prod(map(len, full)), grid_size), chunk)
        return
    levels = grid_levels(law, grid_size)
    yield from _rows(levels, range(math.prod(map(len, levels))), chunk)


def grid_count(law: Law, grid_size: int | None = None) -> int:
    """Number of starts that `grid_starts` yields."""
    full = math.prod(map(len, law.start_levels()))
    if grid_size is not None and grid_size < min(2 ** len(law.parameters), full):
        return grid_size
    return math.prod(map(len, grid_levels(law, grid_size)))


def start_ranges(law: Law) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of every parameter, in natural units, at the corners of the authors' grid."""
    spans = [(level.min(), level.max()) for level in law.start_levels()]
    corners = [law.natural(corner) for corner in itertools.product(*spans)]
    return {
        name: (min(corner[name] for corner in corners), max(corner[name] for corner in corners))
        for name in law.parameters
    }


def spread_indices(total: int, count: int) -> NDArray[np.int64]:
    """`count` of `total` indices, evenly spread without aliasing the grid's axes: multiples of a step near
    total / golden ratio that shares no factor with total, so that every shorter count is a prefix."""
    step = max(round(total * (math.sqrt(5) - 1) / 2), 1)
    while math.gcd(step, total) > 1:
        step += 1
    return np.array([i * step % total for i in range(min(count, total))], dtype=np.int64)


def _rows(levels: Sequence[Array], indices: range | NDArray[np.int64], chunk: int) -> Iterator[Array]:
    sizes = tuple(len(level) for level in levels)
    for start in range(0, len(indices), chunk):
        places = np.unravel_index(np.asarray(indices[start : start + chunk]), sizes)
        yield np.stack([level[place] for level, place in zip(levels, places, strict=True)], axis=1)


def random_starts(law: Law, count: int, rng: np.random.Generator) -> Array:
    """`count` starts drawn from the authors' grid without repeats while it lasts, (count, p)."""
    levels = law.start_levels()
    total = math.prod(map(len, levels))
    chosen = rng.choice(total, size=min(count, total), replace=False)
    blocks = list(_rows(levels, chosen.astype(np.int64), max(count, 1)))
    return np.concatenate(blocks) if blocks else np.empty((0, len(levels)))
