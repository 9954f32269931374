"""What a law of sizes and tokens is asked: the best size for a budget, the cheapest for a loss, the loss of a size."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from shapelaw.errors import UserError
from shapelaw.fitting.result import FitResult, load_fit
from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.comparison import compare_laws
from shapelaw.prescribe.limits import Limits
from shapelaw.prescribe.price import Cost, Throughput
from shapelaw.prescribe.registry import Basis, Question, given_options, refuse_idle, register
from shapelaw.prescribe.studies import other_choices

if TYPE_CHECKING:
    from shapelaw.config import ObjectiveConfig, PrescribeConfig

SIZES = ("objective", "space", "aspect_ratio", "vocab_size", "flops")
"""Options that say what sizes are and what they cost."""
SEARCHED = (*SIZES, "rules", "limits")
"""The same where sizes are searched."""


def _best(options: PrescribeConfig, basis: Basis) -> Prescription:
    assert options.budget is not None
    problem, fits = problem_of(options, basis), _compared(options.compare, basis)
    answer = problem.best(options.budget)
    tables = other_choices(problem, options.budget, answer) if options.studies else {}
    if options.compare:
        tables |= compare_laws(fits, basis.runs, options.budget, problem.cost, problem.limits, problem.world).tables
    return dataclasses.replace(answer, tables=tables)


def _reach(options: PrescribeConfig, basis: Basis) -> Prescription:
    assert options.loss is not None
    return problem_of(options, basis).reach(options.loss, options.least)


def _at(options: PrescribeConfig, basis: Basis) -> Prescription:
    assert options.width is not None
    assert options.depth is not None
    assert options.tokens is not None
    return problem_of(options, basis).at(options.width, options.depth, options.tokens)


BEST = register(
    Question(
        name="best",
        asks="budget: what is best for it",
        needs=(("budget",),),
        takes=(*SEARCHED, "compare"),
        answer=_best,
    )
)
REACH = register(
    Question(
        name="reach",
        asks="loss: what reaches it at the least cost",
        needs=(("loss",),),
        takes=(*SEARCHED, "least"),
        answer=_reach,
    )
)
AT = register(
    Question(
        name="at",
        asks="width, depth and tokens: their loss",
        needs=(("width", "depth", "tokens"),),
        takes=SIZES,
        answer=_at,
    )
)


def problem_of(options: PrescribeConfig, basis: Basis) -> Problem:
    """The problem that the options describe.

    Raises:
        UserError: for values out of range, or a law that cannot be asked so.
    """
    given = given_options(options)
    if options.space == "params":
        idle = ("rules",) if options.tokens is not None else ("rules", "flops")
        refuse_idle([text for name, text in given.items() if name in idle], "space=params")
    limits = {name: value for name, value in dataclasses.asdict(options.limits).items() if value is not None}
    return Problem(
        basis.fit,
        basis.world,
        cost_of(options.objective, basis),
        options.space,
        Limits(**limits, aspect_ratio=options.aspect_ratio),
    )


def cost_of(objective: ObjectiveConfig, basis: Basis) -> Cost:
    """What the objective spends.

    Raises:
        UserError: for a rate that is given by half, or runs without measured steps.
    """
    if objective.name not in ("device_hours", "dollars"):
        return Cost(objective.name, served_tokens=objective.inference_tokens)
    if (objective.mfu is None) != (objective.device_flops is None):
        raise UserError(
            f"objective.mfu={objective.mfu}, objective.device_flops={objective.device_flops}: give both, such as 0.4 "
            "and 990e12, or neither to take the runs' measured steps"
        )
    if objective.mfu is not None and objective.device_flops is not None:
        throughput = Throughput.given(objective.device_flops, objective.mfu)
    else:
        throughput = Throughput.measured(basis.runs, basis.world)
    return Cost(objective.name, throughput, objective.price, objective.inference_tokens)


def _compared(folders: list[str], basis: Basis) -> dict[str, FitResult]:
    """The fit itself and those that it is compared with, by law and folder."""
    fits = {_label(basis.folder, basis.fit): basis.fit}
    for folder in map(Path, folders):
        fit = load_fit(folder)
        fits[_label(folder, fit)] = fit
    return fits


def _label(path: Path, fit: FitResult) -> str:
    folder = path.parent if path.name == "fit.json" else path
    return f"{fit.law} {folder.name[-6:]}"
