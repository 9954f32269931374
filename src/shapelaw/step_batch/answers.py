"""Questions to a fit of the step-and-batch law, as prescribe.py asks them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shapelaw.config import PrescribeConfig, positive
from shapelaw.errors import UserError
from shapelaw.fitting.result import FitResult
from shapelaw.prescribe.idle import given
from shapelaw.prescribe.world import World
from shapelaw.runs.table import RunsTable
from shapelaw.shapes import Shape, check_heads
from shapelaw.step_batch.prediction import file_hash, now, sealed
from shapelaw.step_batch.questions import Size, StepBatchAnswer, StepBatchProblem

QUESTIONS = (
    "a size alone (width and depth, or params): its smallest loss; a size and loss (and batch_tokens): steps and tokens to it; "
    "loss alone: the critical batch; a size, batch_tokens and tokens: the loss curve"
)
FOREIGN = (
    *("budget", "objective", "flops", "least", "compare"),
    *("space", "aspect_ratio", "limits", "rules", "vocab_size", "seq_len"),
)
"""Options that say nothing to this law."""


def answer_steps_batch(asked: PrescribeConfig, fit: FitResult, runs: RunsTable) -> StepBatchAnswer:
    """The answer that the given values ask for.

    Raises:
        UserError: for values that make none of the four questions, or that cannot be answered.
    """
    foreign = given(asked, *FOREIGN)
    if foreign:
        raise UserError(
            f"{', '.join(foreign)}: law={fit.law} answers {QUESTIONS}; give no more than one of these takes"
        )
    problem = StepBatchProblem(fit, runs)
    size, batch = _size(asked, fit, runs), asked.batch_tokens
    if size is not None and asked.loss is not None and asked.tokens is None:
        return problem.reach(size, positive("loss", asked.loss), batch)
    if size is not None and asked.loss is None and asked.tokens is not None and batch is not None:
        return problem.trajectory(size, batch, asked.tokens)
    if size is not None and (asked.loss, asked.tokens, batch) == (None, None, None):
        return problem.lowest(size)
    if size is None and asked.loss is not None and (asked.tokens, batch) == (None, None):
        return problem.critical(asked.loss)
    raise UserError(f"{_listed(asked)}: law={fit.law} answers {QUESTIONS}; give one of these")


def prediction(fit: FitResult, folder: Path, runs: RunsTable, found: StepBatchAnswer) -> dict[str, Any]:
    """A loss curve as a sealed prediction; empty for other answers and for sizes without a shape."""
    values = found.main.values
    if "curve" not in found.tables or "width" not in values:
        return {}
    sizes = {name: values[name] for name in ("width", "depth", "params", "batch_tokens", "tokens")}
    path = folder / "fit.json" if folder.is_dir() else folder
    facts: Mapping[str, Any] = {
        "written": now(),
        "law": fit.law,
        "fit": path.parent.name,
        "fit_hash": file_hash(path),
        "runs_hash": runs.hash,
        **sizes,
        "parameters": dict(fit.parameters),
        "points": found.tables["curve"],
    }
    return sealed(facts)


def _size(asked: PrescribeConfig, fit: FitResult, runs: RunsTable) -> Size | None:
    """The size asked about: a shape, or parameters as the law counts them."""
    if asked.params is not None:
        if asked.width is not None or asked.depth is not None:
            raise UserError(f"params={asked.params:g}: give either params, or width and depth")
        return Size(positive("params", asked.params))
    if (asked.width is None) != (asked.depth is None):
        raise UserError(f"width={asked.width}, depth={asked.depth}: a shape has both; give both, or params")
    if asked.width is None or asked.depth is None:
        return None
    world = World.of(fit, runs)
    check_heads(Shape(asked.width, asked.depth, world.rules.head_size))
    counted = world.points([asked.width], [asked.depth]).counted
    return Size(float(counted[0]), asked.width, asked.depth)


def _listed(asked: PrescribeConfig) -> str:
    names = ("width", "depth", "params", "loss", "batch_tokens", "tokens")
    given = [f"{name}={getattr(asked, name)}" for name in names if getattr(asked, name) is not None]
    return ", ".join(given) or "nothing is asked"
