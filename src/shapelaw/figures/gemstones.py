"""The paper's figures about prescriptions from its published runs, all by one call."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from shapelaw.counting import VOCAB_SIZE_GEMSTONES, flops_per_token, params_total
from shapelaw.figures import paper, style
from shapelaw.fitting.fit import fit
from shapelaw.fitting.options import BootstrapOptions
from shapelaw.fitting.rainbow import rainbow
from shapelaw.fitting.result import FitResult
from shapelaw.prescribe.brute import bin_minima, paper_edges, paper_triples
from shapelaw.prescribe.price import Cost, Throughput
from shapelaw.prescribe.problem import Problem
from shapelaw.prescribe.studies import overspend, overspend_measured, overtraining, prescriptions_by_budget
from shapelaw.prescribe.surface import Surface
from shapelaw.prescribe.world import World
from shapelaw.runs import RunsTable, load_runs
from shapelaw.shapes import ShapeRules, feasible_shapes

SUBSET = "hot_100b+"
LAWS = {
    "eq 1": "params_tokens",
    "eq 2": "width_depth_params_tokens",
    "interaction": "interaction",
}
BUDGETS = tuple(np.geomspace(1e18, 1e26, 17))
OVERTRAINED = (1e20, 1e21, 1e22, 1e23)
TARGET_LOSS = 2.6
SIZES = (50e6, 100e6, 500e6, 1e9, 2e9, 4e9, 7e9)
WIDE_RULES = ShapeRules(even_heads=False, width_min=128, width_max=2**20, depth_min=1, depth_max=2**14)
"""Shapes wide and deep enough that no optimum up to 1e26 FLOPs lies at an end."""

CAPTIONS = {
    "fig05_prescriptions": (
        "Best shape for a budget by three laws (solid inside the fitted domain, dashed outside; bands are 90% intervals from "
        "refits of resampled runs). Crosses: the paper's brute force for eq 2, drawn at each bin's left edge as there; its "
        "winners lie at the right edge, 4.12 times further, so the exact curve runs beside them. Eq 1 has no shapes and is "
        "asked for params and tokens at 6N."
    ),
    "fig06_rainbow": (
        "Exponent of the compute-optimal params by data set, counting and approach, with 90% intervals from refits of "
        "resampled runs. Nine of the published fits stop short of the optimum: width 512 alone has a slope of 0.10 there, "
        "where the paper prints 0.28."
    ),
    "fig07_overspend": (
        "Above: what each run paid by 300B tokens for its loss, over what the convex hull of all runs pays for it. Below: the "
        "cost of reaching one loss by the interaction law for every feasible shape, over the lowest (star). GPU hours by "
        "measured steps, interpolated over shape. White: shapes that never reach the loss."
    ),
    "fig08_overtraining_eq_2": (
        "Loss when a budget is spent on more or fewer tokens than are best, shape re-optimised, by eq 2."
    ),
    "fig08_overtraining_interaction": (
        "Loss when a budget is spent on more or fewer tokens than are best, shape re-optimised, by the interaction law."
    ),
    "fig22_feasible_shapes": (
        "Shapes within 5% of 50M, 100M, 500M, 1B, 2B, 4B or 7B params under the suite's rules. Six of the 22 trained shapes "
        "lie outside them: width 384 has an odd number of heads, and four others miss a size by more than 5%."
    ),
    "fig24_flops_ratio": "FLOPs per trained token counted exactly, over six times the params. Dots: trained shapes.",
}
"""What a reader must know of each figure, and where it differs from the paper's."""


def draw(folder: Path, refits: int = 300) -> list[Path]:
    """Draw Figs 5, 6, 7, 8, 22 and 24 from the published runs; the paths of the files (PNG, PDF and the rainbow's CSV).

    Args:
        refits: of resampled runs, for every interval.
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs = load_runs("gemstones", subset=SUBSET)
    wanted = BootstrapOptions(n=refits)
    fits = {label: fit(runs, law=law, bootstrap=wanted) for label, law in LAWS.items()}
    return [
        *_prescriptions(folder, runs, fits),
        *_rainbow(folder, wanted),
        *_overspend(folder, runs, fits["interaction"]),
        *_overtraining(folder, runs, fits["eq 2"], "eq_2"),
        *_overtraining(folder, runs, fits["interaction"], "interaction"),
        *_feasible(folder, runs),
        *_flops_ratio(folder, runs),
    ]


def _prescriptions(folder: Path, runs: RunsTable, fits: dict[str, FitResult]) -> list[Path]:
    curves = {}
    for label, result in fits.items():
        world = dataclasses.replace(World.of(result, runs), rules=WIDE_RULES)
        space = "params" if label == "eq 1" else "relaxed"
        curves[label] = prescriptions_by_budget(Problem(result, world, space=space), BUDGETS)
    triples = paper_triples(World.of(fits["eq 2"], runs))
    edges = bin_minima(Surface.of(fits["eq 2"], refits=False), triples, paper_edges())
    figure, grid = paper.panels(2, 2)
    paper.prescriptions(grid, curves, edges)
    return style.save(figure, folder, "fig05_prescriptions")


def _rainbow(folder: Path, wanted: BootstrapOptions) -> list[Path]:
    table = rainbow(bootstrap=wanted)
    table.to_csv(folder / "fig06_rainbow.csv", index=False)
    figure, grid = paper.panels(1, 2, 8.5, 4.6)
    paper.rainbow_fan(grid[0], table)
    paper.rainbow_slopes(grid[1], table)
    return [folder / "fig06_rainbow.csv", *style.save(figure, folder, "fig06_rainbow")]


def _overspend(folder: Path, runs: RunsTable, result: FitResult) -> list[Path]:
    world = World.of(result, runs)
    costs = {"FLOPs": Cost(), "GPU hours": Cost("device_hours", Throughput.measured(runs, world))}
    columns = {"FLOPs": "flops", "GPU hours": "device_hours"}
    figure, grid = paper.panels(2, 2, 8.0, 6.4)
    for i, (name, cost) in enumerate(costs.items()):
        paper.overspend_runs(grid[i], overspend_measured(runs, cost=columns[name]), name)
        by_law = overspend(Problem(result, world, cost, intervals=False), [TARGET_LOSS])
        paper.overspend_grid(grid[2 + i], by_law, name)
    return style.save(figure, folder, "fig07_overspend")


def _overtraining(folder: Path, runs: RunsTable, result: FitResult, name: str) -> list[Path]:
    world = dataclasses.replace(World.of(result, runs), rules=WIDE_RULES)
    problem = Problem(result, world, space="relaxed")
    figure, grid = paper.panels(2, 2, 6.4, 4.8)
    paper.overtrained(grid, {budget: overtraining(problem, budget) for budget in OVERTRAINED})
    return style.save(figure, folder, f"fig08_overtraining_{name}")


def _feasible(folder: Path, runs: RunsTable) -> list[Path]:
    found = feasible_shapes(ShapeRules(), VOCAB_SIZE_GEMSTONES, SIZES)
    shapes = pd.DataFrame({"width": [one.width for one in found], "depth": [one.depth for one in found]})
    shapes["params"] = params_total(shapes["width"], shapes["depth"], VOCAB_SIZE_GEMSTONES)
    figure, axes = style.canvas(4.0)
    paper.feasible(axes, shapes, _trained(runs))
    return style.save(figure, folder, "fig22_feasible_shapes")


def _flops_ratio(folder: Path, runs: RunsTable) -> list[Path]:
    width, depth = np.geomspace(256, 8192, 120), np.geomspace(2, 255, 100)
    w, d = np.meshgrid(width, depth)
    exact = flops_per_token(w, d)
    ratio = exact / (6.0 * params_total(w, d, VOCAB_SIZE_GEMSTONES, relaxed=True))
    figure, axes = style.canvas(4.0)
    paper.flops_ratio(axes, width, depth, ratio, _trained(runs))
    return style.save(figure, folder, "fig24_flops_ratio")


def _trained(runs: RunsTable) -> pd.DataFrame:
    return runs.kept[["width", "depth"]].drop_duplicates()
