"""What the runs do not identify has no number: it is named, ties are broken by weak expectations, prescriptions refuse it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapelaw import FitResult, RunsTable, UserError, fit, load_fit, load_runs
from shapelaw.fitting.ridge import find_ridge
from shapelaw.fitting.solve import solve
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.laws import EXPONENT, Law, SumLaw, Term, get_law
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.trust import Unidentified
from shapelaw.suite import Suite
from shapelaw.verbs.fit_summary import told
from support import ROOT

TRUTH = {"A": 400.0, "B": 400.0, "alpha": 0.34, "beta": 0.28, "E": 1.7}


def runs_of(params: np.ndarray, noise: float, **columns: np.ndarray) -> RunsTable:
    """Points of eq 1, each a run of its own."""
    rng = np.random.default_rng(0)
    tokens = 10 ** rng.uniform(9, 11, len(params))
    loss = (1.7 + 400 / params**0.34 + 400 / tokens**0.28) * np.exp(noise * rng.standard_normal(len(params)))
    frame = pd.DataFrame({"run": range(len(params)), **columns, "params": params, "tokens": tokens, "loss": loss})
    return RunsTable(frame.astype({"run": str}))


def two_sizes(noise: float) -> RunsTable:
    return runs_of(np.where(np.arange(40) % 2, 1e8, 4e8), noise)


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_two_sizes_do_not_identify_how_the_loss_falls_with_size(noise: float, tmp_path: Path) -> None:
    runs = two_sizes(noise)
    result = fit(runs, law="params_tokens", delta=1e-3, bootstrap={"n": 20})
    assert set(result.ridge) == {"A", "alpha", "E", EXPONENT}
    assert set(result.intervals) == {"B", "beta"}
    assert "  alpha = not identified\n" in result.summary()
    assert "compute-optimal exponent: not identified" in result.summary()
    assert any(flag.startswith("ridge: A, alpha, E") for flag in result.flags)
    assert result.parameters["alpha"] == pytest.approx(0.4, abs=0.01)  # where it is expected
    assert told(result, tmp_path) == f"exponent not identified, E not identified, in {tmp_path}"
    assert load_fit(result.save(tmp_path, runs)) == result
    law = FitSpec.of("params_tokens").law
    for vector in result.ridge_vectors:  # laws that fit as well
        assert (
            FitData.of(runs, FitSpec().simplest).problem(FitSpec(delta=1e-3)).value(np.array(vector))
            <= 1.3 * result.objective + 1e-8
        )
    assert max(abs(law.natural(vector)["alpha"] - 0.4) for vector in result.ridge_vectors) > 0.5  # and one that is far


def test_prescriptions_that_rest_on_a_ridge_are_refused() -> None:
    runs = two_sizes(1e-3)
    problem = Problem.of(fit(runs, law="params_tokens", delta=1e-3, bootstrap={"n": 5}), runs, space="params")
    for ask in (lambda: problem.best(1e21), lambda: problem.reach(2.5)):
        with pytest.raises(
            Unidentified, match="depends on A, alpha, E, compute_optimal_exponent, which the runs do not"
        ):
            ask()
    known = runs_of(10 ** np.random.default_rng(1).uniform(7, 9.5, 40), 1e-3)
    answered = fit(known, law="params_tokens", delta=1e-3, bootstrap={"n": 5})
    assert answered.ridge == ()
    assert Problem.of(answered, known, space="params").best(1e20).flags == answered.flags


def test_one_aspect_ratio_identifies_no_price_of_it() -> None:
    rng = np.random.default_rng(2)
    depth = rng.integers(2, 30, 40).astype(float)
    width = 64 * depth
    runs = runs_of(12 * width**2 * depth, 1e-3, width=width, depth=depth)
    result = fit(runs, law="params_tokens_aspect", delta=1e-3, bootstrap={"n": 5})
    assert {"kappa", "mu"} <= set(result.ridge)
    assert {"alpha", "beta", "E"} <= set(result.intervals)
    assert result.parameters["kappa"] == pytest.approx(0.1, rel=0.05)
    np.testing.assert_allclose(result.predict(runs), runs.kept["loss"], rtol=0.01)


def test_few_runs_may_identify_what_they_identify_badly() -> None:
    """Six runs of small models: the profiles of A, alpha and the exponent end on both sides, closer than expected anyway."""
    runs = RunsTable.read(ROOT / "docs" / "data" / "step_batch_runs.parquet").select("batch_tokens == 768")
    result = fit(runs, law="params_tokens", profile=True, bootstrap={"n": 60})
    assert result.ridge == ()
    assert set(result.intervals) == {"A", "B", "alpha", "beta", "E", EXPONENT}
    expected = get_law("params_tokens").priors["alpha"]
    low, high = result.profiles["alpha"]["likelihood_interval"]
    assert 0.05 < low < high < 2.0
    assert 0.4 < high - low < 2 * 1.645 * expected.sd
    low, high = result.profiles[EXPONENT]["likelihood_interval"]
    assert 0.0 < low < high < 1.0
    for name in ("alpha", EXPONENT):  # the refits know no more than the profile does
        refitted, profiled = result.intervals[name], result.profiles[name]["likelihood_interval"]
        assert refitted[1] - refitted[0] > 0.6 * (profiled[1] - profiled[0])


@pytest.mark.parametrize("sizes", [(12336, 16464), (12336, 92400)], ids=str)
def test_the_same_runs_of_two_sizes_do_not(sizes: tuple[int, int]) -> None:
    runs = RunsTable.read(ROOT / "docs" / "data" / "step_batch_runs.parquet")
    two = runs.select(f"params == {sizes[0]} or params == {sizes[1]}")
    assert {"A", "alpha", EXPONENT} <= set(fit(two, law="params_tokens").ridge)


def test_ties_are_broken_on_a_ridge_and_nowhere_else(data_dir: Path) -> None:
    """Width 512 alone: the exponent of the size runs off at the optimum, and late losses are predicted better without."""
    runs = load_runs("gemstones", subset="hot_100b+_512x")
    early, late = runs.select("tokens <= 1e11"), runs.select("tokens > 3e11")
    errors = {}
    for ties in ("priors", "optimum"):
        result = fit(early, law="params_tokens", delta=1e-3, ties=ties)
        errors[ties] = float(np.mean(np.abs(result.predict(late) / late.kept["loss"].to_numpy() - 1)))
        assert "alpha" in result.ridge
    assert errors["priors"] < 0.7 * errors["optimum"]
    whole = load_runs("gemstones", subset="hot")
    thetas = [fit(whole, law="interaction", delta=1e-3, ties=ties).theta for ties in ("priors", "optimum")]
    assert thetas[0] == thetas[1]


class Twice(Law):
    """L = E + (a + b)/params^0.3: only the sum of a and b is identified."""

    name, formula, source = "twice", "L = E + (a + b)/params^0.3", "this test"
    predictors, parameters, irreducible = ("params",), ("a", "b", "E"), "E"
    log_parameters = frozenset({"E"})

    def log_prediction(self, theta: np.ndarray, columns: object) -> np.ndarray:
        return np.log(np.exp(theta[2]) + np.abs(theta[0] + theta[1]) / np.asarray(columns["params"]) ** 0.3)  # type: ignore[index]


def test_a_law_of_ones_own_is_looked_at_too() -> None:
    runs = runs_of(10 ** np.random.default_rng(3).uniform(7, 9, 30), 1e-2)
    spec = FitSpec.of(Twice(), delta=1e-2, grid_size=2)
    data = FitData.of(runs, spec)
    assert find_ridge(data, spec, solve(data, spec)).names == ("a", "b")


@pytest.mark.parametrize(
    "law",
    [
        SumLaw("one", "", "", (Term("A", falls={"params": "alpha"}), Term("B", falls={"tokens": "beta"}))),
        SumLaw("two", "", "", (Term("A", falls={"params": "alpha"}),), power="rho"),
    ],
)
def test_every_exponent_of_a_sum_has_an_expectation(law: SumLaw) -> None:
    assert set(law.priors) == {name for name in law.parameters if name not in law.log_parameters}


def planted(vocab_size: int | None = None) -> tuple[FitResult, RunsTable]:
    width = 128.0 * np.random.default_rng(4).integers(2, 9, 40)
    depth = np.random.default_rng(5).integers(4, 30, 40).astype(float)
    runs = runs_of(12 * width**2 * depth + 2 * 1000 * width, 1e-3, width=width, depth=depth)
    suite = Suite(name="planted", vocab_size=vocab_size or 1000, head_size=128, seq_len=512)
    runs = RunsTable(runs.frame, recorded=dict.fromkeys(runs.frame["run"], suite))
    return fit(runs, law="params_tokens_aspect", counting="total", delta=1e-3, bootstrap={"n": 3}), runs


def test_a_loss_above_that_of_guessing_is_no_prediction() -> None:
    result, runs = planted()
    problem = Problem.of(result, runs)
    assert problem.at(512, 8, 1e10).values["loss"] < np.log(1000)
    with pytest.raises(UserError, match=r"gives a loss of .* outside 0 to 6.908 .*the law means nothing there"):
        problem.at(128, 1, 1e5)
    wrong = dataclasses.replace(result, theta=(*result.theta[:-1], 5.0), ridge_vectors=())
    with pytest.raises(UserError, match="outside 0 to"):
        Problem.of(wrong, runs).at(512, 8, 1e10)


def test_sizes_far_beyond_the_runs_are_refused() -> None:
    result, runs = planted()
    result = dataclasses.replace(result, ridge_vectors=())
    with pytest.raises(
        UserError, match=r"tokens would be 1e\+0[34] times the largest fitted|tokens would be .* times the largest"
    ):
        Problem.of(result, runs).at(512, 8, 2e14)
