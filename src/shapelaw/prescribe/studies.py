"""What a choice other than the best costs: overtraining, a wrong aspect ratio, every other shape, another law."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.hull import frontier
from shapelaw.fitting.result import FitResult
from shapelaw.prescribe.answer import LEVEL, Prescription
from shapelaw.prescribe.limits import SAME, UNLIMITED, Limits
from shapelaw.prescribe.price import Cost
from shapelaw.prescribe.problem import FLOPS, Problem
from shapelaw.prescribe.search import AtTokens, Found, Question, ReachLoss, SpendBudget, zoom
from shapelaw.prescribe.world import Points, World, law_of, reads_shapes
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]

OVERTRAINING = tuple(2.0 ** (k / 2) for k in range(-4, 5))
"""Factors of tokens in Fig 8. The authors' factor 2^k multiplies tokens by 2^(k/2): at a fixed budget params fall by about
as much, so that tokens per param change by about 2^k."""
ENDS = ("low", "high")
SCANNED = 20_001
"""Widths among which those are looked for that can have a given cost per token."""
MEASURED = 0.01
"""How far (relative) a validation may lie from the asked tokens."""


def overtraining(problem: Problem, budget: float, factors: Sequence[float] = OVERTRAINING) -> pd.DataFrame:
    """Predicted loss when a budget is spent on more or fewer tokens than are best, the size re-optimised to pay for them.

    For tokens T = factor * T_opt every size of budget / T FLOPs per token is tried: params = budget / (6 T) in the space
    `params`, else the width (and the depth that follows) of lowest loss.

    Args:
        problem: priced in flops, without serving; its space is taken as relaxed unless it is `params`, its limits hold.
        factors: of the tokens.

    Returns:
        a row per factor: factor, tokens, params, width, depth, tokens_per_param, loss, excess (loss over the lowest, minus
        1), low and high (ends of the loss over the refits); sizes that the ranges do not hold are left out.

    Raises:
        UserError: for another price.

    Source: Gemstones (arXiv 2502.06857), Fig 8.
    """
    if problem.cost.unit != "flops" or problem.cost.served_tokens:
        raise UserError(
            "overtraining: is asked for a budget of training FLOPs; give objective=flops, no inference_tokens"
        )
    relaxed = problem if problem.space == "params" else relaxed_problem(problem)
    best = relaxed.search(SpendBudget(budget))
    rows = []
    for factor in factors:
        tokens = factor * math.exp(best.log_tokens[0])
        found = _at_tokens(relaxed, tokens, budget / tokens, best)
        if math.isfinite(found.value[0]):
            excess = float(found.value[0] / best.value[0] - 1)
            row = {"factor": factor, **_size(found), "loss": float(found.value[0]), "excess": excess}
            rows.append(row | _ends(problem, found.value))
    return pd.DataFrame(rows)


def relaxed_problem(problem: Problem, ratio: float | None = None) -> Problem:
    """The same over real-valued shapes, a ratio held or none."""
    return problem.replaced(space="relaxed", limits=problem.limits.holding(ratio))


def _at_tokens(problem: Problem, tokens: float, flops_per_token: float, best: Found) -> Found:
    """The size of lowest loss among those of so many FLOPs per token.

    Few widths may have an allowed depth of so many: those that do are looked for first, and the best size's own is tried.
    """
    question = Question(problem.surface, problem.cost, AtTokens(tokens), problem.coefficients)
    (low, high), region = problem.box(), problem.region
    if problem.space == "params":
        log_params = np.array([math.log(flops_per_token / 6.0)])
        inside = low - SAME <= log_params <= high + SAME
        return zoom(question, lambda logs: problem.build(np.where(inside, logs, np.nan)), log_params, log_params)

    def build(logs: Array) -> Points:
        width = np.exp(logs[..., 0])
        depth = problem.world.depth_at(width, flops_per_token)
        inside = region.inside(width, depth)
        return problem.world.points(width, np.where(inside, depth, np.nan), relaxed=True)

    assert best.points.width is not None
    logs, step = np.linspace(low[0], high[0], SCANNED, retstep=True)
    logs = np.append(logs, np.log(best.points.width[0]))
    some = logs[np.isfinite(build(logs[:, None]).params)]
    ends = (some.min() - step, some.max() + step) if len(some) else (low[0], high[0])
    return zoom(question, build, *np.array(ends)[:, None])


def aspect_ratio_cost(problem: Problem, budget: float, ratios: Sequence[float]) -> pd.DataFrame:
    """What holding a width over depth other than the best costs, everything else re-optimised.

    Args:
        problem: its shapes are taken as relaxed within the suite's ranges and its limits, a held ratio apart.
        budget: in the unit of the problem's cost.
        ratios: width / depth.

    Returns:
        a row per ratio: aspect_ratio, tokens, params, width, depth, tokens_per_param, loss, excess (loss over the lowest,
        minus 1) and budget_factor (the budget that this ratio needs for the lowest loss, over the budget; infinite where
        it never gets there), each of the last two with _low and _high over the refits.

    Raises:
        UserError: for a law without width and depth, or a ratio that no shape has.
    """
    if not reads_shapes(law_of(problem.fit)):
        raise UserError(f"law={problem.fit.law}: has no width and depth, so no aspect ratio costs anything under it")
    best = relaxed_problem(problem).search(SpendBudget(budget))
    rows = []
    for ratio in ratios:
        held = relaxed_problem(problem, ratio)
        found, reached = held.search(SpendBudget(budget)), held.search(ReachLoss(best.value[:, None]))
        measures = {"excess": found.value / best.value - 1, "budget_factor": reached.value / budget}
        row = {"aspect_ratio": ratio, **_size(found), "loss": float(found.value[0])}
        for name, values in measures.items():
            row[name] = float(values[0])
            row |= {f"{name}_{end}": value for end, value in _ends(problem, values).items()}
        rows.append(row)
    return pd.DataFrame(rows)


def overspend(problem: Problem, losses: Sequence[float]) -> pd.DataFrame:
    """What every whole shape pays to reach a loss, over what the best shape pays, by the law.

    Args:
        problem: of the space `feasible`; its cost says in which unit (FLOPs, device hours, dollars).
        losses: targets, nats per token.

    Returns:
        a row per shape and loss: loss, width, depth, params, tokens, cost, overspend (cost over the lowest; infinite
        where the shape never gets there).

    Raises:
        UserError: for another space, or a loss that no shape reaches.

    Source: Gemstones, Fig 7, for the law in place of its runs.
    """
    if problem.space != "feasible" or problem.shapes is None:
        raise UserError(f"space={problem.space}: overspend compares whole shapes; give space=feasible")
    shapes, frames = problem.shapes, []
    own = Question(problem.surface.rows(0, 1), problem.cost, ReachLoss(0.0), _first(problem.coefficients))
    for loss in losses:
        question = Question(own.surface, own.cost, ReachLoss(loss), own.coefficients)
        cost, log_tokens = (values[0] for values in question.ask(shapes))
        if not np.isfinite(cost).any():
            raise UserError(f"loss={loss:g}: no shape reaches it; the lowest is {problem.lowest_loss():.6g}")
        sizes = {"width": shapes.width, "depth": shapes.depth, "params": shapes.params}
        frame = pd.DataFrame({"loss": loss, **sizes, "tokens": np.exp(log_tokens), "cost": cost})
        frames.append(frame.assign(overspend=cost / cost.min()))
    return pd.concat(frames, ignore_index=True)


def overspend_measured(runs: RunsTable, tokens: float = 3e11, cost: str = "flops") -> pd.DataFrame:
    """What every run paid for its loss at a token count, over what the best runs paid for that loss.

    The best are the vertices of the lower convex hull of all points in (log cost, log loss), joined by straight lines.

    Args:
        runs: the table.
        tokens: validations within 1% of it count.
        cost: `flops` or `device_hours`.

    Returns:
        a row per run: run, width, depth, params, tokens, loss, cost, overspend (cost over the hull's at that loss).

    Raises:
        UserError: if no run has such a validation, or the cost is unknown.

    Source: Gemstones, Fig 7.
    """
    if cost not in ("flops", "device_hours"):
        raise UserError(f"cost={cost}: allowed are flops, device_hours")
    paid = runs.flops() if cost == "flops" else runs.column("device_hours", "cost=device_hours")
    kept = runs.kept.assign(cost=paid)
    kept = kept[kept["step"] > 0] if "step" in kept else kept
    near = kept[np.abs(kept["tokens"] / tokens - 1) <= MEASURED]
    if near.empty:
        raise UserError(
            f"tokens={tokens:.4g}: no run was validated within {MEASURED:.0%} of it; the runs' tokens are "
            f"{kept['tokens'].min():.4g} to {kept['tokens'].max():.4g}"
        )
    log_cost, log_loss = np.log(kept["cost"].to_numpy()), np.log(kept["loss"].to_numpy())
    vertices = frontier(log_cost, log_loss)
    nearest = near.assign(far=np.abs(near["tokens"] - tokens)).sort_values("far").drop_duplicates("run")
    own = np.log(nearest["loss"].to_numpy())
    best = np.interp(own, log_loss[vertices][::-1], log_cost[vertices][::-1])
    names = [name for name in ("run", "width", "depth", "params", "tokens", "loss", "cost") if name in nearest]
    found: pd.DataFrame = nearest[names].assign(overspend=nearest["cost"] / np.exp(best))
    return found.sort_values("overspend").reset_index(drop=True)


@dataclass(frozen=True)
class LawComparison:
    """What several laws prescribe for a budget, and what following one costs if another is true.

    Args:
        prescriptions: label of the law -> its answer.
        regret: a row per pair: followed, true, loss (of the followed law's size under the true law), best (what the true
            law's own size gets), excess (loss / best - 1), wasted (share of the budget with which the true law's own
            choice would have got that loss all the same).
    """

    prescriptions: Mapping[str, Prescription]
    regret: pd.DataFrame


def compare_laws(
    fits: Mapping[str, FitResult],
    runs: RunsTable,
    budget: float,
    cost: Cost = FLOPS,
    limits: Limits = UNLIMITED,
    world: World | None = None,
) -> LawComparison:
    """Prescribe by every law and price each answer under every other.

    Laws without width and depth hold the limits' aspect ratio, or that of the first law that has them; where there is none,
    all are asked for params and tokens alone, as they all must count them then.

    Args:
        fits: label -> fit.
        runs: the table of the suite; every fit is asked about this suite.
        world: that suite with other rules than the runs'; its counting gives way to each fit's own.

    Raises:
        UserError: for a single law, a budget that a law cannot serve, or sizes that are not counted alike.
    """
    if len(fits) < 2:
        raise UserError(f"laws: {', '.join(fits) or 'none'} given; comparing takes at least two fits")
    worlds = {label: _world(fit, runs, world) for label, fit in fits.items()}
    shaped = [label for label, fit in fits.items() if reads_shapes(law_of(fit))]
    problems = {label: Problem(fits[label], worlds[label], cost, limits=limits) for label in shaped}
    ratio = problems[shaped[0]].best(budget).values["aspect_ratio"] if shaped else None
    held = limits.holding(limits.aspect_ratio or ratio)
    if held.aspect_ratio is None:
        _check_countings(worlds)
    for label in fits:
        if label not in problems:
            space = "params" if held.aspect_ratio is None else "feasible"
            problems[label] = Problem(fits[label], worlds[label], cost, space, held)
    found = {label: one.search(SpendBudget(budget)) for label, one in problems.items()}
    answers = {label: problems[label].best(budget) for label in fits}
    pairs = [_regret(a, found[a], b, problems[b], found[b], budget) for a in fits for b in fits if a != b]
    return LawComparison(answers, pd.DataFrame(pairs))


def _check_countings(worlds: Mapping[str, World]) -> None:
    """Refuse laws that mean different sizes by the same params: without a shape none can be counted anew."""
    if len({world.counting for world in worlds.values()}) > 1:
        counted = ", ".join(f"{label} counts {world.counting}" for label, world in worlds.items())
        raise UserError(
            f"compare: {counted}, and sizes without a shape cannot be counted anew; give fits of one counting, or hold a "
            "ratio by aspect_ratio=NUMBER without space=params"
        )


def _world(fit: FitResult, runs: RunsTable, world: World | None) -> World:
    own = World.of(fit, runs)
    return own if world is None else dataclasses.replace(world, counting=own.counting)


def _regret(followed: str, choice: Found, true: str, problem: Problem, own: Found, budget: float) -> dict[str, object]:
    """The followed law's choice under the true law."""
    if choice.points.width is None or choice.points.depth is None:
        point = problem.world.sizes(choice.points.params[:1])
    else:
        point = problem.world.points(choice.points.width[:1], choice.points.depth[:1])
    truth = problem.surface.rows(0, 1)
    loss = float(truth.at(point).loss(choice.log_tokens[:1])[0, 0])
    enough = problem.replaced(intervals=False, shapes=problem.shapes).search(ReachLoss(loss)).value[0]
    best = float(own.value[0])
    wasted = max(1 - float(enough) / budget, 0.0)
    return {"followed": followed, "true": true, "loss": loss, "best": best, "excess": loss / best - 1, "wasted": wasted}


def _size(found: Found) -> dict[str, float]:
    """The fit's own size of a search."""
    points, tokens = found.points, math.exp(found.log_tokens[0])
    shapes = (
        {} if points.width is None or points.depth is None else {"width": points.width[0], "depth": points.depth[0]}
    )
    sizes = {"tokens": tokens, "params": points.params[0], **shapes, "tokens_per_param": tokens / points.params[0]}
    return {name: float(value) for name, value in sizes.items()}


def _ends(problem: Problem, values: Array) -> dict[str, float]:
    """Interval of a quantity over the refits; nothing without them."""
    drawn = values[1:]
    if len(drawn) < 2:
        return {}
    level = float((problem.fit.settings.get("bootstrap") or {}).get("level", LEVEL))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="closest_observation")
    return {"low": float(low), "high": float(high)}


def _first(coefficients: Array | None) -> Array | None:
    return None if coefficients is None else coefficients[:1]


def prescriptions_by_budget(problem: Problem, budgets: Sequence[float]) -> pd.DataFrame:
    """The best size at each of several budgets, with its interval.

    Returns:
        a row per budget: budget, every value of its prescription, and NAME_low and NAME_high where there are intervals.

    Raises:
        UserError: as `Problem.best`.

    Source: Gemstones, Figs 5, 12-19 and 21.
    """
    rows = []
    for budget in budgets:
        found = problem.best(budget)
        ends = {
            f"{name}_{end}": value
            for name, pair in found.intervals.items()
            for end, value in zip(ENDS, pair, strict=True)
        }
        rows.append({"budget": budget, **found.values, **ends, "inside": found.inside})
    return pd.DataFrame(rows)
