"""Figures of the step-and-batch law's stages: the critical batch, the converged losses, the learning curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray

from shapelaw.figures import style
from shapelaw.fitting.result import FitResult
from shapelaw.fitting.spec import FitData, spec_of
from shapelaw.laws import get_law
from shapelaw.runs import RunsTable
from shapelaw.step_batch.law import StepsBatchLaw

Array = NDArray[np.float64]


def draw(runs: RunsTable, result: FitResult, folder: Path, *, as_pdf: bool = False) -> list[Path]:
    """Draw every stage into a folder, as PNG and optionally PDF; returns the paths of the files."""
    plots: dict[str, Callable[[Axes], None]] = {
        "trade_off": lambda axes: trade_off(axes, result),
        "critical_batch": lambda axes: critical_batch(axes, result),
        "converged_loss": lambda axes: converged_loss(axes, result),
        "learning_curve": lambda axes: learning_curve(axes, runs, result),
    }
    paths: list[Path] = []
    for name, plot in plots.items():
        figure, axes = style.canvas(3.4, 5.2)
        plot(axes)
        paths += style.save(figure, folder, name, runs.loss_unit, as_pdf=as_pdf)
    return paths


def law_of(result: FitResult) -> StepsBatchLaw:
    """The fit's law, known to be a step-and-batch law."""
    law = get_law(str(result.law))
    assert isinstance(law, StepsBatchLaw)
    return law


def trade_off(axes: Axes, result: FitResult) -> None:
    """Steps and tokens to each loss for every batch, over the least of each; all contours lie on one hyperbola."""
    readings = pd.DataFrame(result.stages["critical_batch"]["readings"])
    norm = style.log_norm(readings["batch_tokens"].tolist())
    colours = colormaps[style.SEQUENTIAL]
    for batch in np.unique(readings["batch_tokens"]):
        rows = readings[readings["batch_tokens"] == batch]
        axes.plot(
            rows["steps_ratio"],
            rows["tokens_ratio"],
            ".",
            color=colours(norm(batch)),
            markersize=4,
            label=f"{batch:,.0f}",
        )
    x = 1 + np.geomspace(1e-3, 1e3, 300)
    axes.plot(x, 1 + 1 / (x - 1), "-", color=style.ENVELOPE, linewidth=1.2, label="(S/S_min - 1)(E/E_min - 1) = 1")
    edge = 1.3 * float(max(readings["steps_ratio"].max(), readings["tokens_ratio"].max()))
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(0.9, edge),
        ylim=(0.9, edge),
        xlabel="steps S / S_min",
        ylabel="tokens E / E_min",
    )
    axes.legend(frameon=False, fontsize=7, title="batch (tokens)", title_fontsize=7)


def critical_batch(axes: Axes, result: FitResult) -> None:
    """Critical batch of every contour against its loss, and B_star / L^(1/alpha_B)."""
    stage = result.stages["critical_batch"]
    contours = pd.DataFrame(stage["contours"]).dropna(subset=["b_crit"])
    norm = style.log_norm(contours["params"].tolist())
    colours = colormaps[style.SEQUENTIAL]
    for size in np.unique(contours["params"]):
        rows = contours[contours["params"] == size]
        axes.plot(rows["loss"], rows["b_crit"], "o", color=colours(norm(size)), markersize=4)
    loss = np.geomspace(contours["loss"].min(), contours["loss"].max(), 80)
    _band(axes, loss, result, lambda law, p: law.critical_batch(p, loss))
    axes.plot(
        loss,
        law_of(result).critical_batch(result.parameters, loss),
        "-",
        color=style.FITTED,
        label="B_star / L^(1/alpha_B)",
    )
    for batch in stage["batches"]:
        axes.axhline(batch, color=style.NEUTRAL, linewidth=0.6, linestyle=":")
    axes.plot([], [], ":", color=style.NEUTRAL, label="batches that were run")
    axes.set(xscale="log", yscale="log", xlabel="held-out loss (nats per token)", ylabel="critical batch (tokens)")
    axes.invert_xaxis()
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(ScalarFormatter())
    axes.legend(frameon=False, fontsize=8)
    bar = axes.figure.colorbar(ScalarMappable(norm, style.SEQUENTIAL), ax=axes, pad=0.02)
    bar.set_label("parameters (as counted)")


def converged_loss(axes: Axes, result: FitResult) -> None:
    """Last and converged loss of every size, and the size law."""
    sizes = pd.DataFrame(result.stages["converged_loss"]["sizes"])
    n = np.geomspace(sizes["params"].min() / 1.3, sizes["params"].max() * 5, 80)
    _band(axes, n, result, lambda law, p: law.converged_loss(p, n))
    axes.plot(n, law_of(result).converged_loss(result.parameters, n), "-", color=style.FITTED, label="L(N)")
    axes.plot(
        sizes["params"],
        sizes["last_loss"],
        "o",
        color=style.NEUTRAL,
        markersize=4,
        label="last loss of its longest run",
    )
    axes.plot(sizes["params"], sizes["converged_loss"], "s", color=style.ENVELOPE, markersize=4, label="converged")
    axes.set(xscale="log", yscale="log", xlabel="parameters (as counted)", ylabel="held-out loss (nats per token)")
    style.plain_losses(axes)
    axes.legend(frameon=False, fontsize=8)


def learning_curve(axes: Axes, runs: RunsTable, result: FitResult) -> None:
    """Loss of every row above its size's converged loss, against adjusted steps; all batches and sizes lie on one line."""
    law, p = law_of(result), result.parameters
    data = FitData.of(runs, spec_of(result))
    batch = data.columns["batch_tokens"]
    steps_min = data.columns["tokens"] / batch / (1 + law.critical_batch(p, data.loss) / batch)
    above = data.loss - law.converged_loss(p, data.columns["params"])
    norm = style.log_norm(data.columns["params"].tolist())
    shown = above > 0
    axes.scatter(
        steps_min[shown],
        above[shown],
        s=5,
        c=data.columns["params"][shown],
        norm=norm,
        cmap=style.SEQUENTIAL,
        linewidth=0,
    )
    s = np.geomspace(steps_min.min(), steps_min.max(), 80)
    axes.plot(s, (p["S_c"] / s) ** p["alpha_S"], "-", color=style.ENVELOPE, linewidth=1.4, label="(S_c/S_min)^alpha_S")
    first = result.settings["staged"]["steps_min"]
    if first:
        axes.axvline(first, color=style.NEUTRAL, linewidth=0.8, linestyle=":", label="first fitted")
    axes.set(xscale="log", yscale="log", xlabel="adjusted steps S_min", ylabel="loss above L(N) (nats per token)")
    axes.legend(frameon=False, fontsize=8)
    bar = axes.figure.colorbar(ScalarMappable(norm, style.SEQUENTIAL), ax=axes, pad=0.02)
    bar.set_label("parameters (as counted)")


def _band(
    axes: Axes, x: Array, result: FitResult, curve: Callable[[StepsBatchLaw, Mapping[str, float]], Array]
) -> None:
    """Shade the interval of a curve over the refits, if there are any."""
    if not result.replicates:
        return
    law, names = law_of(result), list(result.replicates)
    drawn = [curve(law, dict(zip(names, row, strict=True))) for row in zip(*result.replicates.values(), strict=True)]
    tail = (1 - float(result.settings["bootstrap"]["level"])) / 2
    low, high = np.nanquantile(np.array(drawn), [tail, 1 - tail], axis=0)
    axes.fill_between(x, low, high, color=style.FITTED, alpha=0.15, linewidth=0)
