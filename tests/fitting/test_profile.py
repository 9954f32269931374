"""Profiles against closed forms, brute force and the published data's known flat directions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import chi2
from test_solvers import OwnLaw

from arrays import bootstrap, constrained_minimum, profile, solve
from shapelaw.errors import UserError
from shapelaw.fitting.objective import Problem
from shapelaw.fitting.profile import likelihood_rise
from shapelaw.laws import EXPONENT, get_law
from shapelaw.runs import load_runs
from test_laws import NATURAL, table

LAW = get_law("params_tokens")


def published(subset: str, law: str = "params_tokens") -> tuple[dict[str, np.ndarray], np.ndarray]:
    runs = load_runs("gemstones", subset=subset)
    return runs.columns_for(get_law(law)), runs.kept["loss"].to_numpy(float)


def test_straight_line_has_the_textbook_interval() -> None:
    """A power law in FLOPs by least squares is a line: RSS rises by (alpha - alpha_hat)^2 Sxx."""
    law, rng = get_law("power_flops"), np.random.default_rng(0)
    columns = {"flops": np.geomspace(1e18, 1e22, 60)}
    loss = law.predict(NATURAL["power_flops"], columns) * np.exp(0.01 * rng.standard_normal(60))
    found = solve(law, columns, loss, delta=10.0)
    x, y = np.log(columns["flops"]), np.log(loss)
    slope, intercept = np.polyfit(x, y, 1)
    rss, sxx = np.sum((y - slope * x - intercept) ** 2), np.sum((x - x.mean()) ** 2)
    made = profile(law, columns, loss, found, "alpha", delta=10.0, rise=1e-3, level=0.9)
    half = np.sqrt(1e-3 * rss / sxx)
    np.testing.assert_allclose(made.interval, (-slope - half, -slope + half), rtol=1e-6)
    half = np.sqrt(np.expm1(chi2.ppf(0.9, 1) / 60) * rss / sxx)  # 2 (n/2) log(RSS/RSS0) = chi-squared quantile
    np.testing.assert_allclose(made.likelihood_interval, (-slope - half, -slope + half), rtol=1e-6)


def test_slope_of_the_late_tokens_is_not_identified(data_dir: object) -> None:
    """hot_120b+_only: anything in [.57, .82] within 0.1% of the minimum."""
    columns, loss = published("hot_120b+_only")
    made = profile(LAW, columns, loss, solve(LAW, columns, loss))
    np.testing.assert_allclose(made.interval, (0.57, 0.82), atol=5e-3)
    assert made.open_ends == (False, False)
    assert made.likelihood_interval[0] < made.estimate < made.likelihood_interval[1]
    fewer = profile(LAW, columns, loss, solve(LAW, columns, loss), effective=22)
    assert fewer.likelihood_rise > made.likelihood_rise


def test_token_exponent_of_four_terms_is_nearly_flat(data_dir: object) -> None:
    law = get_law("width_depth_params_tokens")
    columns, loss = published("hot_100b+", law.name)
    made = profile(law, columns, loss, solve(law, columns, loss), "zeta")
    np.testing.assert_allclose(made.interval, (0.454, 0.573), atol=3e-3)


def test_irreducible_loss_at_zero_is_an_open_end(data_dir: object) -> None:
    law = get_law("width_depth_tokens")
    columns, loss = published("hot_100b+", law.name)
    made = profile(law, columns, loss, solve(law, columns, loss), "E")
    assert made.estimate == made.interval[0] == 0.0
    assert made.open_ends == (True, False)
    assert 0 < made.interval[1] < 0.1


@pytest.mark.parametrize("statistic", ["alpha", "E", EXPONENT])
def test_constrained_minimum_is_scipys(data_dir: object, statistic: str) -> None:
    """SLSQP with the same equality, from our constrained optimum's neighbourhood, goes no lower."""
    columns, loss = published("slim_chinchilla")
    found = solve(LAW, columns, loss, delta=1e-3)
    parameters = LAW.natural(found.theta)
    value = 0.95 * (LAW.compute_optimal_exponent(parameters) if statistic == EXPONENT else parameters[statistic])
    ours = constrained_minimum(Problem.of(LAW, columns, loss, 1e-3), found, statistic, value)
    row, target = LAW.constraint(statistic, value)
    problem = Problem.of(LAW, columns, loss, 1e-3)
    start = found.theta - row * (row @ found.theta - target) / (row @ row)
    searched = minimize(
        lambda theta: problem.value(theta) / 1e-5,
        start,
        jac=lambda theta: -LAW.jacobian(theta, columns).T @ np.clip(problem.residuals(theta), -1e-3, 1e-3) / 1e-5,
        method="SLSQP",
        constraints={"type": "eq", "fun": lambda theta: row @ theta - target, "jac": lambda theta: row},
        options={"maxiter": 2000, "ftol": 1e-14},
    )
    assert ours <= searched.fun * 1e-5 * (1 + 1e-6)
    assert ours > found.objective


def test_profile_is_lowest_at_the_estimate(data_dir: object) -> None:
    columns, loss = published("hot")
    found = solve(LAW, columns, loss)
    for statistic in (*LAW.parameters, EXPONENT):
        made = profile(LAW, columns, loss, found, statistic)
        assert made.interval[0] < made.estimate < made.interval[1]
        assert (made.objectives >= found.objective * (1 - 1e-9)).all()
        assert (np.diff(made.values) >= 0).all()


def test_other_laws_are_profiled_too(data_dir: object) -> None:
    for name, statistics in (("kaplan_e", ("N_c", "alpha_D", EXPONENT)), ("interaction", ("gamma", "mu", EXPONENT))):
        law = get_law(name)
        columns, loss = published("hot", name)
        found = solve(law, columns, loss, delta=1e-3)
        for statistic in statistics:
            made = profile(law, columns, loss, found, statistic, delta=1e-3)
            assert made.interval[0] < made.estimate < made.interval[1]


def test_likelihood_rise_lies_between_normal_and_laplace(data_dir: object) -> None:
    columns, loss = published("hot")
    for delta, shape in ((1e-6, 1.0), (10.0, 2.0)):
        found = solve(LAW, columns, loss, delta=delta)
        rise = likelihood_rise(Problem.of(LAW, columns, loss, delta), found, 0.9)
        assert np.log1p(rise) == pytest.approx(shape * chi2.ppf(0.9, 1) / (2 * len(loss)), rel=2e-2)


def test_bad_input_is_named() -> None:
    columns = table(n=30)
    loss = LAW.predict(NATURAL["params_tokens"], columns)
    found = solve(LAW, columns, loss)
    with pytest.raises(UserError, match="statistic=gamma"):
        profile(LAW, columns, loss, found, "gamma")
    with pytest.raises(UserError, match="rise=0"):
        profile(LAW, columns, loss, found, "E", rise=0.0)
    power = get_law("power_flops")
    with pytest.raises(UserError, match="no compute_optimal_exponent"):
        profile(power, columns, loss, solve(power, columns, loss), EXPONENT)


def test_a_law_of_ones_own_is_profiled_and_resampled(data_dir: object) -> None:
    """The general solver on the hyperplane, and its refits, against the compiled one."""
    columns, loss = published("slim_chinchilla")
    found = solve(LAW, columns, loss, delta=1e-3)
    value = 0.95 * LAW.natural(found.theta)["alpha"]
    ends = []
    for law in (LAW, OwnLaw()):
        ends.append(constrained_minimum(Problem.of(law, columns, loss, 1e-3), found, "alpha", value))
    assert ends[1] == pytest.approx(ends[0], rel=1e-7)
    runs = np.arange(len(loss)) % 7
    drawn = [bootstrap(law, columns, loss, runs, found, n=4, delta=1e-3).objectives for law in (LAW, OwnLaw())]
    np.testing.assert_allclose(drawn[1], drawn[0], rtol=1e-6)


@pytest.mark.parametrize("statistic", ["A", "alpha"])
def test_a_coefficient_far_below_rounding_has_its_profile(statistic: str) -> None:
    """A loss that rises with params^6, so that A is near e^-105, and its interval is bounded."""
    columns = table()
    n, t = columns["params"], columns["tokens"]
    noise = 1 + 1e-5 * np.random.default_rng(3).standard_normal(len(n))
    loss = (1.7 + 0.3 * (n / n.max()) ** 6 + 2000 / t**0.37) * noise
    found = solve(LAW, columns, loss, delta=1e-2)
    made = profile(LAW, columns, loss, found, statistic)
    low, high = made.interval
    assert made.estimate == pytest.approx(LAW.natural(found.theta)[statistic], rel=1e-9)
    assert low < made.estimate < high
    assert made.open_ends == (False, False)
    if statistic == "A":
        assert 1e-60 < high / low < 1e60
        assert high < 1e-30
    else:
        assert -6.5 < low < -5.5 > high - 0.5
