"""Prescribing as the work of a script: a table in the terminal, a YAML, and the overrides that train what it says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from omegaconf import DictConfig

from shapelaw.config import PrescribeConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.counting import FLOPS_CONVENTIONS
from shapelaw.errors import UserError
from shapelaw.files import check_room
from shapelaw.fitting.result import FitResult
from shapelaw.fitting.spec import LINE_METHODS
from shapelaw.prescribe.accuracy import FittedAccuracy
from shapelaw.prescribe.answer import Prescription, command
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.axes import remarks_of_axes, usual_axes
from shapelaw.prescribe.domain import domain_of_shapes
from shapelaw.prescribe.lines import best_by_lines
from shapelaw.prescribe.registry import Basis, question_of
from shapelaw.prescribe.world import World, asked_law
from shapelaw.runs.table import RunsTable
from shapelaw.suite import Suite
from shapelaw.verbs.answer_files import write_answer
from shapelaw.verbs.prescribe_summary import show
from shapelaw.verbs.saved_fits import newest_fit, read
from shapelaw.verbs.suites import find
from shapelaw.wording import spelt

FILES_BYTES = 1e5
"""Approximate bytes of an answer and its figure."""
NEAR = 100.0
"""A fit should have an answer within this factor of the largest run's FLOPs."""


def prescribe_size(config: DictConfig) -> float:
    """Answer the question of the configuration, print and write the answer; returns the predicted loss.

    Raises:
        UserError: for bad input.
    """
    options: PrescribeConfig = to_dataclass(config)
    check_room(Path(options.outputs_dir) / "prescriptions", FILES_BYTES, "an answer")
    answer = prescribe(options)
    path = write(options, answer)
    show(answer, path)
    return answer.values["loss"]


def prescribe(options: PrescribeConfig) -> Prescription:
    """The answer to the question of the options, by the fit that they name or the newest that can answer.

    Raises:
        UserError: for options that match no question of the fit's law, or values out of range.
    """
    path, newer = (Path(options.fit), None) if options.fit else newest_fit(Path(options.outputs_dir) / "fits", options)
    fit, runs = read(path)
    if fit.law is None and fit.method in LINE_METHODS:
        return dataclasses.replace(best_by_lines(options, fit, runs), fit=str(path))
    question = question_of(options, asked_law(fit))
    remarks = remarks_of_axes(options.axes, asked_law(fit), runs)
    basis = Basis(fit, runs, world_of(options, fit, runs), path)
    answer = question.answer(options, basis)
    return dataclasses.replace(
        answer,
        fit=str(path),
        command=command(basis.world, answer.overrides),
        notes=(*answer.notes, *remarks, *_passed_over(newer)),
    )


def _passed_over(newer: Path | None) -> list[str]:
    """A note on a newer fit that could have answered, but without a shape."""
    if newer is None:
        return []
    return [
        f"the newer fit {newer.name} was not used, because its law has no width and depth; for its answer give "
        f"{spelt('fit', newer)} space=params"
    ]


def world_of(asked: PrescribeConfig, fit: FitResult, runs: RunsTable) -> World:
    """The world of the runs, with the changes of the configuration."""
    world = suite_world(fit, runs)
    rules = {name: value for name, value in dataclasses.asdict(asked.rules).items() if value is not None}
    if asked.flops.name is not None and asked.flops.name not in FLOPS_CONVENTIONS:
        raise UserError(
            f"flops={asked.flops.name}: a new shape has no recorded FLOPs; "
            f"allowed values are auto, {', '.join(FLOPS_CONVENTIONS)}"
        )
    if asked.unique_tokens is not None and "unique_tokens" not in asked_law(fit).predictors:
        raise UserError(f"unique_tokens={asked.unique_tokens:g}: law={fit.law} does not read it; leave it out")
    given = Suite(vocab_size=asked.vocab_size, seq_len=asked.seq_len)
    return dataclasses.replace(
        world,
        domain=domain_of_shapes(runs, asked.flops.name or world.flops),
        suite=given.completed(world.suite),
        flops=asked.flops.name or world.flops,
        rules=dataclasses.replace(world.rules, **rules),
        given=dict(asked.axes) if asked.unique_tokens is None else {**asked.axes, "unique_tokens": asked.unique_tokens},
        accuracy=FittedAccuracy.of(*read(Path(asked.accuracy)), fit.loss_unit, world.counting)
        if asked.accuracy
        else None,
    )


def suite_world(fit: FitResult, runs: RunsTable) -> World:
    """The world of the runs; facts of their suite that they do not record are taken from train.py's present one."""
    suite = runs.suite
    if suite.name is None:
        return World.of(fit, runs)
    here = find(suite)
    world = World.of(fit, runs, here)
    if here is not None:
        return world
    note = (
        f"no command trains it: the suite {suite.name} is {f'neither in {suite.folder} nor' if suite.folder else 'not'} in "
        "conf/suite; set SHAPELAW_SUITE to its folder"
    )
    return dataclasses.replace(
        world, suite=dataclasses.replace(world.suite, folder=None), remarks=(*world.remarks, note)
    )


def refusal(fit: FitResult, runs: RunsTable, space: str) -> str:
    """Why a fit answers no budget near those of the runs; empty if it answers one.

    Args:
        fit: fit of a law.
        runs: its runs.
        space: searched space, `feasible` or `params`.
    """
    budget = float(runs.flops().max())
    try:
        world = dataclasses.replace(suite_world(fit, runs), given=usual_axes(asked_law(fit), runs))
        problem = Problem(fit, world, space=space, intervals=False)
        served = problem.nearest_served(budget)
        if served is not None and budget / NEAR <= served <= budget * NEAR:
            problem.best(served)
            return ""
    except UserError as error:
        return str(error)
    edge = "the best size is the smallest or the largest of all, for every budget"
    return f"by its parameters {edge} within a factor of {NEAR:g} of {budget:.3g} FLOPs, the largest among the runs"


def write(options: PrescribeConfig, answer: Prescription) -> Path:
    """Write an answer as YAML under outputs/prescriptions, named after the question, and its figure if it has one."""
    path = write_answer(options, "prescriptions", str(answer.law), Path(answer.fit), answer.plain())
    if answer.drawn:
        from shapelaw.figures.answers import draw

        draw(answer, path.parent, path.stem)
    return path


DOOR = prescribe_size
