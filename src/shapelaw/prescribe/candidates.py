"""Candidates for the next run: feasible shapes and tokens within a budget, and the rows that each would add to the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.prescribe.axes import axes_of_sizes
from shapelaw.prescribe.limits import Limits, feasible_points
from shapelaw.prescribe.world import Points, World
from shapelaw.runs.columns import column_of, is_canonical
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]

SIZES, ASPECTS, LEVELS = 12, 3, 4
"""Number of sizes, of aspect ratios per size, and of token counts per shape to try."""
WIDER = 4.0
"""Most by which candidates exceed the fitted params, tokens and tokens per parameter, as far as the budget allows."""
SAME = 0.02
"""Relative difference of tokens below which a candidate counts as already trained."""
ROWS = 12
"""Most simulated rows of a candidate; together they weigh as much as the rows that it would have."""


@dataclass(frozen=True)
class Candidates:
    """Runs that could be trained, one entry per run in every array.

    Args:
        points: their sizes.
        tokens: final token counts, (n,).
        axes: further axis that the law reads, such as experts -> its value, (n,).
    """

    points: Points
    tokens: Array
    axes: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of candidates."""
        return len(self.tokens)

    @property
    def flops(self) -> Array:
        """Training FLOPs of each, (n,)."""
        return self.points.train_flops * self.tokens

    def take(self, index: NDArray[np.intp]) -> Candidates:
        """Some of them."""
        axes = {name: values[index] for name, values in self.axes.items()}
        return Candidates(self.points.take(index), self.tokens[index], axes)


@dataclass(frozen=True)
class Cadence:
    """When a run is validated, as shares of its tokens.

    Args:
        shares: shares in ascending order, the last one 1, (rows,).
        weight: number of a run's rows that each of them represents.
    """

    shares: Array
    weight: float

    @classmethod
    def of(cls, runs: RunsTable) -> Cadence:
        """The cadence of the run with the median number of rows."""
        by_run = runs.kept.groupby("run", sort=True)["tokens"]
        counts = by_run.size().sort_values(kind="stable")
        tokens = np.sort(by_run.get_group(counts.index[len(counts) // 2]).to_numpy(dtype=np.float64))
        few = tokens[np.unique(np.linspace(0, len(tokens) - 1, ROWS).round().astype(int))]
        return cls(few / tokens[-1], len(tokens) / len(few))


def feasible(world: World, runs: RunsTable, budget: float, limits: Limits) -> Candidates:
    """Runs within a budget of FLOPs that the table does not hold yet: sizes even in the logarithm, several aspect ratios of
    each if the runs have shapes, and tokens for the budget, for a fourth of it, a sixteenth, and so on.

    Further axes that the law reads (`World.given`) have the values that follow from the size, or those of the runs.

    Raises:
        UserError: if the budget buys no run.
    """
    shapes = runs.has_shapes and bool(world.suite.vocab_size)
    points = _shapes(world, runs, limits) if shapes else _sizes(world, runs, limits)
    size, axes = axes_of_sizes([name for name in world.given if not is_canonical(name)], runs, points)
    flops = budget / WIDER ** np.arange(LEVELS)
    at = np.repeat(np.arange(len(size)), LEVELS)
    place = size[at]
    tokens = np.tile(flops, len(size)) / points.train_flops[place]
    given = {name: values[at] for name, values in axes.items()}
    every = Candidates(points.take(place), _whole_batches(tokens, world.suite.batch_tokens), given)
    found = every.take(np.flatnonzero(_near(every, world, runs) & ~_trained(every, runs)))
    if not len(found):
        raise UserError(
            f"budget={budget:.6g} FLOPs: buys no new run within a factor of {WIDER:g} of the sizes and tokens of the "
            "table's runs; give a larger budget, or other limits"
        )
    return found


def _shapes(world: World, runs: RunsTable, limits: Limits) -> Points:
    """Whole shapes nearest to a grid over params and aspect ratios around those of the runs."""
    every = feasible_points(world, limits)
    assert every.width is not None
    assert every.depth is not None
    kept = runs.kept
    logs = np.log(np.stack([every.params, every.width / every.depth], axis=1))
    sizes = _even(kept["params"].to_numpy(dtype=np.float64), WIDER, SIZES)
    aspects = _even((kept["width"] / kept["depth"]).to_numpy(dtype=np.float64), 1.0, ASPECTS)
    grid = np.stack(np.meshgrid(sizes, aspects, indexing="ij"), axis=-1)
    away = np.abs(grid.reshape(-1, 1, 2) - logs)
    return every.take(np.unique(np.argmin(away[..., 0] + 0.2 * away[..., 1], axis=1)))


def _sizes(world: World, runs: RunsTable, limits: Limits) -> Points:
    """Sizes without a shape around those of the runs."""
    low, high = _ends(runs.params(world.counting), WIDER)
    low, high = max(low, limits.params_min), min(high, limits.params_max)
    if low > high:
        raise UserError(
            f"{limits}: no allowed size is within a factor of {WIDER:g} of the sizes of the runs; give other limits"
        )
    return world.sizes(np.geomspace(low, high, SIZES))


def _ends(values: Array, factor: float) -> tuple[float, float]:
    return float(values.min()) / factor, float(values.max()) * factor


def _even(values: Array, factor: float, count: int) -> Array:
    """Logarithms at even distances between those of the ends."""
    low, high = np.log(_ends(values, factor))
    return np.linspace(low, high, count)


def _whole_batches(tokens: Array, batch: int | None) -> Array:
    return tokens if not batch else np.maximum(tokens // batch, 1.0) * batch


def _near(candidates: Candidates, world: World, runs: RunsTable) -> NDArray[np.bool_]:
    """Mask of tokens not below those of the runs, where a law is least reliable, and of tokens per parameter near theirs."""
    tokens = runs.kept["tokens"].to_numpy(dtype=np.float64)
    params = candidates.points.params
    sizes = runs.params("total" if candidates.points.width is not None else world.counting)
    low, high = float(tokens.min()), float(tokens.max()) * WIDER
    least, most = _ends(tokens / sizes, WIDER)
    ratio = candidates.tokens / params
    return (candidates.tokens >= low) & (candidates.tokens <= high) & (ratio >= least) & (ratio <= most)


def _trained(candidates: Candidates, runs: RunsTable) -> NDArray[np.bool_]:
    """Mask of the candidates in the table: a run of the same size and axes with as many tokens."""
    kept, points = runs.kept, candidates.points
    shapes = {} if points.width is None or points.depth is None else {"width": points.width, "depth": points.depth}
    own = (shapes or {"params": points.params}) | {column_of(name): axis for name, axis in candidates.axes.items()}
    longest = kept.groupby(list(own))["tokens"].max().reset_index().to_numpy(dtype=np.float64)
    same = (np.abs(np.stack(list(own.values()), axis=1)[:, None] / longest[:, :-1] - 1) < SAME).all(axis=2)
    return np.asarray((same & (candidates.tokens[:, None] <= longest[:, -1] * (1 + SAME))).any(axis=1))


def rows_of(candidates: Candidates, i: int, cadence: Cadence) -> dict[str, Array]:
    """The predictors of one candidate's rows, each (rows,)."""
    one = candidates.take(np.full(len(cadence.shares), i))
    return {**one.points.columns, **one.axes, "tokens": cadence.shares * candidates.tokens[i]}
