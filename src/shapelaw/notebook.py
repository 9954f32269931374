"""How notebooks show fits and runs tables: as tables, HTML and axes. The methods of fits and tables call this module."""

from __future__ import annotations

import base64
from collections.abc import Callable
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shapelaw.errors import UserError
from shapelaw.figures import fit as figures
from shapelaw.figures import style
from shapelaw.laws import EXPONENT, get_law
from shapelaw.prescribe import Prescription, Problem
from shapelaw.runs.table import RunsTable

if TYPE_CHECKING:
    from shapelaw.fitting.result import FitResult

HEIGHT_INCHES, WIDTH_INCHES = 3.4, 5.2
DOTS_PER_INCH = 130
ROWS = 8
"""Most rows in the HTML of a runs table."""
KINDS: dict[str, Callable[[Axes, RunsTable, FitResult], None]] = {
    "loss": figures.loss_against_flops,
    "residuals": figures.residuals,
    "profile": lambda axes, runs, result: figures.slope_profile(axes, result),
}


def table_of(result: FitResult) -> pd.DataFrame:
    """A row for every parameter and the exponent: value, ends of its interval, unit, and whether the data identify it."""
    values = dict(result.parameters)
    if result.compute_optimal_exponent is not None:
        values[EXPONENT] = result.compute_optimal_exponent
    ends = {name: result.intervals.get(name, (None, None)) for name in values}
    columns = {
        "value": values,
        "low": {name: low for name, (low, _) in ends.items()},
        "high": {name: high for name, (_, high) in ends.items()},
        "unit": {name: result.units.get(name, "1") for name in values},
        "identified": {name: name not in result.not_identified for name in values},
    }
    return pd.DataFrame(columns, index=pd.Index(list(values), name="parameter"))


def plot_fit(result: FitResult, kind: str, runs: RunsTable | None, ax: Axes | None) -> Axes:
    """Draw one figure of a fit.

    Args:
        kind: `loss` (against FLOPs), `residuals`, or `profile` of the exponent.
        runs: the fitted runs; None takes those that the result knows.
        ax: axes to draw on; None makes a new figure.
    """
    if kind not in KINDS:
        raise UserError(f"kind={kind}: allowed values are {', '.join(KINDS)}")
    if kind == "profile" and EXPONENT not in result.profiles:
        raise UserError("kind=profile: the fit has no profile of its exponent; fit with profile=True")
    if kind != "profile" and (result.law is None or get_law(result.law).target != "loss"):
        raise UserError(f"kind={kind}: is drawn only for laws of the loss, and this is {result.law or result.method}")
    known = None if kind == "profile" and runs is None else runs or result.fitted_runs
    drawn_on = ax or _figure()
    with style.look():
        axes = drawn_on if isinstance(drawn_on, Axes) else drawn_on.add_subplot()
        KINDS[kind](axes, known, result)  # type: ignore[arg-type]
        style.read_logs([axes])
    return axes


def plot_runs(runs: RunsTable, ax: Axes | None) -> Axes:
    """Loss against FLOPs, one line per run, coloured by parameters."""
    drawn_on = ax or _figure()
    with style.look():
        axes = drawn_on if isinstance(drawn_on, Axes) else drawn_on.add_subplot()
        figures.measured_losses(axes, runs)
        style.read_logs([axes])
    return axes


def _figure() -> Figure:
    """A figure that a notebook shows.

    It is created outside of `style.look`, at whose end settings of pyplot's back end, such as interactivity, get lost.
    """
    import matplotlib.pyplot as plt

    return plt.figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DOTS_PER_INCH, layout="constrained")


def prescribe(
    result: FitResult,
    budget: float | None,
    loss: float | None,
    runs: RunsTable | None,
    space: str,
) -> Prescription:
    """The size for a budget in FLOPs, or the cheapest that reaches a loss."""
    if (budget is None) == (loss is None):
        raise UserError("prescribe: give either budget=FLOPs or loss=NATS")
    problem = Problem.of(result, runs or result.fitted_runs, space=space)
    return problem.best(budget) if budget is not None else problem.reach(loss or 0.0)


def fit_html(result: FitResult) -> str:
    """The fit as HTML: what was fitted, its parameters with intervals, its flags, and its picture."""
    head = escape(result.summary().partition("\n")[0])
    table = table_of(result).to_html(float_format="{:.4g}".format, na_rep="", border=0)
    flags = "".join(f"<li>{escape(flag)}</li>" for flag in result.flags)
    return f"<p>{head}</p>{table}{f'<ul>{flags}</ul>' if flags else ''}{_picture(result)}"


def _picture(result: FitResult) -> str:
    """Loss against FLOPs as an image; empty if the fit is not a law of the loss, or its runs are unknown."""
    try:
        with style.look():
            figure, axes = style.canvas(HEIGHT_INCHES, WIDTH_INCHES)
            plot_fit(result, "loss", None, axes)
    except UserError:
        return ""
    return image(lambda file: figure.savefig(file, format="png", dpi=DOTS_PER_INCH), "Loss against FLOPs")


def image(write: Callable[[BytesIO], None], words: str) -> str:
    """A picture within HTML."""
    file = BytesIO()
    write(file)
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def runs_html(runs: RunsTable) -> str:
    """A summary of a table, and its first rows."""
    shown = runs.kept.head(ROWS).to_html(index=False, border=0)
    reasons = "".join(f"<li>{count} rows excluded: {escape(reason)}</li>" for reason, count in runs.exclusions.items())
    return f"<p>{escape(repr(runs))}</p>{f'<ul>{reasons}</ul>' if reasons else ''}{shown}"
