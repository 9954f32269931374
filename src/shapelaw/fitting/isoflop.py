"""Approach 2: a parabola in log params through the losses of each FLOPs budget, and a line through its minima.

Source: Hoffmann et al. 2022 (arXiv 2203.15556), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shapelaw.config.fitting import TOLERANCE
from shapelaw.errors import UserError
from shapelaw.fitting.lines import Array, LineData, PowerLine, Rows, regress

CONTRAST = 2.0
"""Points in a bin over points beside it."""
MIN_SIZES = 4
"""Different sizes that a bin needs: one more than the parabola has coefficients."""
MIN_BINS = 3
TOKENS_AGREE = 0.01
"""Relative difference from FLOPs / (6 params) up to which nothing is said of the tokens."""


@dataclass(frozen=True)
class IsoflopBin:
    """One budget: its mean log cost, and at the parabola's minimum the log params, log tokens and log loss."""

    log_cost: float
    log_params: float
    log_tokens: float
    log_loss: float
    points: int


def isoflop_bins(data: LineData, tolerance: float = TOLERANCE) -> list[IsoflopBin]:
    """Minima of every budget at which enough sizes were trained and a minimum lies between them.

    A budget is a window of costs, as wide as the tolerance, that holds the most points and more than twice as many as
    the rest of a window three times as wide: points spread evenly over the costs have none. Where a run passes a budget
    more than once, its last point there counts.

    Raises:
        UserError: if fewer than three such budgets are in the data.
    """
    minima = [minimum for rows in _budgets(data.log_cost, tolerance) if (minimum := _minimum(data, rows)) is not None]
    if len(minima) < MIN_BINS:
        raise UserError(
            f"method=isoflop: the data have {len(minima)} bins of equal FLOPs (within {tolerance:.0%}, at least "
            f"{MIN_SIZES} sizes, the best one not at an end); at least {MIN_BINS} are needed. Runs that share a "
            "schedule of tokens, not of FLOPs, have none: use method=parametric or method=hull"
        )
    return minima


def _budgets(log_cost: Array, tolerance: float) -> list[Rows]:
    """Rows of every window that stands out, by cost."""
    order = np.argsort(log_cost, kind="stable")
    everywhere, budgets = log_cost[order], []
    while len(order):
        costs = log_cost[order]
        counts = np.searchsorted(costs, costs + tolerance, side="right") - np.arange(len(costs))
        first, count = int(counts.argmax()), int(counts.max())
        if count < MIN_SIZES:
            break
        rows, order = order[first : first + count], np.delete(order, np.s_[first : first + count])
        middle = (log_cost[rows[0]] + log_cost[rows[-1]]) / 2
        wide = int(np.sum(np.abs(everywhere - middle) <= 1.5 * tolerance))
        if count > CONTRAST * (wide - count):
            budgets.append(rows)
    return sorted(budgets, key=lambda rows: float(log_cost[rows[0]]))


def _minimum(data: LineData, rows: Rows) -> IsoflopBin | None:
    """Vertex of the least-squares parabola, if it opens upwards inside the range of sizes.

    Its tokens are cost / (k params) with the k of the rows, FLOPs of a token and parameter (6 by the rule C = 6NT), by a
    parabola too, as k changes with the size.
    """
    last = {str(data.runs[row]): row for row in rows}
    chosen = np.array(sorted(last.values()))
    x, y = data.log_params[chosen], data.log_loss[chosen]
    if len(np.unique(np.round(x, 6))) < MIN_SIZES:
        return None
    curve, slope, level = _parabola(x - x.mean(), y)
    vertex = -slope / (2 * curve) if curve > 0 else np.inf
    if not x.min() <= vertex + x.mean() <= x.max():
        return None
    lowest = level + slope * vertex / 2
    cost, size = float(data.log_cost[chosen].mean()), float(vertex + x.mean())
    bend, tilt, middle = _parabola(x - x.mean(), data.log_cost[chosen] - x - data.log_tokens[chosen])
    log_k = bend * vertex**2 + tilt * vertex + middle
    return IsoflopBin(cost, size, float(cost - log_k - size), float(lowest), len(chosen))


def _parabola(x: Array, y: Array) -> tuple[float, float, float]:
    """Coefficients of x^2, x and 1 by least squares."""
    curve, slope, level = np.linalg.lstsq(np.stack([x**2, x, np.ones_like(x)], axis=1), y, rcond=None)[0]
    return float(curve), float(slope), float(level)


def token_note(bins: list[IsoflopBin]) -> tuple[str, ...]:
    """Says so where the tokens of the table are not those of the rule C = 6NT."""
    off = [np.exp(budget.log_tokens + budget.log_params - budget.log_cost) * 6.0 - 1.0 for budget in bins]
    worst = max(off, key=abs)
    if abs(worst) <= TOKENS_AGREE:
        return ()
    return (
        f"isoflop_tokens: the best tokens are the table's, up to {abs(worst):.1%} {'more' if worst > 0 else 'fewer'} than "
        "FLOPs / (6 params)",
    )


def isoflop_lines(bins: list[IsoflopBin]) -> dict[str, PowerLine]:
    """Lines of params, tokens and tokens per param on FLOPs through the minima."""
    cost = np.array([budget.log_cost for budget in bins])
    params = np.array([budget.log_params for budget in bins])
    tokens = np.array([budget.log_tokens for budget in bins])
    return {
        "params": regress(cost, params),
        "tokens": regress(cost, tokens),
        "tokens_per_param": regress(cost, tokens - params),
    }
