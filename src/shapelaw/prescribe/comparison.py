"""The prescriptions of several laws for one budget, and the cost of following one law if another is true."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import pandas as pd

from shapelaw.errors import UserError
from shapelaw.fitting.result import FitResult, load_fit
from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.goals import ReachLoss, SpendBudget
from shapelaw.prescribe.limits import UNLIMITED, Limits
from shapelaw.prescribe.optimum import Optimum
from shapelaw.prescribe.price import FLOPS, Cost
from shapelaw.prescribe.world import World, law_of, reads_shapes
from shapelaw.runs.table import RunsTable


@dataclass(frozen=True)
class LawComparison:
    """The prescriptions of several laws for a budget, and the cost of following one law if another is true.

    Args:
        prescriptions: label of the law -> its answer.
        regret: a row per pair: followed, true, loss (of the followed law's size under the true law), best (loss of the true
            law's own size), excess (loss / best - 1), wasted (share of the budget that the true law's own choice would have
            saved for the same loss).
    """

    prescriptions: Mapping[str, Prescription]
    regret: pd.DataFrame

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Each law's own answer, and the cost of following the wrong one."""
        rows = [
            {"law": label, **answer.values, "domain": answer.domain} for label, answer in self.prescriptions.items()
        ]
        return {"laws": pd.DataFrame(rows), "if_another_law_is_true": self.regret}


def saved_fits(paths: Sequence[Path]) -> dict[str, FitResult]:
    """Fits by their law and the end of their folder's name.

    Raises:
        UserError: if one cannot be read.
    """
    fits = ((path.parent if path.name == "fit.json" else path, load_fit(path)) for path in paths)
    return {f"{fit.law} {folder.name[-6:]}": fit for folder, fit in fits}


def compare_laws(
    fits: Mapping[str, FitResult],
    runs: RunsTable,
    budget: float,
    cost: Cost = FLOPS,
    limits: Limits = UNLIMITED,
    world: World | None = None,
) -> LawComparison:
    """Prescribe by every law, and evaluate each answer under every other law.

    Laws without width and depth use the limits' aspect ratio, or that of the first law with shapes. If there is none, all laws
    answer for params and tokens alone, and must count them in the same way.

    Args:
        fits: label -> fit.
        runs: the table of the suite, to which all answers refer.
        world: that suite with other rules than the runs'; each fit's own counting replaces that of the world.

    Raises:
        UserError: for a single law, a budget without an answer by some law, or sizes that are counted differently.
    """
    if len(fits) < 2:
        raise UserError(f"laws: {', '.join(fits) or 'none'} given; a comparison takes at least two fits")
    worlds = {label: _world(fit, runs, world) for label, fit in fits.items()}
    problems = _problems(fits, worlds, budget, cost, limits)
    optima = {label: problem.search(SpendBudget(budget)) for label, problem in problems.items()}
    pairs = [
        {"followed": followed, "true": true, **_regret(optima[followed], problems[true], optima[true], budget)}
        for followed, true in permutations(fits, 2)
    ]
    return LawComparison({label: problems[label].best(budget) for label in fits}, pd.DataFrame(pairs))


def _problems(
    fits: Mapping[str, FitResult], worlds: Mapping[str, World], budget: float, cost: Cost, limits: Limits
) -> dict[str, Problem]:
    """A problem for every law; laws without width and depth use one ratio, or sizes alone."""
    shaped = [label for label, fit in fits.items() if reads_shapes(law_of(fit))]
    problems = {label: Problem(fits[label], worlds[label], cost, limits=limits) for label in shaped}
    ratio = problems[shaped[0]].best(budget).values["aspect_ratio"] if shaped else None
    held = limits.holding(limits.aspect_ratio or ratio)
    if held.aspect_ratio is None:
        _check_countings(worlds)
    space = "params" if held.aspect_ratio is None else "feasible"
    for label in fits:
        if label not in problems:
            problems[label] = Problem(fits[label], worlds[label], cost, space, held)
    return problems


def _check_countings(worlds: Mapping[str, World]) -> None:
    """Refuse laws that mean different sizes by the same params; without a shape, params cannot be counted again."""
    if len({world.counting for world in worlds.values()}) > 1:
        counted = ", ".join(f"{label} counts {world.counting}" for label, world in worlds.items())
        raise UserError(
            f"compare: {counted}, and sizes without a shape cannot be converted; give fits with the same counting, or "
            "fix a ratio with aspect_ratio=NUMBER without space=params"
        )


def _world(fit: FitResult, runs: RunsTable, world: World | None) -> World:
    of_fit = World.of(fit, runs)
    return of_fit if world is None else dataclasses.replace(world, counting=of_fit.counting)


def _regret(choice: Optimum, problem: Problem, optimum: Optimum, budget: float) -> dict[str, float]:
    """Another law's choice under the true law's problem, whose own optimum is given."""
    if choice.points.width is None or choice.points.depth is None:
        point = problem.world.sizes(choice.points.params[:1])
    else:
        point = problem.world.points(choice.points.width[:1], choice.points.depth[:1])
    truth = problem.surface.rows(0, 1)
    loss, best = float(truth.at(point).loss(choice.log_tokens[:1])[0, 0]), float(optimum.value[0])
    enough = problem.without_refits().search(ReachLoss(loss)).value[0]
    return {"loss": loss, "best": best, "excess": loss / best - 1, "wasted": max(1 - float(enough) / budget, 0.0)}
