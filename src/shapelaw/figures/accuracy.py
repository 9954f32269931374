"""Figures of a fit of accuracies: accuracy against loss, and the residuals of the law."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from shapelaw.figures import style
from shapelaw.figures.fit import residuals
from shapelaw.fitting.result import FitResult
from shapelaw.laws import get_law
from shapelaw.runs import RunsTable

POINTS = 200
LEVEL = 0.9


def draw(runs: RunsTable, result: FitResult, folder: Path, *, as_pdf: bool = False) -> list[Path]:
    """Draw every figure of a fitted accuracy law into a folder, as PNG and optionally PDF; returns the paths of the files."""
    paths: list[Path] = []
    curves = (("accuracy_loss", accuracy_against_loss),) if get_law(str(result.law)).predictors == ("loss",) else ()
    with style.look():
        for name, plot in (*curves, ("residuals", residuals)):
            figure, axes = style.canvas(3.4, 5.2)
            plot(axes, runs, result)
            paths += style.save(figure, folder, name, runs.loss_unit, as_pdf=as_pdf)
    return paths


def accuracy_against_loss(axes: Axes, runs: RunsTable, result: FitResult) -> None:
    """Every run's accuracies, and the law with the band of its refits."""
    kept = runs.kept
    for _, run in kept.sort_values("loss").groupby("run", sort=False):
        axes.plot(run["loss"], run["accuracy"], ".-", color=style.NEUTRAL, linewidth=0.5, markersize=4)
    losses = np.linspace(kept["loss"].min(), kept["loss"].max(), POINTS)
    law = get_law(str(result.law))

    def accuracy(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(1 - np.exp(law.log_prediction(theta, {"loss": losses})))

    axes.plot(losses, accuracy(result.vector), color=style.FITTED, label=f"law: {law.name}")
    if len(result.vectors):
        refits = np.array([accuracy(theta) for theta in result.vectors])
        level = float((result.settings.get("bootstrap") or {}).get("level", LEVEL))
        low, high = np.nanquantile(refits, [(1 - level) / 2, (1 + level) / 2], axis=0)
        axes.fill_between(
            losses, low, high, color=style.FITTED, alpha=style.BAND, linewidth=0, label=f"{level:.0%} of refits"
        )
    axes.invert_xaxis()
    axes.set(xlabel="held-out loss (nats per token), better to the right", ylabel="accuracy")
    axes.legend()
