"""Approach 2: a parabola in log params through the losses of each FLOPs budget, and a line through its minima.

Source: Hoffmann et al. 2022 (arXiv 2203.15556), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shapelaw.config.fitting import TOLERANCE
from shapelaw.errors import UserError
from shapelaw.fitting.lines import LOSS, Array, LineData, PowerLine, Rows, loss_line, regress

CONTRAST = 2.0
"""Points in a bin over points beside it."""
MIN_SIZES = 4
"""Different sizes that a bin needs: one more than the parabola has coefficients."""
MIN_BINS = 3
REAL = 1e-9
"""Imaginary part below which a root is real."""
BIASED, BEYOND = 0.03, 1e3
"""A note reports the parabolas' bias from this relative difference between the best params by parabolas and by cubics, at this
multiple of the largest budget."""
TOKENS_AGREE = 0.01
"""Relative difference of the tokens from FLOPs / (6 params) above which a note reports it."""


@dataclass(frozen=True)
class IsoflopBin:
    """One budget: its mean log cost, and the log params, log tokens and log loss at the parabola's minimum."""

    log_cost: float
    log_params: float
    log_tokens: float
    log_loss: float
    points: int


def isoflop_bins(data: LineData, tolerance: float = TOLERANCE, curve: str = "parabola") -> list[IsoflopBin]:
    """Minima of every budget at which enough sizes were trained, with a minimum between them.

    A budget is a window of costs, as wide as the tolerance, that holds the most points and more than twice as many as
    the rest of a window three times as wide; points spread evenly over the costs form no budget. If a run passes a
    budget more than once, its last point there counts.

    Args:
        data: logs of the rows.
        tolerance: largest spread of the log costs of one budget.
        curve: `parabola`, or `cubic`, which needs one more size in each budget.

    Raises:
        UserError: if the data have fewer than three such budgets.
    """
    order = {"parabola": 2, "cubic": 3}[curve]
    found = [_minimum(data, rows, order) for rows in _budgets(data.log_cost, tolerance)]
    minima = [minimum for minimum in found if minimum is not None]
    if len(minima) < MIN_BINS:
        raise UserError(
            f"method=isoflop: the data have {len(minima)} bins of equal FLOPs (within {tolerance:.0%}, at least "
            f"{MIN_SIZES + order - 2} sizes, the best one not at an end); at least {MIN_BINS} are needed. Runs that "
            "share a schedule of tokens, not of FLOPs, have no such bins: use method=parametric or method=hull"
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


def _minimum(data: LineData, rows: Rows, order: int = 2) -> IsoflopBin | None:
    """Minimum of the least-squares curve of that order, if it has one inside the range of sizes.

    Its tokens are cost / (k params), where k is the rows' FLOPs per token and parameter (6 by the rule C = 6NT). A parabola
    gives k as well, as it changes with the size.
    """
    last = {str(data.runs[row]): row for row in rows}
    chosen = np.array(sorted(last.values()))
    x, y = data.log_params[chosen], data.log_loss[chosen]
    if len(np.unique(np.round(x, 6))) < MIN_SIZES + order - 2:
        return None
    curve = np.polynomial.Polynomial.fit(x - x.mean(), y, order).convert()
    turns = [float(z.real) for z in curve.deriv().roots() if abs(z.imag) < REAL and curve.deriv(2)(z.real) > 0]
    inside = [turn for turn in turns if x.min() <= turn + x.mean() <= x.max()]
    if not inside:
        return None
    vertex = min(inside, key=curve)
    lowest = float(curve(vertex))
    cost, size = float(data.log_cost[chosen].mean()), float(vertex + x.mean())
    bend, tilt, middle = _parabola(x - x.mean(), data.log_cost[chosen] - x - data.log_tokens[chosen])
    log_k = bend * vertex**2 + tilt * vertex + middle
    return IsoflopBin(cost, size, float(cost - log_k - size), float(lowest), len(chosen))


def _parabola(x: Array, y: Array) -> tuple[float, float, float]:
    """Coefficients of x^2, x and 1 by least squares."""
    curve, slope, level = np.linalg.lstsq(np.stack([x**2, x, np.ones_like(x)], axis=1), y, rcond=None)[0]
    return float(curve), float(slope), float(level)


def token_note(bins: list[IsoflopBin]) -> tuple[str, ...]:
    """A note if the tokens of the table are not those of the rule C = 6NT."""
    off = [np.exp(budget.log_tokens + budget.log_params - budget.log_cost) * 6.0 - 1.0 for budget in bins]
    worst = max(off, key=abs)
    if abs(worst) <= TOKENS_AGREE:
        return ()
    return (
        f"isoflop_tokens: the best tokens are taken from the table, up to {abs(worst):.1%} "
        f"{'more' if worst > 0 else 'fewer'} than "
        "FLOPs / (6 params)",
    )


def bias_note(data: LineData, tolerance: float) -> tuple[str, ...]:
    """A note if parabolas and cubics place the best sizes differently. A budget's losses rise more steeply on one side, which
    a parabola cannot follow; the error grows with the range of sizes and with the distance of the best one from the middle.

    Source: arXiv 2603.22339.
    """
    try:
        lines = {
            curve: isoflop_lines(isoflop_bins(data, tolerance, curve))["params"] for curve in ("parabola", "cubic")
        }
    except UserError:
        return (
            f"isoflop_bias: too few sizes per budget ({MIN_SIZES + 1} are needed) to tell how far parabolas are off",
        )
    far = BEYOND * float(np.exp(data.log_cost.max()))
    off = float(lines["parabola"].at(far) / lines["cubic"].at(far) - 1.0)
    if abs(off) < BIASED:
        return ()
    slopes = {curve: line.slope for curve, line in lines.items()}
    return (
        f"isoflop_bias: parabolas put the best params at {far:.3g} FLOPs {abs(off):.1%} {'above' if off > 0 else 'below'} "
        f"those of cubics, and the exponent at {slopes['parabola']:.4f}, not {slopes['cubic']:.4f}: parabolas cannot "
        "have one steeper side; give method.curve=cubic, or train sizes closer to the best (arXiv 2603.22339)",
    )


def isoflop_lines(bins: list[IsoflopBin]) -> dict[str, PowerLine]:
    """Lines of params, tokens, tokens per param and the loss on FLOPs through the minima."""
    cost = np.array([budget.log_cost for budget in bins])
    params = np.array([budget.log_params for budget in bins])
    tokens = np.array([budget.log_tokens for budget in bins])
    return {
        "params": regress(cost, params),
        "tokens": regress(cost, tokens),
        "tokens_per_param": regress(cost, tokens - params),
        LOSS: loss_line(cost, np.array([budget.log_loss for budget in bins])),
    }
