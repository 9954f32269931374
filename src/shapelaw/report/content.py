"""The content of a report: the answer's problem, figures, omissions, runs and fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shapelaw.fitting.result import FitResult
from shapelaw.prescribe.ask import Problem
from shapelaw.runs.table import RunsTable


@dataclass(frozen=True)
class Figure:
    """One picture.

    Args:
        name: file name without its ending.
        title: heading.
        caption: what it shows, and where it differs from the published one.
        files: the same picture as .svg or .png (others are ignored); the page embeds the smallest.
        alt: text for readers who cannot see it; if empty, the caption.
    """

    name: str
    title: str
    caption: str
    files: Sequence[Path]
    alt: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A figure that the data cannot show, and why."""

    title: str
    reason: str


@dataclass(frozen=True)
class FitRow:
    """A fit in the page's table: its name, the fit, and the address of its MLflow run (or nothing)."""

    name: str
    fit: FitResult
    link: str = ""


@dataclass(frozen=True)
class NextRun:
    """The run to train next, in words, or why none is named.

    Args:
        told: the run, its target, and how much it tells.
        command: command that trains it; empty if there is none.
        more: the command that plans more of them.
    """

    told: str
    command: str = ""
    more: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that the page shows.

    Args:
        title: title of the page.
        folder: folder for index.html.
        problem: answers the budget; its cost is FLOPs, its space whole shapes, or sizes without a shape.
        budget: FLOPs with which the page opens.
        runs: the table of the problem's fit.
        fits: every fit to list; the problem's own is the first.
        figures, left_out: pictures, and those that the data cannot show.
        listed: the rows that the page lists, if there are more than those of the fit.
        run_link: address of an MLflow run with `{run}` for its id, such as
            `http://127.0.0.1:5000/#/experiments/1/runs/{run}`; empty for none.
        next_run: the run to train next; None for a page without one.
        without_shapes: why the answers are sizes without a shape; empty if they are shapes.
    """

    title: str
    folder: Path
    problem: Problem
    budget: float
    runs: RunsTable
    fits: Sequence[FitRow]
    figures: Sequence[Figure] = ()
    left_out: Sequence[LeftOut] = ()
    listed: RunsTable | None = None
    run_link: str = ""
    next_run: NextRun | None = None
    without_shapes: str = ""
