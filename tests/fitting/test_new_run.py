"""The two intervals by name: where the law lies, and where the loss of one new run will lie."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapelaw import FitResult, RunsTable, UserError, fit, load_fit
from shapelaw.fitting.new_run import NewRun, noise_of
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
    with pytest.raises(UserError, match="kind=median: allowed values are mean"):
        fitted.predict(table, kind="median")
    with pytest.raises(UserError, match="has no refits"):
        fit(table, law="params_tokens", delta=1e-2).predict(table, kind="mean")
    with pytest.raises(UserError, match=r"more than the 6.908 of a uniform guess"):
        fitted.predict({"params": [1e4], "tokens": [1e4], "vocab_size": [1000]}, kind="new_run")


def test_the_interval_is_wider_beyond_the_runs_alone() -> None:
    """Refits 0.1 to either side of 1, or 0.1 and 0.3 above it: the ends' distances from 1 are multiplied beyond any axis."""
    own = NewRun((0.0,) * 39, {"params": 1e9, "tokens": 1e11, "compute": 2e19}, 2.0)
    sizes = {"params": np.array([1e9, 1e7, 1.1e9, 2e8, 1e8]), "tokens": np.array([2e10, 1e11, 1e9, 1.2e11, 1e11])}
    even, above = np.tile([[0.9], [1.1]], 5), np.tile([[1.1], [1.3]], 5)
    np.testing.assert_array_equal(own.beyond(sizes), [False, False, True, True, False])
    assert own.beyond({"params": np.array([5e8]), "tokens": np.array([6e10])})[0]  # its compute
    low, high = own.interval(np.ones(5), even, sizes, 1.0)
    np.testing.assert_allclose([low, high], [[0.9, 0.9, 0.8, 0.8, 0.9], [1.1, 1.1, 1.2, 1.2, 1.1]], rtol=1e-12)
    low, high = own.interval(np.ones(5), above, sizes, 1.0)
    np.testing.assert_allclose([low, high], [[1.1] * 5, [1.3, 1.3, 1.6, 1.6, 1.3]], rtol=1e-12)


def test_a_law_that_holds_needs_no_widening_and_one_that_does_not_does(fitted: FitResult) -> None:
    """Eq 1 on its own losses; and where sizes above 3e7 gain by another power, which refits of one form cannot know."""
    assert 1.0 <= fitted.new_run["widening"] < 1.5
    bent = planted(between=1e-3)
    bent["loss"] *= np.maximum(bent["params"] / 3e7, 1.0) ** -0.03
    wide = fit(RunsTable(bent), law="params_tokens", delta=1e-2, bootstrap={"n": 50}).new_run["widening"]
    assert wide > 2.0


def test_a_fold_of_one_run_or_noise_of_rounding_widens_nothing() -> None:
    table = planted(between=0.0, within=0.0)
    assert fit(RunsTable(table), law="params_tokens", bootstrap={"n": 5}).new_run["widening"] == 1.0
    late = table.assign(run=np.where(table["params"] < 1e9, "one", "other"))
    assert np.isfinite(fit(RunsTable(late), law="params_tokens", bootstrap={"n": 5}).new_run["widening"])


def test_what_an_earlier_version_added_is_not_taken_for_this(fitted: FitResult, tmp_path: Path) -> None:
    earlier = dataclasses.replace(fitted, new_run={"noise": [0.0], "axes": {}})
    back = load_fit(earlier.save(tmp_path))
    assert len(back.predict(planted(), kind="mean")) == len(planted())
    with pytest.raises(UserError, match="does not contain the spread of a new run; fit again"):
        back.predict(planted(), kind="new_run")


def test_cuts_grow_and_leave_something() -> None:
    sizes = np.repeat([1e7, 3e7, 1e8, 3e8, 1e9], 8)
    masks = cuts(sizes, 7)
    assert [int(mask.sum()) for mask in masks] == [24, 32]
    assert cuts(np.repeat([1e8, 1e9], 20), 7) == []  # two sizes: nothing can be held out


def test_noise_is_that_of_the_residuals_with_their_degrees_of_freedom() -> None:
    residuals = np.linspace(-1.0, 1.0, 1001)
    own = noise_of(residuals, np.arange(1001).astype(str), 1)
    assert own[19] == pytest.approx(0.0, abs=1e-12)
    assert np.ptp(own) == pytest.approx(2 * 38 / 39, rel=2e-3)
    few = noise_of(residuals, np.repeat(["a", "b", "c", "d", "e"], 201)[:1001], 4)
    assert np.ptp(few) == pytest.approx(np.sqrt(5) * np.ptp(own), rel=2e-3)
