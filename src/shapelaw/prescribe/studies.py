"""The cost of choices other than the best: overtraining, a wrong aspect ratio, every other shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.hull import frontier
from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.goals import AtTokens, ReachLoss, SpendBudget
from shapelaw.prescribe.search import SizeSearch
from shapelaw.prescribe.world import reads_shapes
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]

OVERTRAINING = tuple(2.0 ** (k / 2) for k in range(-4, 5))
"""Factors of tokens in Fig 8. The authors' factor 2^k multiplies tokens by 2^(k/2): at a fixed budget params fall by about
as much, so that tokens per param change by about 2^k."""
RATIO_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Factors on the best aspect ratio, for the cost of a wrong one."""
ENDS = ("low", "high")
MEASURED = 0.01
"""How far (relative) a validation may lie from the requested tokens."""


def other_choices(problem: SizeSearch, budget: float, best: Prescription) -> dict[str, pd.DataFrame]:
    """The cost of other token counts and other aspect ratios at a budget, as far as the problem has them.

    Args:
        best: the answer for this budget.

    Returns:
        tables of `overtraining` and of `aspect_ratio`.
    """
    tables = {}
    if problem.cost.unit == "flops" and not problem.cost.served_tokens and problem.limits.aspect_ratio is None:
        tables["overtraining"] = overtraining(problem, budget)
    if reads_shapes(problem.surface.law):
        ratios = [best.values["aspect_ratio"] * factor for factor in RATIO_FACTORS]
        possible = [ratio for ratio in ratios if not problem.relaxed(ratio).region.empty]
        tables["aspect_ratio"] = aspect_ratio_cost(problem, budget, possible)
    return tables


def overtraining(problem: SizeSearch, budget: float, factors: Sequence[float] = OVERTRAINING) -> pd.DataFrame:
    """Predicted loss if a budget is spent on more or fewer tokens than optimal, with the size re-optimised to pay for them.

    For tokens T = factor * T_opt every size of budget / T FLOPs per token is tried: params = budget / (6 T) in the space
    `params`, else the width (and the depth that follows) of lowest loss.

    Args:
        problem: priced in flops, without serving; its space is relaxed unless it is `params`, and its limits apply.
        factors: factors on the tokens.

    Returns:
        a row per factor: factor, tokens, params, width, depth, tokens_per_param, loss, excess (loss over the lowest, minus
        1), low and high (ends of the loss over the refits); without sizes outside the ranges.

    Raises:
        UserError: for another price.

    Source: Gemstones (arXiv 2502.06857), Fig 8.
    """
    if problem.cost.unit != "flops" or problem.cost.served_tokens:
        raise UserError("overtraining: needs a budget of training FLOPs; give objective=flops without inference_tokens")
    relaxed = problem if problem.space == "params" else problem.relaxed()
    best = relaxed.search(SpendBudget(budget))
    rows = []
    for factor in factors:
        tokens = factor * math.exp(best.log_tokens[0])
        optimum = relaxed.search_priced(AtTokens(tokens), budget / tokens, best)
        if math.isfinite(optimum.value[0]):
            loss = float(optimum.value[0])
            row = {"factor": factor, **optimum.size(), "loss": loss, "excess": float(loss / best.value[0] - 1)}
            rows.append(row | relaxed.spread(optimum.value))
    return pd.DataFrame(rows)


def aspect_ratio_cost(problem: SizeSearch, budget: float, ratios: Sequence[float]) -> pd.DataFrame:
    """The cost of a fixed width over depth other than the best, with everything else re-optimised.

    Args:
        problem: its shapes are relaxed within the suite's ranges and its limits, except for a fixed ratio.
        budget: budget in the unit of the problem's cost.
        ratios: width / depth.

    Returns:
        a row per ratio: aspect_ratio, tokens, params, width, depth, tokens_per_param, loss, excess (loss over the lowest,
        minus 1) and budget_factor (the budget that this ratio needs for the lowest loss, over the budget; infinite if it
        never reaches it), each of the last two with _low and _high over the refits.

    Raises:
        UserError: for a law without width and depth, or a ratio that no shape has.
    """
    if not reads_shapes(problem.surface.law):
        raise UserError(f"law={problem.fit.law}: has no width and depth, so the aspect ratio has no cost under it")
    best = problem.relaxed().search(SpendBudget(budget))
    rows = []
    for ratio in ratios:
        held = problem.relaxed(ratio)
        optimum, reached = held.search(SpendBudget(budget)), held.search(ReachLoss(best.value[:, None]))
        measures = {"excess": optimum.value / best.value - 1, "budget_factor": reached.value / budget}
        row = {"aspect_ratio": ratio, **optimum.size(), "loss": float(optimum.value[0])}
        for name, values in measures.items():
            row[name] = float(values[0])
            row |= {f"{name}_{end}": value for end, value in held.spread(values).items()}
        rows.append(row)
    return pd.DataFrame(rows)


def overspend(problem: SizeSearch, losses: Sequence[float]) -> pd.DataFrame:
    """The cost at which every whole shape reaches a loss, over that of the best shape, by the law.

    Args:
        problem: its space must be `feasible`; its cost sets the unit (FLOPs, device hours, dollars).
        losses: targets, nats per token.

    Returns:
        a row per shape and loss: loss, width, depth, params, tokens, cost, overspend (cost over the lowest; infinite
        if the shape never reaches the loss).

    Raises:
        UserError: for another space, or a loss that no shape reaches.

    Source: Gemstones, Fig 7, with the law instead of its runs.
    """
    if problem.space != "feasible" or problem.shapes is None:
        raise UserError(f"space={problem.space}: overspend compares whole shapes; give space=feasible")
    shapes, frames = problem.shapes, []
    alone = problem.without_refits()
    for loss in losses:
        cost, log_tokens = (values[0] for values in alone.objective(ReachLoss(loss)).values(shapes))
        if not np.isfinite(cost).any():
            raise UserError(f"loss={loss:g}: no shape reaches it; the lowest is {problem.lowest_loss():.6g}")
        sizes = {"width": shapes.width, "depth": shapes.depth, "params": shapes.params}
        frame = pd.DataFrame({"loss": loss, **sizes, "tokens": np.exp(log_tokens), "cost": cost})
        frames.append(frame.assign(overspend=cost / cost.min()))
    return pd.concat(frames, ignore_index=True)


def overspend_measured(runs: RunsTable, tokens: float = 3e11, cost: str = "flops") -> pd.DataFrame:
    """The cost of every run's loss at a token count, over the cost of that loss by the best runs of all token counts.

    The best are the vertices of the lower convex hull of all points in (log cost, log loss), joined by straight lines.

    Args:
        runs: the table.
        tokens: validations within 1% of it count.
        cost: `flops` or `device_hours`.

    Returns:
        a row per run: run, width, depth, params, tokens, loss, cost, overspend (cost over the hull's at that loss).

    Raises:
        UserError: if no run has such a validation, or the cost is unknown.
    """
    rows = _paid(runs, cost)
    nearest = _validated_near(rows, tokens)
    log_cost, log_loss = np.log(rows["cost"].to_numpy()), np.log(rows["loss"].to_numpy())
    best = _on_hull(log_cost, log_loss, np.log(nearest["loss"].to_numpy()))
    table: pd.DataFrame = nearest.assign(overspend=nearest["cost"] / np.exp(best))
    return table.sort_values("overspend").reset_index(drop=True)


def overspend_at_tokens(runs: RunsTable, tokens: float = 3e11, cost: str = "flops") -> pd.DataFrame:
    """The cost of every run's loss at a token count, over that of the best runs of the same token count.

    The best are the vertices of the lower convex hull of the points at these tokens alone, in (log cost, log loss). As in the
    paper, a run is compared with the vertex whose loss is nearest, so the result may be below 1.

    Args:
        runs: the table.
        tokens: validations within 1% of it count; the paper's are those at 299B to 301B.
        cost: `flops` or `device_hours`.

    Returns:
        a row per run: run, width, depth, params, tokens, loss, cost, frontier (whether it is a vertex), overspend (cost over
        that of the vertex of nearest loss) and overspend_same_loss (over the hull's cost at the run's own loss).

    Raises:
        UserError: as for `overspend_measured`.

    Source: Gemstones (arXiv 2502.06857), Fig 7; plotters/approach_1_extra_plots.py of its repository.
    """
    near = _validated_near(_paid(runs, cost), tokens).reset_index(drop=True)
    paid, loss = near["cost"].to_numpy(), near["loss"].to_numpy()
    vertices = frontier(np.log(paid), np.log(loss))
    nearest = vertices[np.abs(loss[vertices][:, None] - loss).argmin(axis=0)]
    table: pd.DataFrame = near.assign(
        frontier=np.isin(np.arange(len(near)), vertices),
        overspend=paid / paid[nearest],
        overspend_same_loss=paid / np.exp(_on_hull(np.log(paid), np.log(loss), np.log(loss))),
    )
    return table.sort_values("overspend").reset_index(drop=True)


def _paid(runs: RunsTable, cost: str) -> pd.DataFrame:
    """The rows after some training, with their cost."""
    if cost not in ("flops", "device_hours"):
        raise UserError(f"cost={cost}: allowed values are flops, device_hours")
    paid = runs.flops() if cost == "flops" else runs.column("device_hours", "cost=device_hours")
    rows: pd.DataFrame = runs.kept.assign(cost=paid)
    return rows[rows["step"] > 0] if "step" in rows else rows


def _validated_near(rows: pd.DataFrame, tokens: float) -> pd.DataFrame:
    """Each run's validation nearest to a token count, of those within 1% of it."""
    near = rows[np.abs(rows["tokens"] / tokens - 1) <= MEASURED]
    if near.empty:
        raise UserError(
            f"tokens={tokens:.4g}: no run was validated within {MEASURED:.0%} of it; the runs' tokens are "
            f"{rows['tokens'].min():.4g} to {rows['tokens'].max():.4g}"
        )
    nearest: pd.DataFrame = near.assign(far=np.abs(near["tokens"] - tokens)).sort_values("far").drop_duplicates("run")
    return nearest[[name for name in ("run", "width", "depth", "params", "tokens", "loss", "cost") if name in nearest]]


def _on_hull(log_cost: Array, log_loss: Array, at: Array) -> Array:
    """Log cost at which the hull of the points has the log losses `at`."""
    vertices = frontier(log_cost, log_loss)
    return np.interp(at, log_loss[vertices][::-1], log_cost[vertices][::-1])


def prescriptions_by_budget(problem: Problem, budgets: Sequence[float], refused: str = "raise") -> pd.DataFrame:
    """The best size at each of several budgets, with its interval.

    Args:
        refused: what to do with a budget that has no answer: `raise`, or `left out`.

    Returns:
        a row per budget: budget, every value of its prescription, and NAME_low and NAME_high if there are intervals.

    Raises:
        UserError: as for `Problem.best`.

    Source: Gemstones, Figs 5, 12-19 and 21.
    """
    rows = []
    for budget in budgets:
        try:
            answer = problem.best(budget)
        except UserError:
            if refused == "raise":
                raise
            continue
        ends = {
            f"{name}_{end}": value
            for name, pair in answer.intervals.items()
            for end, value in zip(ENDS, pair, strict=True)
        }
        rows.append({"budget": budget, **answer.values, **ends, "inside": answer.inside})
    return pd.DataFrame(rows)
