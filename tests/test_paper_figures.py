"""The paper's figures show what their tables hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapelaw.figures import paper, style
from shapelaw.figures.gemstones import CAPTIONS, draw


def test_prescriptions_show_their_curves() -> None:
    curve = pd.DataFrame({"budget": [1e19, 1e20, 1e21], "inside": [True, True, False]})
    for name in paper.PANELS:
        curve = curve.assign(
            **{name: [10.0, 30.0, 90.0], f"{name}_low": [9.0, 25.0, 70.0], f"{name}_high": [11.0, 35.0, 99.0]}
        )
    edges = pd.DataFrame({"left": [2e19], "width": [512.0], "depth": [8.0], "params": [1e8], "tokens": [2e9]})
    _, grid = paper.panels(2, 2)
    paper.prescriptions(grid, {"law": curve}, edges)
    dashed, solid = grid[0].lines[:2]
    assert np.array_equal(dashed.get_ydata(), [10.0, 30.0, 90.0])
    assert np.isnan(solid.get_xdata()[2])  # outside the fitted domain
    assert grid[0].lines[2].get_ydata()[0] == 64.0
    kaplan = next(line for line in grid[2].lines if line.get_label() == "Kaplan et al. 2020")
    assert kaplan.get_ydata()[0] == pytest.approx(1.6e9 * (1e19 / 8.64e19) ** 0.88)


def test_chinchillas_line_splits_the_budget() -> None:
    _, grid = paper.panels(1, 2)
    for axes, name in zip(grid, ("params", "tokens"), strict=True):
        paper._others(axes, np.array([1e20, 5.76e23]), name)
    params, tokens = (axes.lines[1].get_ydata() for axes in grid)
    assert 6 * np.asarray(params) * np.asarray(tokens) == pytest.approx([1e20, 5.76e23])
    assert 5e10 < params[1] < 1e11  # Chinchilla had 70B


def test_the_rainbow_names_every_line() -> None:
    rows = [("hot", "parametric", "total", 0.7, 0.6, 0.8), ("cool_end", "hull", "no_embedding_and_head", 0.6, 0.5, 0.7)]
    table = pd.DataFrame(rows, columns=["subset", "method", "counting", "exponent", "low", "high"])
    _, grid = paper.panels(1, 2)
    paper.rainbow_fan(grid[0], table)
    paper.rainbow_slopes(grid[1], table, {"hot parametric total": 0.72})
    assert [text.get_text() for text in grid[1].get_yticklabels()] == ["cool_end, no embedding or head", "hot"]
    assert grid[0].lines[0].get_ydata()[-1] == pytest.approx(100**0.7)
    assert any(line.get_marker() == "x" and line.get_xdata()[0] == 0.72 for line in grid[1].lines)


def test_the_best_shape_is_starred() -> None:
    w, d = np.meshgrid([256.0, 512.0, 1024.0], [4.0, 8.0, 16.0])
    cost = 1 + (np.log(w / 512) ** 2 + np.log(d / 8) ** 2)
    cost[0, 0] = np.inf
    table = pd.DataFrame({"loss": 2.6, "width": w.ravel(), "depth": d.ravel(), "overspend": cost.ravel()})
    _, axes = style.canvas()
    paper.overspend_grid(axes, table, "FLOPs")
    star = axes.lines[-1]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (512.0, 8.0)


def test_overtraining_is_drawn_a_budget_a_panel() -> None:
    table = pd.DataFrame({"factor": [0.5, 1.0, 2.0], "loss": [2.7, 2.6, 2.65], "low": 2.5, "high": 2.8})
    _, grid = paper.panels(1, 2)
    paper.overtrained(grid, {1e20: table, 1e21: table})
    assert [axes.get_title() for axes in grid] == ["1e20 FLOPs", "1e21 FLOPs"]
    assert np.array_equal(grid[0].lines[0].get_ydata(), table["loss"])


@pytest.mark.slow
def test_all_from_the_published_runs(data_dir: Path, tmp_path: Path) -> None:
    paths = draw(tmp_path, refits=20)
    assert {path.stem for path in paths} == set(CAPTIONS)
    assert all(path.stat().st_size > 1000 for path in paths)
    rainbow = pd.read_csv(tmp_path / "fig06_rainbow.csv")
    assert len(rainbow) == 24
