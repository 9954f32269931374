"""Questions to laws: the best size for a budget, the cheapest size for a loss, the loss of a size or of FLOPs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from shapelaw.errors import UserError
from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.comparison import compare_laws, saved_fits
from shapelaw.prescribe.forecast import ask_flops, ask_size
from shapelaw.prescribe.limits import Limits
from shapelaw.prescribe.prediction import prediction_at
from shapelaw.prescribe.price import cost_of
from shapelaw.prescribe.registry import Basis, Question, given_options, refuse_idle, register
from shapelaw.prescribe.studies import other_choices

if TYPE_CHECKING:
    from shapelaw.config import PrescribeConfig

SIZES = ("objective", "space", "aspect_ratio", "vocab_size", "seq_len", "flops", "unique_tokens", "axes", "accuracy")
"""Options that define sizes and their cost."""
SEARCHED = (*SIZES, "rules", "limits")
"""The same for searches over sizes."""


def _best(options: PrescribeConfig, basis: Basis) -> Prescription:
    budget = options.budget
    assert budget is not None
    problem, answer = _answered(options, basis, lambda problem: problem.best(budget))
    tables = other_choices(problem, budget, answer) if options.studies else {}
    if options.compare:
        fits = saved_fits([basis.folder, *map(Path, options.compare)])
        tables |= compare_laws(fits, basis.runs, budget, problem.cost, problem.limits, problem.world).tables
    return dataclasses.replace(answer, tables=tables)


def _reach(options: PrescribeConfig, basis: Basis) -> Prescription:
    loss = options.loss
    assert loss is not None
    return _answered(options, basis, lambda problem: problem.reach(loss, options.least))[1]


def _at(options: PrescribeConfig, basis: Basis) -> Prescription:
    width, depth, tokens = options.width, options.depth, options.tokens
    assert width is not None
    assert depth is not None
    assert tokens is not None
    problem, answer = _answered(options, basis, lambda problem: problem.at(width, depth, tokens))
    point = basis.world.points([width], [depth])
    return dataclasses.replace(answer, prediction=prediction_at(problem, basis.runs, basis.folder, point, tokens))


def _answered(
    options: PrescribeConfig, basis: Basis, ask: Callable[[Problem], Prescription]
) -> tuple[Problem, Prescription]:
    """The problem and its answer; if the context is assumed, a note gives the answer at other contexts."""
    problem = problem_of(options, basis)
    answer = ask(problem)
    if options.space == "params" or not basis.world.assumes_context:
        return problem, answer
    contexts = (basis.world.seq_len // 2, basis.world.seq_len * 2)
    note = f"the context matters: {'; '.join(_at_context(options, basis, ask, seq_len) for seq_len in contexts)}"
    return problem, dataclasses.replace(answer, notes=(*answer.notes, note))


def _at_context(options: PrescribeConfig, basis: Basis, ask: Callable[[Problem], Prescription], seq_len: int) -> str:
    """The answer at a context, in a few words."""
    suite = dataclasses.replace(basis.world.suite, seq_len=seq_len)
    problem = problem_of(options, dataclasses.replace(basis, world=dataclasses.replace(basis.world, suite=suite)))
    try:
        values = ask(problem.without_refits()).values
    except UserError as error:
        return f"seq_len={seq_len} is refused ({error})"
    width, depth = (
        f"{size:.0f}" if size.is_integer() else f"{size:.5g}" for size in (values["width"], values["depth"])
    )
    return (
        f"seq_len={seq_len} would give {width}x{depth}, {values['tokens']:.3g} tokens, {values['flops']:.3g} FLOPs and a "
        f"loss of {values['loss']:.5g}"
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


SIZE = register(
    Question(
        name="size",
        asks="params and tokens: their loss, or params and loss: the tokens",
        needs=(("params", "tokens"), ("params", "loss")),
        takes=("unique_tokens", "axes", "accuracy"),
        answer=ask_size,
    )
)
FLOPS = register(
    Question(
        name="flops",
        asks="budget: its loss, or loss: the FLOPs for it",
        needs=(("budget",), ("loss",)),
        takes=(),
        answer=ask_flops,
    )
)


def problem_of(options: PrescribeConfig, basis: Basis) -> Problem:
    """The problem that the options describe.

    Raises:
        UserError: for values out of range, or a law that cannot answer such questions.
    """
    if options.space == "params":
        idle = ("rules", "seq_len") if options.tokens is not None else ("rules", "seq_len", "flops")
        refuse_idle([text for name, text in given_options(options).items() if name in idle], "space=params")
    return Problem(
        basis.fit,
        basis.world,
        cost_of(options.objective, basis.runs, basis.world),
        options.space,
        Limits(**vars(options.limits), aspect_ratio=options.aspect_ratio),
    )
