"""Best sizes over budgets, as tables: by a law, by the paper's search, and over whole shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from shapelaw.errors import UserError
from shapelaw.figures.evidence import MAIN, CannotDraw, Evidence
from shapelaw.figures.shapes import with_shapes
from shapelaw.fitting.result import FitResult
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.brute import Contenders, Triples, bin_minima, contenders, minima_of, paper_edges
from shapelaw.prescribe.goals import SpendBudget
from shapelaw.prescribe.optimum import exact_each
from shapelaw.prescribe.studies import prescriptions_by_budget
from shapelaw.prescribe.surface import Surface
from shapelaw.prescribe.trust import APART, together
from shapelaw.prescribe.world import Points, World, law_of, reads_shapes

BUDGETS = tuple(np.geomspace(1e18, 1e26, 17))
WHOLE_BUDGETS = tuple(np.geomspace(1e18, 1e26, 81))
WHOLE_HEADS, WHOLE_BLOCKS = 1024, 512
"""Heads and blocks of the largest whole shape in the search."""
BEYOND = 1e2
"""Factor beyond the largest budget of a user's own table up to which figures prescribe."""


def wide_world(fit: FitResult, evidence: Evidence, subset: str = MAIN) -> World:
    """The suite of the runs, with shapes wide and deep enough that no optimum lies at an end."""
    world = World.of(fit, with_shapes(evidence.runs(subset)))
    head = world.rules.head_size
    rules = dataclasses.replace(
        world.rules, even_heads=False, width_min=head, width_max=2**13 * head, depth_min=1, depth_max=2**14
    )
    return dataclasses.replace(world, rules=rules)


def budgets_of(evidence: Evidence, subset: str = MAIN) -> tuple[float, ...]:
    """Budgets from the smallest of a table to well beyond its largest."""
    flops = evidence.runs(subset).flops()
    return tuple(np.geomspace(flops.min(), BEYOND * flops.max(), 17))


def curve(kind: str, fit: FitResult, world: World, budgets: Sequence[float]) -> pd.DataFrame:
    """Prescriptions over budgets: real-valued shapes, or params and tokens at 6N for a law without shapes.

    Budgets without an answer are omitted: those whose best size is the smallest or the largest of all, lies too far from the
    runs, or depends on parameters that the runs do not identify.

    Raises:
        CannotDraw: if no budget has an answer, with the reason for the last.
    """
    space = "relaxed" if reads_shapes(law_of(fit)) else "params"
    problem = Problem(fit, dataclasses.replace(world, counting=_counting(fit)), space=space)
    return _answered(problem, budgets).assign(kind=kind, law=str(fit.law))


def _counting(fit: FitResult) -> str:
    return str(fit.settings.get("counting") or "total")


def _answered(problem: Problem, budgets: Sequence[float]) -> pd.DataFrame:
    """Prescriptions for the budgets that have an answer."""
    found = prescriptions_by_budget(
        problem, [budget for budget in budgets if problem.serves(budget)], refused="left out"
    )
    if found.empty:
        raise CannotDraw(f"law={problem.fit.law} has no answer for any budget: {_refusal(problem, budgets[-1])}")
    return found


def _refusal(problem: Problem, budget: float) -> str:
    try:
        problem.without_refits().best(budget)
    except UserError as error:
        return str(error)
    return ""


def whole_curve(fit: FitResult, world: World, budgets: Sequence[float]) -> pd.DataFrame:
    """Prescriptions over whole shapes that train.py accepts, searched exactly: tokens follow from the budget.

    The shapes are those of prescribe.py's search, extended to 1,024 heads and 512 blocks, so that both name the same shape
    unless it is wider or deeper than the suite's rules allow. Budgets whose best shape is the smallest or the largest of all
    are omitted.

    Args:
        world: world of the runs, with the rules of their suite.
    """
    shapes = _continued(world)
    problem = Problem(fit, world, shapes=shapes, intervals=False)
    best = exact_each(problem.surface, problem.cost, [SpendBudget(budget) for budget in budgets], shapes)
    rows = [
        {"budget": budget, **one.size()} for budget, one in zip(budgets, best, strict=True) if not problem.end_of(one)
    ]
    found = pd.DataFrame(rows, columns=["budget", "params", "tokens", "tokens_per_param", "width", "depth"])
    return found.assign(aspect_ratio=found["width"] / found["depth"], inside=False, kind="whole", law=str(fit.law))


def _continued(world: World) -> Points:
    """Whole shapes by a suite's rules, and wider and deeper ones."""
    rules = dataclasses.replace(world.rules, width_max=WHOLE_HEADS * world.rules.head_size, depth_max=WHOLE_BLOCKS)
    widths, depths = rules.widths(), range(rules.depth_min, rules.depth_max + 1)
    return world.points(np.repeat(widths, len(depths)), np.tile(depths, len(widths)))


def edges_of(fit: FitResult, triples: Triples) -> pd.DataFrame:
    """The paper's brute force under its own fit: each bin's best triple, at the bin's left edge as in the paper."""
    return _with_ratios(bin_minima(Surface.of(fit, refits=False), triples, paper_edges()), "left")


def narrow_bins(triples: Triples) -> list[Contenders]:
    """The triples that can win each of 80 narrow bins of FLOPs under a law without shapes, the same for all such laws."""
    some = Triples(triples.shapes, np.geomspace(triples.tokens[0], triples.tokens[-1], 2000).round())
    return contenders(some, np.geomspace(1e18, 1e26, 81))


def exactly_counted(fit: FitResult, bins: Sequence[Contenders]) -> pd.DataFrame:
    """Eq 1 with FLOPs counted exactly: the best of the paper's triples in narrow bins, at the triple's own FLOPs.

    Among shapes of one size, a law without shapes prefers the one with the fewest FLOPs per token. Bins are omitted if laws
    that fit the runs equally well differ in a size by more than a prescription may (`prescribe.trust.APART`).
    """
    vectors = (tuple(fit.vector), *fit.ridge_vectors)
    found, *others = (minima_of(Surface.of(dataclasses.replace(fit, theta=one), refits=False), bins) for one in vectors)
    told = [together(np.array([one[name] for one in (found, *others)]), APART[name]) for name in ("params", "tokens")]
    return _with_ratios(found[np.logical_and(*told)], "flops").assign(kind="brute", law=str(fit.law))


def _with_ratios(minima: pd.DataFrame, budget: str) -> pd.DataFrame:
    return minima.assign(
        budget=minima[budget],
        aspect_ratio=minima["width"] / minima["depth"],
        tokens_per_param=minima["tokens"] / minima["params"],
        inside=False,
    )
