"""The run to train next, as the work of a verb: a table in the terminal, a YAML, and the command of every run.

shapelaw next budget=1e19                                       # towards the best size for ten times the budget
shapelaw next budget=1e19 target.budget=1e21 next=5             # five runs towards the best size for another
shapelaw next budget=1e19 target.width=2048 target.depth=27 target.tokens=3.5e11   # towards the loss of a size
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.table import Table

from shapelaw.config import NextConfig, ObjectiveConfig, PrescribeConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.errors import UserError
from shapelaw.prescribe.answer import command, overrides, unnamed
from shapelaw.prescribe.axes import remarks_of_axes, usual_axes
from shapelaw.prescribe.candidates import Candidates, feasible
from shapelaw.prescribe.limits import Limits
from shapelaw.prescribe.next_run import BestSize, LossOf, NextRun, Target, plan
from shapelaw.prescribe.registry import Basis
from shapelaw.prescribe.search import SizeSearch
from shapelaw.prescribe.surface import Surface
from shapelaw.prescribe.world import World, law_of, reads_shapes
from shapelaw.terminal import terminal
from shapelaw.verbs.answer_files import write_answer
from shapelaw.verbs.prescribe import world_of
from shapelaw.verbs.saved_fits import newest_fit, read

FARTHER = 10.0
"""Budget of the target over that of a run, if no target is given."""
SHOWN = 5
"""Number of candidates to print and write; the first is the run."""
WIDE = 140
"""Columns of output to a file or a pipe."""


def next_runs(config: DictConfig) -> None:
    """Plan the runs that the configuration asks for, print and write them.

    Raises:
        UserError: for bad input, or a target that no candidate informs.
    """
    options: NextConfig = to_dataclass(config)
    basis = _basis(options)
    target = _target(options, basis)
    candidates = feasible(basis.world, basis.runs, options.budget, Limits(**vars(options.limits)))
    content = planned(basis, target, candidates, options.next)
    path = write_answer(options, "next", str(basis.fit.law), basis.folder, content)
    _show(content, path)


def _basis(options: NextConfig) -> Basis:
    """The named fit, or the newest one that prescriptions would use, with its runs and their suite."""
    asked = PrescribeConfig(
        fit=options.fit,
        objective=ObjectiveConfig(name="flops"),
        budget=options.budget,
        least="cost",
        space="feasible",
        studies=False,
        **{
            name: getattr(options, name)
            for name in (
                "rules",
                "limits",
                "vocab_size",
                "seq_len",
                "flops",
                "unique_tokens",
                "outputs_dir",
                "data_dir",
            )
        },
    )
    path = Path(options.fit) if options.fit else newest_fit(Path(options.outputs_dir) / "fits", asked)[0]
    fit, runs = read(path)
    axes = usual_axes(law_of(fit), runs) | options.axes
    remarks = tuple(f"the target {remark}" for remark in remarks_of_axes(axes, law_of(fit), runs))
    world = world_of(dataclasses.replace(asked, axes=axes), fit, runs)
    Surface.of(fit, refits=False, given=world.given)  # refuses a law that reads more
    return Basis(fit, runs, dataclasses.replace(world, remarks=(*world.remarks, *remarks)), path)


def _target(options: NextConfig, basis: Basis) -> Target:
    asked, fit, world = options.target, basis.fit, basis.world
    if asked.params is not None and reads_shapes(law_of(fit)):
        raise UserError(f"target.params: law={fit.law} reads width and depth; give target.width and target.depth")
    if asked.tokens is not None:
        size = [asked.width], [asked.depth]
        point = world.sizes([asked.params]) if asked.params is not None else world.points(*size)  # type: ignore[arg-type]
        return LossOf(fit, point, asked.tokens)
    return best_size(basis, asked.budget or FARTHER * options.budget)


def best_size(basis: Basis, budget: float) -> BestSize:
    """The best size for a budget as a target."""
    space = "relaxed" if reads_shapes(law_of(basis.fit)) else "params"
    return BestSize(SizeSearch(basis.fit, basis.world, space=space, intervals=False), budget)


def planned(
    basis: Basis, target: Target, candidates: Candidates, wanted: int = 1, seconds: float = math.inf
) -> dict[str, Any]:
    """The runs to train next, in the form for printing and writing.

    Args:
        basis: fit, runs and their suite.
        target: the quantity to learn about.
        candidates: runs that could be trained.
        wanted: number of runs to plan.
        seconds: time limit.

    Raises:
        UserError: if no candidate informs the target, or the time is not enough.
    """
    chosen = plan(basis.fit, basis.runs, candidates, target, wanted, seconds)
    missing = unnamed(basis.world)
    notes = [f"no command trains them: the runs do not name their {' and '.join(missing)}"] if missing else []
    if candidates.axes and not missing:
        notes.append(f"the commands do not say {' and '.join(candidates.axes)}: add your model and its options")
    if len(chosen) < wanted:
        notes.append(f"next={wanted}: after these runs, no further candidate informs the target")
    return {
        "fit": str(basis.folder),
        "law": str(basis.fit.law),
        "target": target.told,
        "runs": [
            {
                **_size(found.best, 0),
                "deviation_before": found.before,
                "deviation_after": float(found.after[found.place]),
                "compared": len(found.candidates),
                "candidates": _best_candidates(found),
                "command": _command(basis.world, _size(found.best, 0)),
            }
            for found in chosen
        ],
        "notes": [*basis.world.notes, *notes],
    }


def _size(candidates: Candidates, i: int) -> dict[str, float]:
    """Width and depth if available, params, further axes, tokens and FLOPs."""
    points = candidates.points
    shape = {} if points.width is None or points.depth is None else {"width": points.width[i], "depth": points.depth[i]}
    axes = {name: values[i] for name, values in candidates.axes.items()}
    cost = {"tokens": candidates.tokens[i], "flops": candidates.flops[i]}
    values = {**shape, "params": points.params[i], **axes, **cost}
    return {name: float(value) for name, value in values.items()}


def _best_candidates(found: NextRun) -> list[dict[str, float]]:
    best = np.argsort(-found.scores, kind="stable")[:SHOWN]
    return [
        {**_size(found.candidates, int(i)), "deviation_after": float(found.after[i]), "score": float(found.scores[i])}
        for i in best
    ]


def _command(world: World, size: dict[str, float]) -> str:
    return "" if "width" not in size or unnamed(world) else command(world, overrides(world, size))


def _show(content: dict[str, Any], path: Path) -> None:
    console = terminal(wide=WIDE)
    console.print(f"To know {content['target']} (law {content['law']}, fit {content['fit']}), train next:")
    for number, run in enumerate(content["runs"], 1):
        told = f"Run {number}: of {run['compared']} candidates, the best for its FLOPs"
        console.print(_table(told, run["candidates"], run["deviation_before"]))
    for note in content["notes"]:
        console.print(f"note: {note}")
    for run in content["runs"]:
        if run["command"]:
            console.print(f"train it:  {run['command']}")
    console.print(f"written to {path}")


def _table(title: str, candidates: Sequence[dict[str, float]], before: float) -> Table:
    """The chosen run first, then the next best candidates."""
    sizes = [name for name in candidates[0] if name not in ("deviation_after", "score")]
    last = f"target's standard deviation ({before:.2%} without)"
    table = Table(*sizes, last, title=title, title_justify="left")
    for candidate in candidates:
        table.add_row(*(f"{candidate[name]:.5g}" for name in sizes), f"{candidate['deviation_after']:.2%}")
    return table


DOOR = next_runs
