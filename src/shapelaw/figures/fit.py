"""Figures of one fit: loss against FLOPs with the law, and the residuals of the law."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from numpy.typing import NDArray

from shapelaw.figures import style
from shapelaw.fitting.result import FitResult
from shapelaw.laws import get_law
from shapelaw.laws.base import EXPONENT
from shapelaw.runs import RunsTable

Array = NDArray[np.float64]
FLOPS_POINTS = 80


def draw(runs: RunsTable, result: FitResult, folder: Path, *, as_pdf: bool = False) -> list[Path]:
    """Draw every figure of a fitted law into a folder, as PNG and optionally PDF; returns the paths of the files."""
    paths: list[Path] = []
    with style.look():
        for name, plot in (("loss_flops", loss_against_flops), ("residuals", residuals)):
            figure, axes = style.canvas(3.4, 5.2)
            plot(axes, runs, result)
            paths += style.save(figure, folder, name, runs.loss_unit, as_pdf=as_pdf)
        if EXPONENT in result.profiles:
            figure, axes = style.canvas()
            slope_profile(axes, result)
            paths += style.save(figure, folder, "slope_profile", as_pdf=as_pdf)
    return paths


def measured_losses(axes: Axes, runs: RunsTable) -> None:
    """Every run's losses against FLOPs, coloured by parameters."""
    kept = runs.kept.assign(flops=runs.flops(), params=runs.params())
    norm = style.log_norm(kept["params"].tolist())
    for _, run in kept.sort_values("flops").groupby("run", sort=False):
        colour = colormaps[style.SEQUENTIAL](norm(float(run["params"].iloc[0])))
        axes.plot(run["flops"], run["loss"], ".-", color=colour, linewidth=0.8, markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="training FLOPs", ylabel="held-out loss (nats per token)")
    style.plain_losses(axes)
    bar = axes.figure.colorbar(ScalarMappable(norm, style.SEQUENTIAL), ax=axes, pad=0.02)
    bar.set_label("parameters")


def loss_against_flops(axes: Axes, runs: RunsTable, result: FitResult) -> None:
    """Every run's losses, the law along each run, and the lowest loss the law gives for a budget over the table's shapes."""
    kept = runs.kept.assign(flops=runs.flops(), predicted=result.predict(runs), params=runs.params())
    norm = style.log_norm(kept["params"].tolist())
    colours = colormaps[style.SEQUENTIAL]
    for _, run in kept.sort_values("flops").groupby("run", sort=False):
        colour = colours(norm(float(run["params"].iloc[0])))
        axes.plot(run["flops"], run["predicted"], _law_mark(run), color=colour, linewidth=0.9, markersize=6, zorder=2)
        axes.plot(run["flops"], run["loss"], ".", color=colour, markersize=4, zorder=3)
    flops, lowest, fitted = envelope(kept, result)
    within = np.where(fitted, lowest, np.nan)
    longest = kept[kept["run"] == kept["run"].value_counts().index[0]]
    axes.plot([], [], ".", color=style.NEUTRAL, label="measured")
    axes.plot([], [], _law_mark(longest), color=style.NEUTRAL, linewidth=0.9, label=f"law: {result.law}")
    if fitted.any():
        axes.plot(flops, within, "--", color=style.ENVELOPE, linewidth=1.6, zorder=4, label=_envelope_label(result))
    if not fitted.all():
        label = "beyond the fitted tokens" if fitted.any() else f"{_envelope_label(result)}, beyond the fitted tokens"
        axes.plot(flops, lowest, ":", color=style.ENVELOPE, linewidth=1.0, zorder=4, label=label)
    axes.set(xscale="log", yscale="log", xlabel="training FLOPs", ylabel="held-out loss (nats per token)")
    style.plain_losses(axes)
    axes.legend()
    bar = axes.figure.colorbar(ScalarMappable(norm, style.SEQUENTIAL), ax=axes, pad=0.02)
    bar.set_label("parameters")


def _law_mark(run: pd.DataFrame) -> str:
    """The mark of the law along a run: a line, or a dash for a run with a single point."""
    return "-" if len(run) > 1 else "_"


def envelope(kept: pd.DataFrame, result: FitResult) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Lowest predicted loss at each budget over the table's shapes, each trained on the tokens that the budget buys.

    Args:
        kept: rows with run, params, tokens and flops, and the columns that the law needs.

    Returns:
        FLOPs, loss, and whether the best shape's tokens lie within the table's, each (n,).
    """
    sizes = kept.drop_duplicates("run").drop(columns=["run", "loss", "predicted", "step"], errors="ignore")
    flops = np.geomspace(kept["flops"].min(), kept["flops"].max(), FLOPS_POINTS)
    per_token = (sizes["flops"] / sizes["tokens"]).to_numpy()
    every = sizes.loc[sizes.index.repeat(len(flops))].reset_index(drop=True)
    budgets = np.tile(flops, len(sizes))
    tokens = budgets / np.repeat(per_token, len(flops))
    losses = result.predict(every.assign(flops=budgets, tokens=tokens))
    fitted = (tokens >= kept["tokens"].min()) & (tokens <= kept["tokens"].max())
    grid = losses.reshape(len(sizes), len(flops))
    best = grid.argmin(axis=0), np.arange(len(flops))
    return flops, grid[best], fitted.reshape(grid.shape)[best]


def residuals(axes: Axes, runs: RunsTable, result: FitResult) -> None:
    """Relative error of the law at every point against tokens, a line per run; variation between runs appears as offsets."""
    law = get_law(str(result.law))
    kept = runs.kept.assign(error=runs.target(law) / result.predict(runs) - 1, params=runs.params())
    norm = style.log_norm(kept["params"].tolist())
    colours = colormaps[style.SEQUENTIAL]
    for _, run in kept.sort_values("tokens").groupby("run", sort=False):
        colour = colours(norm(float(run["params"].iloc[0])))
        axes.plot(run["tokens"], 100 * run["error"], ".-", color=colour, linewidth=0.8, markersize=4)
    axes.axhline(0, color=style.NEUTRAL, linewidth=0.8)
    axes.set(xscale="log", xlabel="training tokens", ylabel=f"measured over predicted {law.target}, minus 1 (%)")
    bar = axes.figure.colorbar(ScalarMappable(norm, style.SEQUENTIAL), ax=axes, pad=0.02)
    bar.set_label("parameters")


def slope_profile(axes: Axes, result: FitResult) -> None:
    """Lowest objective at each value of the compute-optimal exponent, which shows how sharply the data fix it."""
    profile = result.profiles[EXPONENT]
    rises = 100 * (np.asarray(profile["objectives"], dtype=float) / result.objective - 1)
    axes.plot(profile["values"], rises, ".-", color=style.FITTED, linewidth=1.2, markersize=4)
    low, high = profile["interval"]
    axes.axvspan(
        low, high, color=style.FITTED, alpha=0.12, label=f"within {100 * profile['rise']:g}%: {low:.3f} to {high:.3f}"
    )
    axes.axvline(profile["estimate"], color=style.ENVELOPE, linewidth=1.2, label=f"best: {profile['estimate']:.4f}")
    axes.set(xlabel="exponent a of the compute-optimal N ~ C^a", ylabel="objective above its minimum (%)")
    axes.set_ylim(0, 2000 * profile["rise"])  # twenty times the rise: beyond it nothing is in doubt
    axes.legend()


def _envelope_label(result: FitResult) -> str:
    exponent = None if EXPONENT in result.ridge else result.compute_optimal_exponent
    return "lowest over the shapes" + (f", N ~ C^{exponent:.2f}" if exponent is not None else "")
