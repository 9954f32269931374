"""Prescribing as the work of a script: a table in the terminal, a YAML, and the overrides that train what it says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from shapelaw.config import DepthPatch, PrescribeConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.counting import FLOPS_CONVENTIONS
from shapelaw.errors import UserError
from shapelaw.files import write_text
from shapelaw.fitting.result import RUNS_FILE, FitResult, load_fit, plain
from shapelaw.laws import STAGED
from shapelaw.lr_rules import DEFAULT_PATCH
from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.idle import refuse_idle
from shapelaw.prescribe.limits import Limits
from shapelaw.prescribe.price import Cost, Throughput
from shapelaw.prescribe.problem import Problem
from shapelaw.prescribe.studies import aspect_ratio_cost, compare_laws, overtraining, relaxed_problem
from shapelaw.prescribe.world import World, law_of, reads_shapes
from shapelaw.runs.table import RunsTable
from shapelaw.step_batch.answers import answer_steps_batch, prediction
from shapelaw.step_batch.prediction import KEY
from shapelaw.step_batch.questions import StepBatchAnswer

WIDE = 140
"""Columns of what is printed into a file or a pipe."""
RATIO_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the best aspect ratio, for the price of a wrong one."""
ROUNDING = 1e-12
"""What is printed as 0."""
WHOLE = ("width", "depth")
VALIDATIONS = 25
"""Of a run whose loss curve was predicted."""
SHOWN = {
    "overtraining": ("factor", "tokens", "params", "tokens_per_param", "loss", "low", "high", "excess"),
    "aspect_ratio": (
        *("aspect_ratio", "width", "depth", "loss", "excess", "excess_low", "excess_high"),
        *("budget_factor", "budget_factor_low", "budget_factor_high"),
    ),
    "laws": ("law", "width", "depth", "params", "tokens", "tokens_per_param", "loss", "domain"),
}
"""Columns of further tables that are printed; the YAML holds all."""
TITLES = {
    "overtraining": "Other token counts at the same budget (real-valued sizes; factor = tokens / best tokens; "
    "excess = loss / lowest loss - 1)",
    "aspect_ratio": "Other aspect ratios at the same budget (budget_factor = budget this ratio needs for the lowest loss / "
    "your budget)",
}
"""Of further tables; the others bear their name."""
SHARES = ("excess", "wasted")
"""How the names of columns begin that are printed in percent."""


@dataclass(frozen=True)
class Answers:
    """What one call of the script found.

    Args:
        fit: where the fit lies.
        main: the prescription.
        command: what trains it; empty without a shape, or where the notes say why.
        tables: title -> further tables.
        ranged: quantities that have a fitted range.
        sealed: a loss curve with its hash, for comparison with its run; empty elsewhere.
    """

    fit: Path
    main: Prescription
    command: str
    tables: Mapping[str, pd.DataFrame]
    ranged: frozenset[str] = frozenset()
    sealed: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As plain types, for YAML."""
        tables = {title: plain(table) for title, table in self.tables.items()}
        kept = {KEY: dict(self.sealed)} if self.sealed else {}
        return {"fit": str(self.fit), **self.main.plain(), "command": self.command, **tables, **kept}


def prescribe_size(config: DictConfig) -> float:
    """Answer what the configuration asks, print it and write it; the predicted loss.

    Raises:
        UserError: for bad input.
    """
    asked: PrescribeConfig = to_dataclass(config)
    answers = answer(asked)
    path = _write(asked, answers)
    if answers.main.law in STAGED:
        from shapelaw.figures.step_batch import draw

        draw(StepBatchAnswer(answers.main, answers.tables), path.parent, path.stem)
    show(answers, path)
    return answers.main.values["loss"]


def answer(asked: PrescribeConfig) -> Answers:
    """Everything that a configuration asks for."""
    by_batch = asked.batch_tokens is not None or asked.params is not None
    fits = Path(asked.outputs_dir) / "fits"
    path, passed = (Path(asked.fit), None) if asked.fit else newest_fit(fits, by_batch=by_batch)
    fit, runs = read(path)
    if fit.law in STAGED:
        found = answer_steps_batch(asked, fit, runs)
        return Answers(
            path, found.main, _trains(found, runs), found.tables, frozenset(), prediction(fit, path, runs, found)
        )
    if by_batch:
        raise UserError(
            f"batch_tokens, params: law={fit.law} has no batches; name a fit of law=steps_batch by fit=FOLDER"
        )
    problem = problem_of(asked, fit, runs)
    main = _main(asked, problem)
    if passed:
        note = (
            f"the newer fit {passed.name} was passed over, as its law has no width and depth; for its own answer give "
            f"fit={passed} space=params"
        )
        main = dataclasses.replace(main, notes=(*main.notes, note))
    tables: dict[str, pd.DataFrame] = {}
    if asked.budget is not None:
        tables |= _studies(asked, problem, main)
        tables |= _comparison(asked, path, fit, runs, problem)
    return Answers(path, main, command(problem.world, main), tables, frozenset(problem.world.ranges))


def _trains(found: StepBatchAnswer, runs: RunsTable) -> str:
    """What trains a predicted curve; the rest of the configuration is that of the fitted runs."""
    values, kept = found.main.values, runs.kept
    if "curve" not in found.tables or "width" not in values or "suite" not in kept:
        return ""
    batch = values["batch_tokens"]
    every = max(round(values["tokens"] / VALIDATIONS / batch), 1) * batch
    sizes = f"shape.width={values['width']:.0f} shape.depth={values['depth']:.0f}"
    spent = f"batch_tokens={batch:.0f} tokens={values['tokens']:.0f} validation.every_tokens={every:.0f}"
    return f"SHAPELAW_SUITE={kept['suite'].iloc[0]} python train.py sweeps=step_batch {sizes} {spent}"


def newest_fit(folder: Path, *, by_batch: bool = False) -> tuple[Path, Path | None]:
    """The newest fit whose law has width and depth, or of a law with batches; and a newer one of size and tokens, if any.

    Raises:
        UserError: if there is none; it says what was passed over.
    """
    passed: list[str] = []
    of_size: Path | None = None
    for path in sorted(folder.glob("*/fit.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            law = law_of(load_fit(path))
            if law.name in STAGED if by_batch else reads_shapes(law):
                return path.parent, of_size
            passed.append(path.parent.name)
            of_size = of_size or (path.parent if law.name not in STAGED else None)
        except UserError:  # an older version, or no law of the loss
            passed.append(path.parent.name)
    have = f"; it holds {', '.join(passed[:5])}, without one" if passed else ""
    if by_batch:
        raise UserError(
            f"fit=null: {folder} holds no fit of the step-and-batch law{have}; make one by python fit.py method=staged "
            "law=steps_batch, or name one by fit=FOLDER"
        )
    raise UserError(
        f"fit=null: {folder} holds no fit of a law with width and depth{have}; make one by python fit.py "
        "law=interaction, or name a fit by fit=FOLDER"
    )


def read(path: Path) -> tuple[FitResult, RunsTable]:
    """A fit and the runs that it was made from, which lie beside it.

    Raises:
        UserError: if either is missing or unreadable.
    """
    fit = load_fit(path)
    folder = path if path.is_dir() else path.parent
    if not (folder / RUNS_FILE).is_file():
        raise UserError(
            f"fit={path}: there is no {RUNS_FILE} beside fit.json; save the fit with its runs, result.save(FOLDER, runs), "
            "or make it by python fit.py"
        )
    return fit, RunsTable.read(folder / RUNS_FILE)


def problem_of(asked: PrescribeConfig, fit: FitResult, runs: RunsTable) -> Problem:
    """The problem that a configuration describes.

    Raises:
        UserError: for values out of range, or a law that cannot be asked so.
    """
    world = world_of(asked, fit, runs)
    limits = Limits(**vars(asked.limits), aspect_ratio=asked.aspect_ratio)
    return Problem(fit, world, cost_of(asked, runs, world), asked.space, limits)


def world_of(asked: PrescribeConfig, fit: FitResult, runs: RunsTable) -> World:
    """The world of the runs, with what the configuration says otherwise."""
    world = suite_world(fit, runs)
    rules = {name: value for name, value in dataclasses.asdict(asked.rules).items() if value is not None}
    if asked.flops.name is not None and asked.flops.name not in FLOPS_CONVENTIONS:
        raise UserError(
            f"flops={asked.flops.name}: a new shape has none; allowed are auto, {', '.join(FLOPS_CONVENTIONS)}"
        )
    return dataclasses.replace(
        world,
        vocab_size=world.vocab_size if asked.vocab_size is None else asked.vocab_size,
        flops=asked.flops.name or world.flops,
        rules=dataclasses.replace(world.rules, **rules),
    )


def suite_world(fit: FitResult, runs: RunsTable) -> World:
    """The world of the runs, with the rate rule that train.py takes for their suite."""
    world = World.of(fit, runs)
    name, patch = _rate_rule(world.suite)
    return dataclasses.replace(world, lr_rule=name, patch=patch)


def cost_of(asked: PrescribeConfig, runs: RunsTable, world: World) -> Cost:
    """What the objective spends."""
    objective = asked.objective
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
        throughput = Throughput.measured(runs, world)
    return Cost(objective.name, throughput, objective.price, objective.inference_tokens)


def command(world: World, found: Prescription) -> str:
    """What trains a prescription; empty where nothing does."""
    return f"SHAPELAW_SUITE={world.suite} python train.py {' '.join(found.overrides)}" if found.overrides else ""


def show(answers: Answers, path: Path) -> None:
    """Print the answer, its price tables and where it was written."""
    console = Console(highlight=False, soft_wrap=True)
    console = console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=WIDE)
    found = answers.main
    asked = found.question[0].upper() + found.question[1:]
    console.print(f"{asked} (law {found.law}, fit {answers.fit})", markup=False)
    console.print(_answer_table(found, answers.ranged))
    console.print(found.domain)
    for note in found.notes:
        console.print(f"note: {note}", markup=False)
    for title, frame in answers.tables.items():
        shown = [name for name in SHOWN.get(title, tuple(frame)) if name in frame]
        console.print(_rich(TITLES.get(title, title.replace("_", " ")), frame[shown]))
        if title == "overtraining" and float(found.values.get("width", math.nan)).is_integer():
            console.print("Row factor 1 is the real-valued optimum and differs slightly from the whole shape above.")
    if answers.command:
        console.print(f"train it:  {answers.command}", markup=False)
        console.print("on a cluster: add -m hydra/launcher=slurm")
    console.print(f"written to {path}", markup=False)


def _answer_table(found: Prescription, ranged: frozenset[str]) -> Table:
    """The values with their units and places, and their intervals if there are any."""
    spread = [f"{found.level:.0%} interval"] if found.intervals else []
    table = Table("", "value", *spread, "unit", "fitted domain")
    for name, value in found.values.items():
        low, high = found.intervals.get(name, (math.nan, math.nan))
        ends = f"{_number(name, low)} to {_number(name, high)}" if math.isfinite(low) else ""
        place = found.place(name) if name in ranged else ""
        table.add_row(name, _number(name, value), *([ends] if spread else []), found.units[name], place)
    return table


def _main(asked: PrescribeConfig, problem: Problem) -> Prescription:
    given = [name for name in ("budget", "loss", "tokens") if getattr(asked, name) is not None]
    if len(given) != 1:
        raise UserError(
            f"{', '.join(given) or 'budget, loss, tokens'}: give exactly one of budget=NUMBER (what is best for it), "
            "loss=NUMBER (what reaches it at the least cost) and tokens=NUMBER (with width and depth: their loss)"
        )
    refuse_idle(asked, given[0])
    if asked.budget is not None:
        return problem.best(asked.budget)
    if asked.loss is not None:
        return problem.reach(asked.loss, asked.least)
    if asked.width is None or asked.depth is None or asked.tokens is None:
        raise UserError(f"width={asked.width}, depth={asked.depth}: tokens asks for a shape's loss; give both")
    return problem.at(asked.width, asked.depth, asked.tokens)


def _studies(asked: PrescribeConfig, problem: Problem, main: Prescription) -> dict[str, pd.DataFrame]:
    """What other choices cost at this budget."""
    if not asked.studies or asked.budget is None:
        return {}
    tables = {}
    if problem.cost.unit == "flops" and not problem.cost.served_tokens and asked.aspect_ratio is None:
        tables["overtraining"] = overtraining(problem, asked.budget)
    if reads_shapes(law_of(problem.fit)):
        ratios = [main.values["aspect_ratio"] * factor for factor in RATIO_FACTORS]
        tables["aspect_ratio"] = aspect_ratio_cost(problem, asked.budget, _possible(problem, ratios))
    return tables


def _possible(problem: Problem, ratios: list[float]) -> list[float]:
    """Ratios that some allowed shape has."""
    return [ratio for ratio in ratios if not relaxed_problem(problem, ratio).region.empty]


def _comparison(
    asked: PrescribeConfig, path: Path, fit: FitResult, runs: RunsTable, problem: Problem
) -> dict[str, pd.DataFrame]:
    """What several laws prescribe, and what following one costs if another is true."""
    if not asked.compare or asked.budget is None:
        return {}
    fits = {_label(path, fit): fit}
    for other in map(Path, asked.compare):
        one = load_fit(other)
        fits[_label(other, one)] = one
    found = compare_laws(fits, runs, asked.budget, problem.cost, problem.limits, problem.world)
    rows = [{"law": label, **one.values, "domain": one.domain} for label, one in found.prescriptions.items()]
    return {"laws": pd.DataFrame(rows), "if_another_law_is_true": found.regret}


def _label(path: Path, fit: FitResult) -> str:
    folder = path.parent if path.name == "fit.json" else path
    return f"{fit.law} {folder.name[-6:]}"


def _rate_rule(suite: str) -> tuple[str, DepthPatch]:
    """Rule and patch that train.py takes for a suite by default: the paper's, unless its suite.yaml says otherwise."""
    root = os.environ.get("SHAPELAW_ROOT")
    file = Path(root or "") / "conf" / "suite" / suite / "suite.yaml"
    if not root or not suite or not file.is_file():
        return "width_sqrt_depth", DEFAULT_PATCH
    own = dict(OmegaConf.to_container(OmegaConf.load(file))).get("lr_rule", {})  # type: ignore[arg-type]
    ratio, strict = (
        own.get("patch_ratio", DEFAULT_PATCH.patch_ratio),
        own.get("patch_strict", DEFAULT_PATCH.patch_strict),
    )
    divisor = own.get("patch_divisor", DEFAULT_PATCH.patch_divisor)
    return str(own.get("name", "width_sqrt_depth")), DepthPatch(
        patch_ratio=float(ratio), patch_strict=bool(strict), patch_divisor=float(divisor)
    )


def _write(asked: PrescribeConfig, answers: Answers) -> Path:
    """Write the YAML under outputs/prescriptions, named by what was asked."""
    question = {**dataclasses.asdict(asked), "fit": str(answers.fit.absolute())}
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:12]
    path = Path(asked.outputs_dir) / "prescriptions" / f"{answers.main.law}-{digest}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(plain(answers.plain()))))
    return path


def _number(name: str, value: float) -> str:
    if name in WHOLE and value == int(value):
        return f"{value:.0f}"
    return f"{value:.5g}" if abs(value) > ROUNDING else "0"


def _rich(title: str, frame: pd.DataFrame) -> Table:
    table = Table(*map(str, frame.columns), title=title, title_justify="left")
    for row in frame.itertuples(index=False, name=None):
        table.add_row(*map(_cell, frame.columns, row))
    return table


def _cell(name: str, value: object) -> str:
    """A value of a further table: shares in percent, real-valued widths and depths to three digits."""
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return ""
    if name.startswith(SHARES):
        return f"{value:.2%}"
    return _number(name, float(f"{value:.3g}") if name in WHOLE and value != int(value) else value)
