"""Reporting as the work of a script: figures, the tables that they show, and the page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from shapelaw.config import ReportConfig, RunsConfig, positive, to_dataclass
from shapelaw.errors import UserError
from shapelaw.figures import catalogue
from shapelaw.figures.catalogue import Drawn, NotDrawn
from shapelaw.figures.evidence import MAIN, Evidence, of_a_table, of_the_paper
from shapelaw.fitting.options import BootstrapOptions
from shapelaw.prescribe.problem import Problem
from shapelaw.prescribe.task import published_suite
from shapelaw.report.content import Figure, FitRow, LeftOut, Report
from shapelaw.report.page import write
from shapelaw.runs import RunsTable, load_runs

KINDS = ("gemstones", "experiment")
WIDE = 140
"""Columns of what is printed into a file or a pipe."""


def report(config: DictConfig) -> None:
    """Make what the configuration asks for and say where it lies.

    Raises:
        UserError: for bad input.
    """
    asked: ReportConfig = to_dataclass(config)
    entries = catalogue.chosen(asked.figures)
    if asked.budget is not None:
        positive("budget", asked.budget)
    evidence = evidence_of(asked)
    evidence.runs()  # without the main table there is nothing to report
    folder = folder_of(asked)
    console = Console(highlight=False, soft_wrap=True)
    console = console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=WIDE)
    made: list[Drawn | NotDrawn] = []
    for one in catalogue.draw(evidence, folder / "figures", entries):
        said = f"left out: {one.reason}" if isinstance(one, NotDrawn) else one.files[0].name
        console.print(f"{one.entry.heading}: {said}", markup=False)
        made.append(one)
    if asked.page:
        console.print(f"the page: {write(page_of(asked, evidence, made, folder))}", markup=False)
    console.print(f"figures and their tables: {folder / 'figures'}", markup=False)


def evidence_of(asked: ReportConfig) -> Evidence:
    """The tables that the report is about.

    Raises:
        UserError: for an unknown kind, or runs that are not of it.
    """
    resampling = BootstrapOptions(**dataclasses.asdict(asked.bootstrap)) if asked.bootstrap.n else None
    options: dict[str, Any] = {"bootstrap": resampling, "delta": positive("delta", asked.delta), "seed": asked.seed}
    kind = asked.report.name
    if kind not in KINDS:
        raise UserError(f"report.name={kind}: allowed are {', '.join(KINDS)}")
    if (asked.runs.source == "gemstones") != (kind == "gemstones"):
        raise UserError(f"report={kind}, runs={asked.runs.source}: the published runs go with report=gemstones alone")
    if kind == "gemstones":
        return of_the_paper(**options)
    return of_a_table(_own_table(asked.runs), asked.report.tables, **options)


def folder_of(asked: ReportConfig) -> Path:
    """Folder of a report: outputs/reports/NAME."""
    name = asked.report.name
    if name == "experiment":
        name = asked.runs.experiment or (Path(asked.runs.path).stem if asked.runs.path else asked.runs.source)
    return Path(asked.outputs_dir) / "reports" / name


def page_of(asked: ReportConfig, evidence: Evidence, made: list[Drawn | NotDrawn], folder: Path) -> Report:
    """What the page holds: the answer by one law, the figures, the runs, and every fit that was made."""
    runs = evidence.runs()
    fit = evidence.fit(asked.law.name or "interaction")
    problem = Problem.of(fit, runs)
    suite = problem.world.suite or published_suite(runs)
    return Report(
        title=f"{folder.name}: which shape for which budget",
        folder=folder,
        problem=problem,
        budget=asked.budget or float(runs.flops().max()),
        runs=runs,
        fits=[FitRow(f"{asked.law.name} {MAIN}", fit), *_other_fits(evidence, fit)],
        figures=[_figure(one) for one in made if isinstance(one, Drawn)],
        left_out=[LeftOut(one.entry.heading, one.reason) for one in made if isinstance(one, NotDrawn)],
        run_link=asked.run_link,
        suite=suite,
    )


def _other_fits(evidence: Evidence, first: object) -> list[FitRow]:
    return [
        FitRow(" ".join(str(part) for part in key[:2]), fit) for key, fit in evidence.fits.items() if fit is not first
    ]


def _figure(one: Drawn) -> Figure:
    return Figure(one.entry.name, one.entry.heading, one.caption, one.files)


def _own_table(runs: RunsConfig) -> RunsTable:
    options: dict[str, Any] = {"bad_rows": runs.bad_rows, "loss": runs.loss}
    if runs.source == "csv":
        options |= {"path": runs.path, "columns": runs.columns, "units": runs.units}
    elif runs.source == "mlflow":
        options |= {"uri": runs.uri, "experiment": runs.experiment}
    return load_runs(runs.source, **options)
