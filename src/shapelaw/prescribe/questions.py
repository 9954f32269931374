"""What a law of sizes and tokens is asked: the best size for a budget, the cheapest for a loss, the loss of a size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from shapelaw.errors import UserError
from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.comparison import compare_laws, saved_fits
from shapelaw.prescribe.limits import Limits
from shapelaw.prescribe.price import cost_of
from shapelaw.prescribe.registry import Basis, Question, given_options, refuse_idle, register
from shapelaw.prescribe.studies import other_choices

if TYPE_CHECKING:
    from shapelaw.config import PrescribeConfig

SIZES = ("objective", "space", "aspect_ratio", "vocab_size", "seq_len", "flops")
"""Options that say what sizes are and what they cost."""
SEARCHED = (*SIZES, "rules", "limits")
"""The same where sizes are searched."""


def _best(options: PrescribeConfig, basis: Basis) -> Prescription:
    assert options.budget is not None
    budget = options.budget
    answer = _answered(lambda problem: problem.best(budget), options, basis)
    problem = problem_of(options, basis)
    tables = other_choices(problem, budget, answer) if options.studies else {}
    if options.compare:
        fits = saved_fits([basis.folder, *map(Path, options.compare)])
        tables |= compare_laws(fits, basis.runs, budget, problem.cost, problem.limits, problem.world).tables
    return dataclasses.replace(answer, tables=tables)


def _reach(options: PrescribeConfig, basis: Basis) -> Prescription:
    assert options.loss is not None
    loss = options.loss
    return _answered(lambda problem: problem.reach(loss, options.least), options, basis)


def _at(options: PrescribeConfig, basis: Basis) -> Prescription:
    assert options.width is not None
    assert options.depth is not None
    assert options.tokens is not None
    size = (options.width, options.depth, options.tokens)
    return _answered(lambda problem: problem.at(*size), options, basis)


def _answered(ask: Callable[[Problem], Prescription], options: PrescribeConfig, basis: Basis) -> Prescription:
    """The answer; where the context is assumed, with a note of what it would be at half and at twice of it."""
    answer = ask(problem_of(options, basis))
    if options.space == "params" or not basis.world.assumes_context:
        return answer
    contexts = (basis.world.seq_len // 2, basis.world.seq_len * 2)
    others = "; ".join(_at_context(ask, options, basis, seq_len) for seq_len in contexts)
    return dataclasses.replace(answer, notes=(*answer.notes, f"the context matters: {others}"))


def _at_context(ask: Callable[[Problem], Prescription], options: PrescribeConfig, basis: Basis, seq_len: int) -> str:
    """The answer at another context, in a few words."""
    world = dataclasses.replace(basis.world, suite=dataclasses.replace(basis.world.suite, seq_len=seq_len))
    try:
        values = ask(problem_of(options, dataclasses.replace(basis, world=world)).without_refits()).values
    except UserError as error:
        return f"with seq_len={seq_len} {error}"
    return (
        f"with seq_len={seq_len} it would be {values['width']:.5g}x{values['depth']:.5g}, {values['tokens']:.3g} tokens, "
        f"{values['flops']:.3g} FLOPs and a loss of {values['loss']:.5g}"
    )


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
        idle = ("rules", "seq_len") if options.tokens is not None else ("rules", "seq_len", "flops")
        refuse_idle([text for name, text in given_options(options).items() if name in idle], "space=params")
    limits = {name: value for name, value in dataclasses.asdict(options.limits).items() if value is not None}
    return Problem(
        basis.fit,
        basis.world,
        cost_of(options.objective, basis.runs, basis.world),
        options.space,
        Limits(**limits, aspect_ratio=options.aspect_ratio),
    )
