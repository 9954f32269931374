"""Approaches 1 and 2: published regressions, scipy's hull, synthetic optima."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from shapelaw.errors import UserError
from shapelaw.fitting.hull import bin_minima, frontier, lower_hull
from shapelaw.fitting.isoflop import isoflop_bins, isoflop_lines
from shapelaw.fitting.lines import line_data, regress
from shapelaw.runs import RunsTable, load_runs

SETS = {
    "": "hot_477",
    "_100b+": "hot_100b+_477",
    "_120b+_only": "hot_120b+_only_477",
    "_lr_ablation": "lr_ablation_hot_477",
    "_cooldown": "cool_end",
}
"""Suffix of the published regression -> data set."""
TARGETS = ("tokens_per_param", "tokens", "params")
PUBLISHED = [
    f"{target}{suffix}{embeds}"
    for suffix in SETS
    for target, embeds in [
        ("params", ""),
        ("params", "_no_embeds"),
        ("tokens", ""),
        ("tokens", "_no_embeds"),
        ("tokens_per_param", ""),
    ]
    if (target, suffix) != ("tokens_per_param", "_120b+_only")
]


def parse(label: str) -> tuple[str, str, str]:
    """(target, data set, counting) of a published file."""
    target = next(name for name in TARGETS if label.startswith(name))
    rest = label.removeprefix(target)
    counting = "no_embedding_and_head" if rest.endswith("_no_embeds") else "total"
    return target, SETS[rest.removesuffix("_no_embeds")], counting


def test_all_published_files_are_listed(data_dir: Path) -> None:
    files = (data_dir / "gemstones/published/approach_1").glob("*.json")
    labels = {file.stem.removeprefix("approach_1_linear_regression_") for file in files}
    assert labels == set(PUBLISHED)
    assert len(PUBLISHED) == 24


@pytest.mark.parametrize("label", PUBLISHED)
def test_published_regressions_are_reproduced(data_dir: Path, label: str) -> None:
    file = data_dir / f"gemstones/published/approach_1/approach_1_linear_regression_{label}.json"
    published = json.loads(file.read_text())
    target, subset, counting = parse(label)
    data, _ = line_data(load_runs("gemstones", subset=subset), counting)
    line = data.line(frontier(data.log_cost, data.log_loss), target)
    assert line.slope == pytest.approx(published["coef"][0], abs=1e-9, rel=0)
    assert line.intercept == pytest.approx(published["intercept"], abs=1e-9, rel=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 60))
def test_lower_hull_is_scipys(seed: int, count: int) -> None:
    points = np.random.default_rng(seed).normal(size=(count, 2))
    ours = set(lower_hull(points[:, 0], points[:, 1]).tolist())
    whole = ConvexHull(points)
    below = {
        int(i) for facet, (_, down, _) in zip(whole.simplices, whole.equations, strict=True) if down < 0 for i in facet
    }
    assert ours == below


def test_frontier_falls_and_lies_below_every_point() -> None:
    rng = np.random.default_rng(0)
    cost, loss = rng.uniform(0, 10, 500), rng.normal(size=500)
    rows = frontier(cost, loss)
    assert (np.diff(loss[rows]) < 0).all()
    inside = (cost >= cost[rows].min()) & (cost <= cost[rows].max())
    assert (np.interp(cost[inside], cost[rows], loss[rows]) <= loss[inside] + 1e-12).all()


def test_hull_drops_edges_and_repeated_costs() -> None:
    assert lower_hull([0.0, 1.0, 2.0, 1.0], [0.0, 1.0, 2.0, 5.0]).tolist() == [0, 2]
    assert lower_hull([0.0, 0.0], [2.0, 1.0]).tolist() == [1]


def test_bin_minima_are_the_lowest_of_their_bins() -> None:
    rng = np.random.default_rng(1)
    cost, loss = rng.uniform(0, 5, 400), rng.normal(size=400)
    rows = bin_minima(cost, loss, bins=7)
    place = pd.cut(cost, np.linspace(cost.min(), cost.max(), 8), include_lowest=True, labels=False)
    expected = pd.Series(loss).groupby(place).idxmin()
    assert sorted(rows.tolist()) == sorted(expected.tolist())
    assert len(bin_minima(np.log([1.0, 10.0, 100.0]), np.zeros(3), bins_per_decade=1)) == 2
    with pytest.raises(UserError, match="at least one bin"):
        bin_minima(cost, loss, bins=0)


def test_regression_is_numpys() -> None:
    rng = np.random.default_rng(2)
    x = rng.uniform(40, 50, 30)
    y = 0.5 * x + rng.normal(size=30)
    line = regress(x, y)
    assert np.allclose([line.slope, line.intercept], np.polyfit(x, y, 1), rtol=1e-10)
    assert line.at(np.exp(45.0)) == pytest.approx(np.exp(line.intercept + 45.0 * line.slope))
    with pytest.raises(UserError, match="do not span two costs"):
        regress(x[:1], y[:1])


def test_device_hours_are_a_cost(data_dir: Path) -> None:
    table = load_runs("gemstones", subset="hot_100b+_477")
    data, _ = line_data(table, cost="device_hours")
    raw = pd.read_json(data_dir / "gemstones/runs/wandb_df_for_fitting_hot_100b+_477.jsonl", lines=True)
    assert np.allclose(np.exp(data.log_cost), raw.seconds_per_step * raw.step * raw.num_nodes * 8 / 3600)
    with pytest.raises(UserError, match="allowed values are flops, device_hours"):
        line_data(table, cost="euros")
    with pytest.raises(UserError, match="needs the column device_hours"):
        line_data(load_runs("chinchilla"), cost="device_hours")


def isoflop_table(alpha: float = 0.34, beta: float = 0.28, jitter: float = 0.0) -> RunsTable:
    """Noise-free runs at five budgets, seven sizes each, about the optimum of A/N^alpha + B/T^beta + E."""
    rng = np.random.default_rng(0)
    rows = []
    for budget in 10.0 ** np.arange(18, 23):
        best = (alpha * 400 / (beta * 400)) ** (1 / (alpha + beta)) * (budget / 6) ** (beta / (alpha + beta))
        for factor in np.geomspace(0.7, 1 / 0.7, 7):
            params = best * factor
            tokens = budget / (6 * params) * np.exp(rng.normal() * jitter)
            rows.append((params, tokens, 1.7 + 400 / params**alpha + 400 / tokens**beta))
    frame = pd.DataFrame(rows, columns=["params", "tokens", "loss"])
    return RunsTable(frame.assign(run=[f"r{i}" for i in range(len(frame))]))


def test_isoflop_finds_the_optimum_of_a_synthetic_law() -> None:
    data, _ = line_data(isoflop_table())
    bins = isoflop_bins(data)
    assert [one.points for one in bins] == [7] * 5
    lines = isoflop_lines(bins)
    assert lines["params"].slope == pytest.approx(0.28 / 0.62, abs=2e-3)
    assert lines["params"].slope + lines["tokens"].slope == pytest.approx(1.0)


def test_isoflop_bins_stand_jitter() -> None:
    data, _ = line_data(isoflop_table(jitter=0.02))
    assert len(isoflop_bins(data)) == 5


def test_isoflop_on_chinchilla_and_its_refusal_on_gemstones(data_dir: Path) -> None:
    data, _ = line_data(load_runs("chinchilla"))
    bins = isoflop_bins(data)
    budgets = [6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21]
    assert np.allclose(np.exp([one.log_cost for one in bins]), budgets, rtol=0.1)
    assert 0.46 < isoflop_lines(bins)["params"].slope < 0.53  # Hoffmann et al., table 2: 0.49 (0.462, 0.534)
    data, _ = line_data(load_runs("gemstones", subset="hot_100b+"))
    with pytest.raises(UserError, match="0 bins of equal FLOPs"):
        isoflop_bins(data)
