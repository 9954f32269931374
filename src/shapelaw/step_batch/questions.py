"""The questions to a fit of the step-and-batch law, each recognised by its options."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shapelaw.errors import UserError
from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.prediction import file_hash, now, sealed
from shapelaw.prescribe.registry import Basis, Question
from shapelaw.prescribe.world import World
from shapelaw.shapes import Shape, check_heads
from shapelaw.step_batch.ask import Size, StepBatchProblem

if TYPE_CHECKING:
    from shapelaw.config import PrescribeConfig

SIZES = (("width", "depth"), ("params",))
"""Options that name a size."""
VALIDATIONS = 25
"""Validations of a run whose loss curve was predicted."""


def _sized(*further: str) -> tuple[tuple[str, ...], ...]:
    """A size and further options."""
    return tuple((*size, *further) for size in SIZES)


def _lowest_loss(options: PrescribeConfig, basis: Basis) -> Prescription:
    return StepBatchProblem(basis.fit, basis.runs).lowest(size_of(options, basis.world))


def _steps_to_loss(options: PrescribeConfig, basis: Basis) -> Prescription:
    assert options.loss is not None
    size = size_of(options, basis.world)
    return StepBatchProblem(basis.fit, basis.runs).reach(size, options.loss, options.batch_tokens)


def _critical_batch(options: PrescribeConfig, basis: Basis) -> Prescription:
    assert options.loss is not None
    return StepBatchProblem(basis.fit, basis.runs).critical(options.loss)


def _loss_curve(options: PrescribeConfig, basis: Basis) -> Prescription:
    """A loss curve; of a shape, it is sealed as a prediction, with the command that trains it."""
    assert options.batch_tokens is not None
    assert options.tokens is not None
    size = size_of(options, basis.world)
    answer = StepBatchProblem(basis.fit, basis.runs).trajectory(size, options.batch_tokens, options.tokens)
    if size.width is None:
        return answer
    trained = _training(answer) if basis.world.suite.name else ()
    return dataclasses.replace(answer, overrides=trained, prediction=prediction_of(answer, basis))


LOWEST_LOSS = Question(
    name="lowest_loss",
    asks="a size alone (width and depth, or params): its smallest loss",
    needs=_sized(),
    takes=(),
    answer=_lowest_loss,
)
STEPS_TO_LOSS = Question(
    name="steps_to_loss",
    asks="a size and loss (and batch_tokens): steps and tokens to it",
    needs=_sized("loss"),
    takes=("batch_tokens",),
    answer=_steps_to_loss,
)
CRITICAL_BATCH = Question(
    name="critical_batch", asks="loss alone: the critical batch", needs=(("loss",),), takes=(), answer=_critical_batch
)
LOSS_CURVE = Question(
    name="loss_curve",
    asks="a size, batch_tokens and tokens: the loss curve",
    needs=_sized("batch_tokens", "tokens"),
    takes=(),
    answer=_loss_curve,
)


def size_of(options: PrescribeConfig, world: World) -> Size:
    """The size in the options: a shape, or parameters as the law counts them.

    Raises:
        UserError: for both, or a shape that train.py would refuse.
    """
    if options.params is not None and (options.width is not None or options.depth is not None):
        raise UserError(f"params={options.params:g}: give either params, or width and depth")
    if options.params is not None:
        return Size(options.params)
    assert options.width is not None
    assert options.depth is not None
    check_heads(Shape(options.width, options.depth, world.rules.head_size))
    counted = world.points([options.width], [options.depth]).counted
    return Size(float(counted[0]), options.width, options.depth)


def prediction_of(answer: Prescription, basis: Basis) -> dict[str, Any]:
    """A loss curve as a sealed prediction, with its origin."""
    names = ("width", "depth", "params", "batch_tokens", "tokens")
    file = _file(basis.folder)
    facts = {
        "written": now(),
        "law": answer.law,
        "fit": file.parent.name,
        "fit_hash": file_hash(file),
        "runs_hash": basis.runs.hash,
        **{name: answer.values[name] for name in names},
        "parameters": dict(basis.fit.parameters),
        "points": answer.tables["curve"],
    }
    return sealed(facts)


def _file(folder: Path) -> Path:
    return folder / "fit.json" if folder.is_dir() else folder


def _training(answer: Prescription) -> tuple[str, ...]:
    """The overrides for train.py; the rest of the configuration is that of the fitted runs."""
    values, batch = answer.values, answer.values["batch_tokens"]
    every = max(round(values["tokens"] / VALIDATIONS / batch), 1) * batch
    spent = (f"batch_tokens={batch:.0f}", f"tokens={values['tokens']:.0f}", f"validation.every_tokens={every:.0f}")
    return ("sweeps=step_batch", f"shape.width={values['width']:.0f}", f"shape.depth={values['depth']:.0f}", *spent)
