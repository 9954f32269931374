"""The two intervals by name: where the law lies, and where the loss of one new run will lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapelaw import FitResult, RunsTable, UserError, fit, load_fit
from shapelaw.fitting.new_run import NewRun, Rolling
from shapelaw.fitting.rolling import cuts
from shapelaw.prescribe.ask import Problem


def planted(seed: int = 0, between: float = 0.01, within: float = 0.001, runs: int = 40) -> pd.DataFrame:
    """Eq 1 with noise of each run's own and of each evaluation, three evaluations a run."""
    rng = np.random.default_rng(seed)
    params = np.repeat(10 ** rng.uniform(7, 9.5, runs), 3)
    tokens = 10 ** rng.uniform(9, 11, 3 * runs)
    noise = np.repeat(between * rng.standard_normal(runs), 3) + within * rng.standard_normal(3 * runs)
    loss = (1.7 + 400 / params**0.34 + 400 / tokens**0.28) * np.exp(noise)
    return pd.DataFrame(
        {"run": np.repeat(np.arange(runs), 3).astype(str), "params": params, "tokens": tokens, "loss": loss}
    )


@pytest.fixture(scope="module")
def fitted() -> FitResult:
    return fit(RunsTable(planted()), law="params_tokens", delta=1e-2, bootstrap={"n": 200})


def covered(result: FitResult, kind: str, **options: float) -> float:
    """Share of the runs of other seeds inside the interval."""
    shares = []
    for seed in range(1, 6):
        other = planted(seed, **options)
        ends = result.predict(other, kind=kind)
        inside = (other["loss"] >= ends["low"]) & (other["loss"] <= ends["high"])
        shares.append(inside[(other["params"] < 3e9) & (other["tokens"] < 1e11)].mean())
    return float(np.mean(shares))


def test_a_new_run_lies_in_its_interval_and_the_law_in_its_own(fitted: FitResult) -> None:
    assert covered(fitted, "new_run") == pytest.approx(0.9, abs=0.07)
    assert covered(fitted, "mean") < 0.6
    assert covered(fitted, "mean", between=0.0, within=0.0) > 0.6  # the law itself


def test_predictions_are_those_without_an_interval_inside_both(fitted: FitResult, tmp_path: Path) -> None:
    table = RunsTable(planted(7))
    law, run = (fitted.predict(table, kind=kind) for kind in ("mean", "new_run"))
    np.testing.assert_array_equal(law["predicted"], fitted.predict(table))
    assert ((run["low"] <= law["low"]) & (law["high"] <= run["high"])).all()
    back = load_fit(fitted.save(tmp_path, table))
    pd.testing.assert_frame_equal(back.predict(table, kind="new_run"), run)


def test_intervals_widen_beyond_the_runs(fitted: FitResult) -> None:
    far = fitted.predict({"params": [1e9, 3e10, 3e11], "tokens": [5e10] * 3}, kind="new_run")
    widths = (far["high"] / far["low"]).to_numpy()
    assert widths[0] < widths[1] < widths[2]


def test_prescriptions_name_both(fitted: FitResult) -> None:
    answer = Problem.of(fitted, RunsTable(planted()), space="params").best(1e19)
    law, run = answer.loss_of_size["mean"], answer.loss_of_size["new_run"]
    assert run[0] < law[0] < answer.values["loss"] < law[1] < run[1]
    assert answer.plain()["loss_of_size"] == {"mean": list(law), "new_run": list(run)}
    assert answer.size_told.startswith("loss of this size, 90% intervals: ")
    assert answer.size_told.endswith(" for one new run")
    sizes = {"params": [answer.values["params"]], "tokens": [answer.values["tokens"]]}
    ends = fitted.predict(sizes, kind="new_run")
    assert run == pytest.approx((ends["low"][0], ends["high"][0]), rel=1e-12)


def test_what_cannot_be_told_is_refused(fitted: FitResult) -> None:
    table = RunsTable(planted())
    with pytest.raises(UserError, match="kind=median: allowed are mean"):
        fitted.predict(table, kind="median")
    with pytest.raises(UserError, match="holds no refits"):
        fit(table, law="params_tokens", delta=1e-2).predict(table, kind="mean")
    with pytest.raises(UserError, match=r"more than 6.908 of guessing"):
        fitted.predict({"params": [1e4], "tokens": [1e4], "vocab_size": [1000]}, kind="new_run")


def test_the_least_width_is_the_quantile_at_the_distance() -> None:
    """A hundred points at each of three distances; between them it is interpolated, beyond them it grows in proportion."""
    errors = np.linspace(0.0, 1.0, 100)
    distances = np.repeat([0.5, 1.0, 2.0], 100)
    axis = Rolling(1e9, tuple(distances), tuple(np.concatenate([errors, 0.5 * errors, 3 * errors])))
    at = axis.least(1e9 * np.exp([-1.0, 0.0, 0.5, 2.0, 4.0]), 0.9)
    assert at[0] == at[1] == 0.0
    assert at[2:] == pytest.approx([0.9, 2.7, 5.4])
    assert axis.least(np.array([1e9 * np.e]), 0.9)[0] == pytest.approx(0.9)  # no smaller than at a shorter distance


def test_cuts_grow_and_leave_something() -> None:
    sizes = np.repeat([1e7, 3e7, 1e8, 3e8, 1e9], 8)
    masks = cuts(sizes, 7)
    assert [int(mask.sum()) for mask in masks] == [24, 32]
    assert cuts(np.repeat([1e8, 1e9], 20), 7) == []  # two sizes: nothing can be held out


def test_noise_is_that_of_the_residuals_with_their_degrees_of_freedom() -> None:
    residuals = np.linspace(-1.0, 1.0, 1001)
    own = NewRun.of(residuals, np.arange(1001).astype(str), 1, {})
    assert own.noise[19] == pytest.approx(0.0, abs=1e-12)
    assert np.ptp(own.noise) == pytest.approx(2 * 38 / 39, rel=2e-3)
    few = NewRun.of(residuals, np.repeat(["a", "b", "c", "d", "e"], 201)[:1001], 4, {})
    assert np.ptp(few.noise) == pytest.approx(np.sqrt(5) * np.ptp(own.noise), rel=2e-3)
