"""Refits and their intervals: published standard errors, full refits, and coverage of a known truth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest

from arrays import bootstrap, solve
from shapelaw.errors import UserError
from shapelaw.fitting.bootstrap import Bootstrap, expanded_level
from shapelaw.fitting.newton import Newton
from shapelaw.fitting.objective import Penalty, Problem
from shapelaw.fitting.starts import random_starts
from shapelaw.laws import get_law
from shapelaw.runs import load_runs

LAW = get_law("params_tokens")
STANDARD_ERRORS = {"A": 124.5, "B": 1293.3, "E": 0.0257, "alpha": 0.0154, "beta": 0.0206}
"""Of 4,000 bootstraps of the Chinchilla fit, as published (Besiroglu et al. 2024, arXiv 2404.10102)."""


def slope(parameters: Mapping[str, float]) -> float | None:
    return LAW.compute_optimal_exponent(parameters)


@cache
def chinchilla(n: int = 1000) -> Bootstrap:
    runs = load_runs("chinchilla")
    columns, loss = runs.columns_for(LAW), runs.kept["loss"].to_numpy(float)
    found = solve(LAW, columns, loss, delta=1e-3)
    return bootstrap(LAW, columns, loss, np.arange(len(loss)), found, n=n, by="rows", delta=1e-3)


def test_chinchilla_fit_and_standard_errors(data_dir: object) -> None:
    runs = load_runs("chinchilla")
    found = solve(LAW, runs.columns_for(LAW), runs.kept["loss"].to_numpy(float), delta=1e-3)
    assert found.objective == pytest.approx(1.0182740e-3, rel=1e-7)
    assert LAW.natural(found.theta) == pytest.approx(
        {"A": 477.842, "B": 2143.86, "alpha": 0.347313, "beta": 0.367183, "E": 1.817235}, rel=5e-4
    )
    for name, published in STANDARD_ERRORS.items():
        assert np.std(chinchilla().draws[name]) == pytest.approx(published, rel=0.15)


def test_refits_reach_what_full_fits_reach(data_dir: object) -> None:
    runs = load_runs("chinchilla")
    columns, loss = runs.columns_for(LAW), runs.kept["loss"].to_numpy(float)
    rng = np.random.default_rng(0)
    for i in range(10):
        weights = rng.multinomial(len(loss), np.full(len(loss), 1 / len(loss)))
        full = solve(LAW, columns, loss, delta=1e-3, weights=weights, grid_size=16)
        assert chinchilla().objectives[i] <= full.objective * (1 + 1e-7)


@pytest.mark.parametrize("name", ["params_tokens", "skaling_aspect"])
def test_refits_are_fits_to_rows_that_are_repeated_or_left_out(name: str) -> None:
    """Many multiplicities and expectations in one compiled loop, against tables that hold each row as often."""
    columns, loss, _ = synthetic(0)
    width, depth = np.repeat(np.array(SHAPES, dtype=float), 10, axis=0).T
    loss = loss * (1 + 0.02 * (np.log(width / depth) - 3.5) ** 2)
    law, columns = get_law(name), columns | {"width": width, "depth": depth}
    columns = {column: columns[column] for column in law.predictors}
    problem = Problem.of(law, columns, loss, 1e-3)
    start, rng = (
        Newton(problem).follow(random_starts(law, 8, np.random.default_rng(1))).best[0][None],
        np.random.default_rng(2),
    )
    weights = rng.multinomial(len(loss), np.full(len(loss), 1 / len(loss)), size=3)
    assert (weights == 0).any(axis=1).all()
    expected = Penalty(np.full(len(start[0]), 0.3), np.full(len(start[0]), 1e-5))
    priors = [None, expected, Penalty(expected.centre + 0.2, expected.precision)]
    thetas, objectives = Newton(problem).refits(start, weights.astype(float), priors)
    for row, prior, theta, objective in zip(weights, priors, thetas, objectives, strict=True):
        repeated = {column: np.repeat(values, row) for column, values in columns.items()}
        alone = Newton(Problem.of(law, repeated, np.repeat(loss, row), 1e-3).with_prior(prior))
        found, lowest = alone.refit(start, np.ones(len(loss)))
        assert objective == pytest.approx(lowest, rel=1e-12)
        np.testing.assert_allclose(theta, found, rtol=1e-5)


def test_runs_make_wider_intervals_than_rows(data_dir: object) -> None:
    runs = load_runs("gemstones", subset="hot_100b+")
    columns, loss = runs.columns_for(LAW), runs.kept["loss"].to_numpy(float)
    found = solve(LAW, columns, loss)
    widths = {}
    for by in ("runs", "rows"):
        low, high = bootstrap(LAW, columns, loss, runs.kept["run"], found, n=200, by=by).interval("alpha")
        widths[by] = high - low
    assert widths["runs"] > 1.5 * widths["rows"]


def test_same_seed_same_draws(data_dir: object) -> None:
    runs = load_runs("gemstones", subset="hot")
    columns, loss = runs.columns_for(LAW), runs.kept["loss"].to_numpy(float)
    found = solve(LAW, columns, loss)
    one, two, other = (bootstrap(LAW, columns, loss, runs.kept["run"], found, n=20, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.thetas, two.thetas)
    assert not np.array_equal(one.thetas, other.thetas)
    for workers in (2, 100):  # more than refits, too
        threads = bootstrap(LAW, columns, loss, runs.kept["run"], found, n=20, seed=0, workers=workers)
        np.testing.assert_allclose(one.objectives, threads.objectives, rtol=1e-12)


def test_kinds_of_intervals_agree_where_all_is_symmetric(data_dir: object) -> None:
    made = chinchilla()
    kinds = {kind: made.interval(slope, 0.9, kind) for kind in ("percentile", "expanded", "bca")}
    width = np.diff(kinds["percentile"])[0]
    for kind in ("expanded", "bca"):
        np.testing.assert_allclose(kinds[kind], kinds["percentile"], atol=0.15 * width)
    assert made.covariance().shape == (5, 5)
    assert made.interval("E", 0.5)[0] > made.interval("E", 0.9)[0]


def test_expanded_level_is_students() -> None:
    """22 groups: Student's 1.7207 times sqrt(22/21) in place of the normal 1.6449."""
    assert expanded_level(0.9, 22) == pytest.approx(0.9218, abs=1e-4)
    assert expanded_level(0.9, 100_000) == pytest.approx(0.9, abs=1e-4)


def test_bad_input_is_named(data_dir: object) -> None:
    runs = load_runs("gemstones", subset="slim_chinchilla")
    columns, loss = runs.columns_for(LAW), runs.kept["loss"].to_numpy(float)
    found = solve(LAW, columns, loss)
    with pytest.raises(UserError, match="by=run"):
        bootstrap(LAW, columns, loss, runs.kept["run"], found, n=10, by="run")
    with pytest.raises(UserError, match="single run"):
        bootstrap(LAW, columns, loss, np.zeros(len(loss)), found, n=10)
    with pytest.raises(UserError, match="groups has shape"):
        bootstrap(LAW, columns, loss, np.zeros(3), found, n=10)
    with pytest.raises(UserError, match="n=1"):
        bootstrap(LAW, columns, loss, runs.kept["run"], found, n=1)
    made = bootstrap(LAW, columns, loss, runs.kept["run"], found, n=10)
    with pytest.raises(UserError, match="kind=bc"):
        made.interval("E", kind="bc")
    with pytest.raises(UserError, match=r"level=1\.5"):
        made.interval("E", level=1.5)
    with pytest.raises(UserError, match="statistic=gamma"):
        made.interval("gamma")
    with pytest.raises(UserError, match="not finite"):
        made.interval(lambda parameters: None)


TRUTH = {"A": 480.0, "B": 2100.0, "alpha": 0.34, "beta": 0.37, "E": 1.8}
SHAPES = (256, 23), (256, 71), (384, 13), (384, 36), (512, 11), (512, 16), (768, 3), (768, 45), (1024, 28), (1280, 15)
SHAPES = (
    *SHAPES,
    (1280, 36),
    (1536, 50),
    (1792, 7),
    (1792, 18),
    (2048, 27),
    (2560, 8),
    (3072, 12),
    (256, 27),
    (512, 12),
)
SHAPES = (*SHAPES, (512, 13), (512, 14), (256, 80))


def synthetic(
    seed: int, between: float = 0.008, within: float = 0.004
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """22 runs of the Gemstones' shapes at ten token counts; four fifths of the noise's variance lie between runs."""
    rng = np.random.default_rng(seed)
    width, depth = np.array(SHAPES, dtype=float).T
    params = np.repeat(12 * width**2 * depth + 2 * 50304 * width, 10)
    tokens, run = np.tile(np.arange(1, 11) * 1e10, len(SHAPES)), np.repeat(np.arange(len(SHAPES)), 10)
    early = np.tile(np.geomspace(0.1, 1.0, 10), len(SHAPES))  # more early validations, which the token term needs
    columns = {"params": params, "tokens": tokens * early}
    noise = between * rng.standard_normal(len(SHAPES))[run] + within * rng.standard_normal(len(run))
    return columns, LAW.predict(TRUTH, columns) * np.exp(noise), run


def coverage(sets: int, draws: int) -> dict[str, float]:
    """Share of synthetic data sets whose 90% run-level interval of the slope covers the truth, by kind."""
    truth = slope(TRUTH)
    assert truth is not None
    hits = dict.fromkeys(("percentile", "expanded", "bca"), 0)
    for seed in range(sets):
        columns, loss, run = synthetic(seed)
        found = solve(LAW, columns, loss, delta=1e-3, grid_size=4)
        made = bootstrap(LAW, columns, loss, run, found, n=draws, delta=1e-3, seed=seed)
        for kind in hits:
            low, high = made.interval(slope, 0.9, kind)
            hits[kind] += low <= truth <= high
    return {kind: count / sets for kind, count in hits.items()}


def test_run_level_interval_covers_the_truth_in_short() -> None:
    """40 data sets: a 90% interval that covers fewer than 30 of them has a chance below 1%."""
    assert coverage(40, 100)["percentile"] >= 0.75


@pytest.mark.slow
def test_run_level_interval_covers_the_truth() -> None:
    """200 synthetic data sets with between-run noise: 84% to 96% of the 90% intervals of the slope hold the truth."""
    shares = coverage(200, 400)
    assert 0.84 <= shares["percentile"] <= 0.96
    assert 0.84 <= shares["bca"] <= 0.96
