"""The paper's search over (width, depth, tokens) triples, without forming them.

The authors put every triple into a bin of FLOPs and take each bin's lowest predicted loss. Since loss falls with tokens, a
shape can win a bin only with the largest token count that still lies in it. Sorted by FLOPs per token, the shapes with the
same such token count are neighbours. So every bin is a few hundred slices, and no triple is visited twice.

Source: Gemstones (arXiv 2502.06857), section 4.2 (10^8 triples).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.prescribe.surface import Surface
from shapelaw.prescribe.world import Points, World

Array = NDArray[np.float64]
CUT_OTHERWISE = frozenset({17, 16 * 13_509, 16 * 19_352, 16 * 105_902})
"""Ends of the depths that the published search truncated to another whole number than exact rounding would give."""


@dataclass(frozen=True)
class Triples:
    """Every pair of a shape and a token count.

    Args:
        shapes: whole shapes, (n,).
        tokens: token counts, ascending, (m,).
    """

    shapes: Points
    tokens: Array

    def __len__(self) -> int:
        """Number of triples."""
        return len(self.shapes.params) * len(self.tokens)


def paper_edges() -> Array:
    """Edges of the authors' 13 bins: 1e18 to 1e26 FLOPs, even in the logarithm.

    A bin spans a factor of 4.12. Its winner lies at its right edge, yet the paper's figures draw it at the left one.
    """
    return np.logspace(18, 26, 14)


def paper_shapes() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Widths and depths of the authors' search: 637,733 shapes, the same on every processor.

    1,025 widths from 2^8 to 2^17 and, for each, 800 depths from width/2048 (at least 1) to 16 widths, all even in their
    logarithm, truncated to whole numbers, without repeats. The ends are whole, so the last bit of their powers decides the
    truncation, which `_cut_end` computes without floats. No value in between comes close enough to a whole number: the
    nearest is 1.3e-7 away, and powers differ between processors by 1e-9 at most.
    """
    widths = np.logspace(8, 17, 2**10 + 1, base=2).astype(np.int64)
    widths[[0, -1]] = 2**8, 2**17
    pairs = []
    for width in np.unique(widths).tolist():
        low, high = max(width // 2**11, 1), width * 2**4
        log_low, log_high = np.log10([low, high])
        depths = np.logspace(log_low, log_high, 800).astype(np.int64)
        depths[[0, -1]] = _cut_end(low), _cut_end(high)
        depths = np.unique(depths)
        pairs.append(np.stack([np.full(len(depths), width), depths]))
    both = np.concatenate(pairs, axis=1)
    return both[0], both[1]


def paper_triples(world: World, log10_tokens_from: float = 9.0) -> Triples:
    """The authors' 318.9 million triples: their shapes and 500 token counts up to 10^13.5, even in the logarithm."""
    width, depth = paper_shapes()
    exponents = np.linspace(log10_tokens_from, 13.5, 500).tolist()
    tokens = np.array([float(int(_power_of_10(exponent))) for exponent in exponents])
    return Triples(world.points(width, depth), tokens)


def _cut_end(end: int) -> int:
    """A whole number as the authors' truncated 10^log10(end) gives it: itself, or one less.

    With logarithm and power each rounded exactly to 64 bits, 10^3 comes out as 1000, but 10^log10(8) below 8. The published
    search used powers that were not rounded exactly: `CUT_OTHERWISE`.
    """
    with localcontext() as exact:
        exact.prec = 40
        below = float(_power_of_10(float(Decimal(end).log10()))) < end
    return end - (below != (end in CUT_OTHERWISE))


def _power_of_10(exponent: float) -> Decimal:
    """10^exponent in decimal arithmetic, which uses whole numbers and so is the same on every processor."""
    return Decimal(10) ** Decimal(exponent)


def bin_minima(surface: Surface, triples: Triples, edges: Array) -> pd.DataFrame:
    """The triple of lowest predicted loss in every bin of FLOPs (left edges excluded except the first, as by the authors).

    Args:
        surface: its first parameter vector is used; the law's loss must fall with tokens.
        edges: edges of the bins, ascending, (bins + 1,).

    Returns:
        a row per bin that holds a triple: left, right, width, depth, params, tokens, flops, loss.
    """
    order = np.argsort(triples.shapes.train_flops, kind="stable")
    shapes = triples.shapes.take(order)
    bound = surface.rows(0, 1).at(shapes)
    rows = []
    for i, (left, right) in enumerate(pairwise(edges.tolist())):
        log_tokens = _most_tokens(shapes.train_flops, triples.tokens, left, right, inclusive=i == 0)
        served = np.flatnonzero(np.isfinite(log_tokens))
        if not len(served):
            continue
        losses = bound.loss(np.where(np.isfinite(log_tokens), log_tokens, 0.0))[0]
        best = served[np.argmin(losses[served])]
        rows.append(
            _row(shapes, int(best), float(np.exp(log_tokens[best])), left, right) | {"loss": float(losses[best])}
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Contenders:
    """The triples that can win a bin of FLOPs under a law that reads no shape: the largest and the smallest of a token count.

    Args:
        left, right: edges of the bin.
        shapes: ascending in FLOPs per token, (n,).
        log_tokens: natural log of their tokens, (n,).
    """

    left: float
    right: float
    shapes: Points
    log_tokens: Array


def contenders(triples: Triples, edges: Array) -> list[Contenders]:
    """The triples that can win each bin of `bin_minima`, if the loss is monotone in the params and reads no width or depth.

    Such a law compares shapes of one token count by their params alone, so the one with most or fewest params wins. The
    contenders are the same for all such laws: a few thousand per bin instead of all shapes.
    """
    shapes = triples.shapes.take(np.argsort(triples.shapes.train_flops, kind="stable"))
    bins = []
    for i, (left, right) in enumerate(pairwise(edges.tolist())):
        log_tokens = _most_tokens(shapes.train_flops, triples.tokens, left, right, inclusive=i == 0)
        served = np.flatnonzero(np.isfinite(log_tokens))
        if len(served):
            some = served[_ends_of_groups(log_tokens[served], shapes.counted[served])]
            bins.append(Contenders(left, right, shapes.take(some), log_tokens[some]))
    return bins


def _ends_of_groups(groups: Array, values: Array) -> NDArray[np.intp]:
    """Ascending indices of the first largest and the first smallest value of every run of equal entries of `groups`."""
    starts = np.flatnonzero(np.diff(groups, prepend=np.nan) != 0)
    run = np.cumsum(np.bincount(starts, minlength=len(groups))) - 1
    places = []
    for end in (np.maximum, np.minimum):
        hits = np.flatnonzero(values == end.reduceat(values, starts)[run])
        places.append(hits[np.unique(run[hits], return_index=True)[1]])
    return np.unique(np.concatenate(places))


def minima_of(surface: Surface, bins: Sequence[Contenders]) -> pd.DataFrame:
    """The triple of lowest predicted loss in every bin, in the form of `bin_minima`."""
    rows = []
    for one in bins:
        losses = surface.rows(0, 1).at(one.shapes).loss(one.log_tokens)[0]
        best = int(np.argmin(losses))
        row = _row(one.shapes, best, float(np.exp(one.log_tokens[best])), one.left, one.right)
        rows.append(row | {"loss": float(losses[best])})
    return pd.DataFrame(rows)


def _most_tokens(costs: Array, tokens: Array, left: float, right: float, inclusive: bool) -> Array:
    """Log of the most tokens with which each shape lies in a bin, NaN for none; costs ascend."""
    stops = np.searchsorted(costs, right / tokens, side="right")  # shapes[:stop] can afford this token count
    which = np.repeat(np.arange(len(tokens))[::-1], np.diff(stops[::-1], prepend=0))
    counts = np.full(len(costs), np.nan)
    counts[: len(which)] = tokens[which]
    flops = counts * costs
    with np.errstate(invalid="ignore"):
        inside = flops >= left if inclusive else flops > left
    return np.log(np.where(inside, counts, np.nan))


def _row(shapes: Points, i: int, tokens: float, left: float, right: float) -> dict[str, float]:
    assert shapes.width is not None
    assert shapes.depth is not None
    sizes = {"width": shapes.width[i], "depth": shapes.depth[i], "params": shapes.params[i]}
    flops = shapes.train_flops[i] * tokens
    return {
        "left": left,
        "right": right,
        **{k: float(v) for k, v in sizes.items()},
        "tokens": round(tokens),
        "flops": flops,
    }
