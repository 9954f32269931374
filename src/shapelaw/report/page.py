"""The report as one HTML file that needs no network."""

from __future__ import annotations

import base64
import datetime
import importlib.metadata
import math
import os
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from shapelaw.errors import UserError
from shapelaw.files import write_text
from shapelaw.fitting.result import plain
from shapelaw.laws import EXPONENT
from shapelaw.prescribe.answer import Prescription, command
from shapelaw.prescribe.ask import Problem
from shapelaw.report.calculator import calculator
from shapelaw.report.content import Figure, FitRow, Report
from shapelaw.report.picture import picture
from shapelaw.report.price import asking_price
from shapelaw.runs.table import RunsTable
from shapelaw.wording import in_words

Table = dict[str, Any]
"""Columns and rows of a table of the page."""
MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}
DECADES_BELOW, DECADES_BEYOND = 1.0, 3.0
"""How far the slider reaches beyond the FLOPs of the fitted runs, as far as the shapes allow."""
BEYOND = 10.0
"""Largest budget that is answered without a slider, over the largest FLOPs of the runs."""
STEP_DECADES = 0.02
"""Step of the search for the slider's ends."""
LEAD = {"params": " parameters", "tokens": " tokens"}
"""Counts of the answer's headline."""
WHOLE = ("width", "depth")
LONGEST = 40
"""Most entries of a list in the checklist to show."""
RUN_COLUMNS = ("run", "width", "depth", "params", "lr_base", "cooldown", "tokens", "loss", "flops", "status")


def write(report: Report) -> Path:
    """Write index.html into the report's folder, aside and then renamed.

    Raises:
        UserError: if the budget or the problem cannot be shown, or a figure has no .svg or .png.
    """
    pictures = [_picture(figure, report.folder) for figure in report.figures]
    answer = report.problem.best(report.budget)
    shaped = report.problem.space != "params"
    slider = _slider(report) if shaped else None
    high = float(slider["high"]) if slider else math.log10(BEYOND * report.runs.flops().max())
    page = (
        environment()
        .get_template("page.html")
        .render(
            report=report,
            answer=answer,
            rows=_answer_rows(answer),
            lead=_lead(answer),
            command=command(report.problem.world, answer.overrides),
            pictures=pictures,
            checklist=_checklist(report.problem.fit.checklist),
            runs=run_table(report.listed or report.runs, report.run_link),
            fits=fit_table(report.fits),
            slider=slider,
            beside=picture(report.problem, answer, report.runs, high),
            price=asking_price(report, answer),
            data=plain(calculator(report.problem)) if shaped else None,
            budget=f"{report.budget:.6g}",
            budgets=None if shaped else _budgets(report),
            about=_about(report.runs),
        )
    )
    report.folder.mkdir(parents=True, exist_ok=True)
    path = report.folder / "index.html"
    write_text(path, page)
    return path


def environment() -> Environment:
    """Templates that escape all input; style and script are the package's own files."""
    loader = PackageLoader("shapelaw.report", ".")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.globals["own"] = lambda name: Markup(loader.get_source(made, name)[0])
    made.globals["crc32"] = lambda text: f"{zlib.crc32(text.encode()):08x}"
    made.filters["number"] = number
    return made


def number(value: float, name: str = "") -> str:
    """A number as prescribe.py prints it: whole widths and depths, else five digits."""
    if name in WHOLE and value == int(value):
        return f"{value:.0f}"
    return f"{value:.5g}"


def _answer_rows(answer: Prescription) -> list[dict[str, str]]:
    rows = []
    for name, value in answer.values.items():
        low, high = answer.intervals.get(name, (math.nan, math.nan))
        ends = f"{number(low, name)} to {number(high, name)}" if math.isfinite(low) else ""
        rows.append({"name": name, "value": number(value, name), "ends": ends, "unit": answer.units[name]})
    return rows


def _lead(answer: Prescription) -> list[dict[str, str]]:
    """Counts and loss of the headline, each with its interval in brackets."""
    rows = []
    for name, noun in LEAD.items():
        ends = " to ".join(map(in_words, answer.intervals.get(name, ())))
        rows.append({"name": name, "text": in_words(answer.values[name]) + noun, "ends": ends})
    ends = " to ".join(f"{end:.4g}" for end in answer.intervals.get("loss", ()))
    return [*rows, {"name": "loss", "text": f"loss {answer.values['loss']:.4g}", "ends": ends}]


def _about(runs: RunsTable) -> str:
    """The program that wrote the page, the time, and the runs."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    version = importlib.metadata.version("shapelaw")
    return f"shapelaw {version}, {today}; runs {runs.hash[:12]} ({runs.about.get('source', 'not recorded')})"


def _picture(figure: Figure, folder: Path) -> dict[str, Any]:
    """The smallest embeddable file of a figure as a data address with its size, and links to its files beside the page."""
    files = [path for path in figure.files if path.suffix in MEDIA and path.is_file()]
    if not files:
        raise UserError(
            f"figure {figure.name}: no .svg or .png among {', '.join(map(str, figure.files)) or 'no files'}"
        )
    smallest = min(files, key=lambda path: path.stat().st_size)
    content = smallest.read_bytes()
    width, height = _size(content)
    beside = [path for path in figure.files if path.is_relative_to(folder) and path.is_file()]
    return {
        "name": figure.name,
        "title": figure.title,
        "caption": figure.caption,
        "alt": figure.alt or figure.caption,
        "source": f"data:{MEDIA[smallest.suffix]};base64,{base64.b64encode(content).decode('ascii')}",
        "width": width,
        "height": height,
        "links": [(_label(path, figure.name), quote(os.path.relpath(path, folder))) for path in beside],
    }


def _label(path: Path, name: str) -> str:
    """Label of a figure's file: its kind and, for one of several tables, the table's name."""
    table = path.stem.removeprefix(name).strip("_").replace("_", " ")
    return f"{path.suffix[1:].upper()} ({table})" if table else path.suffix[1:].upper()


def _size(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG, or of an SVG with either, in pixels, which reserve its place on the page."""
    if content.startswith(b"\x89PNG"):
        width, height = struct.unpack(">II", content[16:24])
        return width, height
    root = content[: content.find(b">", content.find(b"<svg"))].decode("utf-8", "replace")
    found = [re.search(rf'\s{side}="([\d.]+)', root) for side in ("width", "height")]
    return tuple(round(float(one[1])) if one else 0 for one in found)  # type: ignore[return-value]


def _slider(report: Report) -> dict[str, str]:
    """Ends of the slider, in decades of FLOPs, on its own grid of hundredths, as far as the shapes allow."""
    flops = report.runs.flops()
    here = math.log10(report.budget)
    low = _served(report.problem, here, math.log10(flops.min()) - DECADES_BELOW)
    high = _served(report.problem, here, math.log10(flops.max()) + DECADES_BEYOND)
    return {"low": f"{low:.2f}", "high": f"{high:.2f}", "value": f"{here:.2f}", "budget": f"{report.budget:.6g}"}


def _budgets(report: Report) -> Table:
    """Answers for budgets from the smallest among the runs to ten times the largest, by half decades."""
    low, high = np.log10([report.runs.flops().min(), BEYOND * report.runs.flops().max()])
    tried = [float(f"{10**place:.1e}") for place in np.arange(low, high, 0.5)]
    found = {budget: report.problem.best(budget) for budget in tried if report.problem.answers(budget)}
    columns = ["params", "tokens", "tokens_per_param", "loss"]
    rows = [
        {"link": "", "cells": [*map(_cell, [budget, *(one.values[name] for name in columns)]), _cell(one.domain)]}
        for budget, one in found.items()
    ]
    return {"columns": ["FLOPs", *columns, "fitted domain"], "rows": rows}


def _served(problem: Problem, here: float, end: float) -> float:
    """The furthest log10 of a budget from one towards an end up to which every budget has an answer."""
    steps = max(math.ceil(abs(end - here) / STEP_DECADES), 0)
    served = round(here, 2)
    for i in range(1, steps + 1):
        tried = round(here + math.copysign(STEP_DECADES * i, end - here), 2)
        if not problem.answers(10**tried):
            break
        served = tried
    return served


def run_table(runs: RunsTable, link: str) -> Table:
    """One row per run: its sizes, and tokens, loss and FLOPs of its last kept validation."""
    kept = runs.kept.assign(flops=runs.flops())
    last = kept.sort_values("tokens").groupby("run", sort=True).tail(1).sort_values("run")
    last = last.assign(points=last["run"].map(kept.groupby("run").size()))
    columns = [name for name in (*RUN_COLUMNS, "points") if name in last and last[name].notna().any()]
    rows = []
    for _, row in last.iterrows():
        address = _address(link, row.get("mlflow_run_id", ""))
        rows.append({"link": address, "cells": [_cell(row[name]) for name in columns]})
    return {"columns": columns, "rows": rows}


def fit_table(fits: Sequence[FitRow]) -> Table:
    """One row per fit: its distinguishing choices and its results."""
    columns = ["fit", "law", "delta", "counting", "objective", "exponent", "E", "flags"]
    rows = []
    for one in fits:
        fit = one.fit
        named = {EXPONENT: fit.compute_optimal_exponent, "E": fit.parameters.get("E")}
        told_of = ("not identified" if name in fit.ridge else value for name, value in named.items())
        found = (fit.objective, *told_of, len(fit.flags))
        told = (one.name, fit.law or fit.method, fit.settings.get("delta"), fit.settings.get("counting"))
        rows.append({"link": _address(one.link, "-"), "cells": [_cell(value) for value in (*told, *found)]})
    return {"columns": columns, "rows": rows}


def _address(link: str, run: Any) -> str:
    """A web address, or nothing: the page may link to no other scheme."""
    if not link.startswith(("http://", "https://")) or not isinstance(run, str) or not run:
        return ""
    return link.replace("{run}", run)


def _cell(value: Any) -> dict[str, str]:
    """The text of a cell, and its key for sorting."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return {"text": "", "key": "", "kind": "number"}
    if isinstance(value, str):
        return {"text": value, "key": value, "kind": "text"}
    return {"text": f"{float(value):.5g}", "key": repr(float(value)), "kind": "number"}


def _checklist(points: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name.replace("_", " "), "lines": _lines(content)} for name, content in points.items()]


def _lines(content: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested content as (key, text), with long lists cut."""
    if isinstance(content, Mapping):
        return [line for key, value in content.items() for line in _lines(value, f"{prefix}{key} ")]
    if isinstance(content, Sequence) and not isinstance(content, str):
        shown = ", ".join(_text(value) for value in content[:LONGEST])
        more = f" and {len(content) - LONGEST} more" if len(content) > LONGEST else ""
        return [(prefix.strip(), f"{shown}{more}")]
    return [(prefix.strip(), _text(content))]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_text(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return "(" + ", ".join(_text(one) for one in value[:LONGEST]) + ")"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
