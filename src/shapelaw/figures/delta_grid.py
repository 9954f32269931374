"""The compute-optimal exponent against the number of starts, for every delta and solver (after Gemstones, Fig 20)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from shapelaw.figures import style
from shapelaw.fitting.result import FitResult

DASHES = {"newton": "-", "newton_torch": "-.", "reference": ":"}


def draw(results: Sequence[FitResult], folder: Path, name: str) -> list[Path]:
    """Draw the fits of a sweep over grid sizes; nothing if there are fewer than two sizes."""
    shown = [one for one in results if one.compute_optimal_exponent is not None and one.settings.get("grid_size")]
    if len({one.settings["grid_size"] for one in shown}) < 2:
        return []
    with style.look():
        figure, axes = style.canvas(3.0, 4.6)
        exponents(axes, shown)
        return style.save(figure, folder, name)


def exponents(axes: Axes, results: Sequence[FitResult]) -> None:
    """A line for every delta and solver; lines that lie on each other are the answer."""
    deltas = sorted({one.settings["delta"] for one in results}, reverse=True)
    for solver in sorted({one.settings["solver"] for one in results}):
        for delta, colour in zip(deltas, style.COLOURS, strict=False):
            line = sorted(
                (one.settings["grid_size"], one.compute_optimal_exponent)
                for one in results
                if one.settings["solver"] == solver and one.settings["delta"] == delta
            )
            label = f"{solver}, delta {delta:g}"
            axes.plot(
                *zip(*line, strict=True), DASHES.get(solver, "--"), marker="o", color=colour, label=label, markersize=4
            )
    axes.set(xscale="log", xlabel="starts", ylabel="exponent a of the compute-optimal N ~ C^a")
    axes.legend(ncols=2)
