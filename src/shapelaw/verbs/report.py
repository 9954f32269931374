"""Reporting as the work of a script: figures, the tables that they show, and the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from shapelaw.config import BootstrapOptions, ReportConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.errors import UserError
from shapelaw.figures import catalogue
from shapelaw.figures.catalogue import Drawn, NotDrawn
from shapelaw.figures.evidence import EVERY, MAIN, Evidence, of_a_table, of_the_paper
from shapelaw.figures.industry import read
from shapelaw.files import check_room
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.candidates import feasible
from shapelaw.prescribe.limits import Limits
from shapelaw.prescribe.registry import Basis
from shapelaw.prescribe.trust import Unidentified
from shapelaw.report.content import Figure, FitRow, LeftOut, NextRun, Report
from shapelaw.report.page import write
from shapelaw.runs import RunsTable
from shapelaw.terminal import terminal
from shapelaw.verbs.fit import load_table
from shapelaw.verbs.next import FARTHER, best_size, planned
from shapelaw.verbs.prescribe import suite_world
from shapelaw.verbs.report_links import Links, check_fits, published
from shapelaw.wording import in_words

SIZES = "params_tokens"
"""The law that answers runs without shapes."""
FILES_BYTES = 1e6
"""Approximate bytes of the figures, their tables and the page, for a dozen runs."""
WIDE = 140
"""Columns of output to a file or a pipe."""


def report(config: DictConfig) -> None:
    """Make the report that the configuration asks for, and print where it lies.

    Raises:
        UserError: for bad input.
    """
    asked: ReportConfig = to_dataclass(config)
    entries = catalogue.chosen(asked.figures)
    if asked.page:
        check_fits(Path(asked.outputs_dir) / "fits")
    folder = folder_of(asked)
    check_room(folder, FILES_BYTES, "a report")
    evidence = evidence_of(asked)
    evidence.runs()  # without the main table a report is impossible
    silent = ""
    if asked.page:
        try:
            problem, budget = answer_of(asked, evidence)  # questions without an answer are refused before drawing
            problem.best(budget)
        except Unidentified as error:  # the figures still show what the runs tell
            silent = str(error)
    console = terminal(wide=WIDE)
    made: list[Drawn | NotDrawn] = []
    for one in catalogue.draw(evidence, folder / "figures", entries):
        said = f"left out: {one.reason}" if isinstance(one, NotDrawn) else one.files[0].name
        console.print(f"{one.entry.heading}: {said}")
        made.append(one)
    if asked.page:
        where = f"left out: {silent}" if silent else write(page_of(asked, evidence, made, folder))
        console.print(f"the page: {where}")
        if isinstance(where, Path) and (address := published(asked, where)):
            console.print(f"in MLflow: {address}")
    console.print(f"figures and their tables: {folder / 'figures'}")


def evidence_of(asked: ReportConfig) -> Evidence:
    """The tables for the report.

    Raises:
        UserError: for an unknown kind, or runs of another kind.
    """
    resampling = BootstrapOptions.of(asked.bootstrap)
    options: dict[str, Any] = {"bootstrap": resampling, "delta": asked.delta, "seed": asked.seed}
    options |= {"mixture": asked.mixture, "models": read(Path(asked.models)) if asked.models else None}
    kind = asked.report.name
    if (asked.runs.source == "gemstones") != (kind == "gemstones"):
        raise UserError(
            f"report={kind}, runs={asked.runs.source}: the published runs need report=gemstones, and only they go with it"
        )
    if kind == "gemstones":
        return of_the_paper(lambda subset: load_table(asked.runs, subset, asked.subset.where), **options)
    table = load_table(asked.runs, where=asked.subset.where)
    return of_a_table(table, asked.report.tables, asked.report.assumed, **options)


def folder_of(asked: ReportConfig) -> Path:
    """Folder of a report: outputs/reports/NAME, with _ for characters that a folder's name cannot contain."""
    name = asked.report.name
    if name == "experiment":
        name = asked.runs.experiment or (Path(asked.runs.path).stem if asked.runs.path else asked.runs.source)
    return Path(asked.outputs_dir) / "reports" / (re.sub(r"[^\w.+ -]", "_", name).lstrip(".") or "experiment")


def page_of(asked: ReportConfig, evidence: Evidence, made: list[Drawn | NotDrawn], folder: Path) -> Report:
    """The content of the page: the answer by one law, the figures, the runs, and every fit of them."""
    runs = evidence.runs()
    problem, budget = answer_of(asked, evidence)
    listed = runs if evidence.published else evidence.runs(EVERY)
    links = Links.of(asked)
    first = FitRow(f"{problem.fit.law} {MAIN}", problem.fit)
    return Report(
        title=f"{folder.name}: which {'size' if problem.space == 'params' else 'shape'} for which budget",
        folder=folder,
        problem=problem,
        budget=budget,
        runs=runs,
        fits=[first, *_other_fits(evidence, problem.fit), *links.fits(asked, listed)],
        figures=[_figure(one) for one in made if isinstance(one, Drawn)],
        left_out=[LeftOut(one.entry.heading, one.reason) for one in made if isinstance(one, NotDrawn)],
        listed=listed,
        run_link=links.run,
        next_run=next_of(Basis(problem.fit, runs, problem.world, folder), problem.limits, asked.next_seconds),
        without_shapes=unanswerable(runs),
    )


def answer_of(asked: ReportConfig, evidence: Evidence) -> tuple[Problem, float]:
    """The problem that answers budgets on the page, and the budget with which the page opens.

    Raises:
        UserError: if the law cannot answer budgets, or not the given one.
    """
    runs = evidence.runs()
    shaped = not unanswerable(runs)
    fit = evidence.fit((asked.law.name or "interaction") if shaped else SIZES)
    problem = Problem(fit, suite_world(fit, runs), space="feasible" if shaped else "params")
    if asked.budget is not None:
        problem.best(asked.budget)
        return problem, asked.budget
    largest = float(runs.flops().max())
    budget = problem.largest_inside(largest) or problem.nearest_served(largest)
    if budget is None:
        raise UserError(
            f"budget=null: under law {fit.law} the best shape is the smallest or the largest of all for every budget near "
            f"{largest:.3g} FLOPs, the largest among the runs; give another law or more shapes, or page=false"
        )
    return problem, budget


def next_of(basis: Basis, limits: Limits, seconds: float) -> NextRun | None:
    """The run to train next towards the best size for ten times the largest run's FLOPs, with at most that run's FLOPs.

    Args:
        basis: fit, runs and their suite.
        limits: limits on the shapes.
        seconds: time limit; 0 skips the search.
    """
    if not seconds:
        return None
    budget = float(basis.runs.flops().max())
    target = best_size(basis, FARTHER * budget)
    try:
        candidates = feasible(basis.world, basis.runs, budget, limits)
        (run,) = planned(basis, target, candidates, seconds=seconds)["runs"]
    except UserError as error:
        return NextRun(f"No run is named: {error}")
    size = f"{run['width']:.0f}x{run['depth']:.0f}" if "width" in run else f"{in_words(run['params'])} parameters"
    told = (
        f"To know {target.told} better, train {size} for {in_words(run['tokens'])} tokens ({run['flops']:.3g} FLOPs). Of "
        f"{run['compared']} runs of up to {budget:.3g} FLOPs it tells the most for its cost: the standard deviation of "
        f"the size's logarithm falls from {run['deviation_before']:.3g} to {run['deviation_after']:.3g}."
    )
    return NextRun(told, run["command"], f"shapelaw next budget={budget:.3g} next=5" if run["command"] else "")


def unanswerable(runs: RunsTable) -> str:
    """Why no shape can be prescribed from these runs; empty if one can."""
    kept = runs.kept
    known = runs.has_shapes and "vocab_size" in kept and not kept["vocab_size"].isna().any()
    return "" if known else "the runs do not name their width, depth and vocabulary, so no shape can be prescribed"


def _other_fits(evidence: Evidence, first: object) -> list[FitRow]:
    return [
        FitRow(" ".join(str(part) for part in key[:2]), fit) for key, fit in evidence.fits.items() if fit is not first
    ]


def _figure(one: Drawn) -> Figure:
    return Figure(one.entry.name, one.entry.heading, one.caption, one.files)


DOOR = report
