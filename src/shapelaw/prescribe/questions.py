"""What a law of sizes and tokens is asked: the best size for a budget, the cheapest for a loss, the loss of a size."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.comparison import compare_laws, saved_fits
from shapelaw.prescribe.limits import Limits
from shapelaw.prescribe.price import cost_of
from shapelaw.prescribe.registry import Basis, Question, given_options, refuse_idle, register
from shapelaw.prescribe.studies import other_choices

if TYPE_CHECKING:
    from shapelaw.config import PrescribeConfig

SIZES = ("objective", "space", "aspect_ratio", "vocab_size", "flops")
"""Options that say what sizes are and what they cost."""
SEARCHED = (*SIZES, "rules", "limits")
"""The same where sizes are searched."""


def _best(options: PrescribeConfig, basis: Basis) -> Prescription:
    assert options.budget is not None
    problem = problem_of(options, basis)
    answer = problem.best(options.budget)
    tables = other_choices(problem, options.budget, answer) if options.studies else {}
    if options.compare:
        fits = saved_fits([basis.folder, *map(Path, options.compare)])
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
    if options.space == "params":
        idle = ("rules",) if options.tokens is not None else ("rules", "flops")
        refuse_idle([text for name, text in given_options(options).items() if name in idle], "space=params")
    limits = {name: value for name, value in dataclasses.asdict(options.limits).items() if value is not None}
    return Problem(
        basis.fit,
        basis.world,
        cost_of(options.objective, basis.runs, basis.world),
        options.space,
        Limits(**limits, aspect_ratio=options.aspect_ratio),
    )
