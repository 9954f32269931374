"""Effective speedup: one law for two sets of runs, in which a token of the second counts so many times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapelaw import RunsTable, UserError, fit, load_fit, load_runs
from shapelaw.laws import Law, get_law
from shapelaw.laws.speedup import SpeedupLaw
from support import Script
from test_laws import NATURAL, table

TRUTH = {"A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.36, "E": 1.8}


def frame(speedup: float, noise: float = 0.0) -> pd.DataFrame:
    """The same sizes in two sets; a token of `new` counts several."""
    axes = (np.geomspace(2e7, 2e9, 5), np.geomspace(1e9, 5e10, 4), np.array([0.0, 1.0]))
    n, t, second = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    loss = TRUTH["E"] + TRUTH["A"] / n ** TRUTH["alpha"] + TRUTH["B"] / (t * speedup**second) ** TRUTH["beta"]
    loss *= np.exp(noise * np.random.default_rng(0).standard_normal(len(n)))
    columns = {"params": n, "tokens": t, "loss": loss, "recipe": np.where(second > 0, "new", "old")}
    return pd.DataFrame(columns).assign(run=[f"r{i}" for i in range(len(n))])


def loaded(path: Path, rows: pd.DataFrame) -> RunsTable:
    rows.to_csv(path, index=False)
    return load_runs("csv", path=path, reduce="none")


@pytest.mark.parametrize("speedup", [0.4, 1.0, 3.0])
def test_a_planted_speedup_is_found_with_the_law(tmp_path: Path, speedup: float) -> None:
    result = fit(loaded(tmp_path / "runs.csv", frame(speedup)), "params_tokens", speedup="recipe == 'new'", delta=1e-3)
    assert dict(result.parameters) == pytest.approx(TRUTH | {"speedup": speedup}, rel=1e-5)


def test_its_interval_holds_it_and_is_that_of_the_other_order_turned_round(tmp_path: Path) -> None:
    runs = loaded(tmp_path / "runs.csv", frame(1.5, noise=2e-3))
    there = fit(runs, "params_tokens", speedup="recipe == 'new'", delta=1e-2, bootstrap={"n": 100})
    low, high = there.intervals["speedup"]
    assert 1 < low < 1.5 < high < 2
    back = fit(runs, "params_tokens", speedup="recipe == 'old'", delta=1e-2, bootstrap={"n": 100})
    assert back.parameters["speedup"] == pytest.approx(1 / there.parameters["speedup"], rel=1e-6)
    np.testing.assert_allclose(np.reciprocal(back.intervals["speedup"]), (high, low), rtol=1e-4)


def test_a_saved_fit_is_read_back_and_predicts_the_same(tmp_path: Path) -> None:
    runs = loaded(tmp_path / "runs.csv", frame(2.0, noise=1e-3))
    result = fit(runs, "params_tokens", speedup="recipe == 'new'", fixed={"E": 1.8}, delta=1e-3)
    result.save(tmp_path / "fit", runs)
    again = load_fit(tmp_path / "fit")
    sizes = pd.DataFrame({"params": [1e8, 1e8], "tokens": [4e9, 4e9], "compared_set": [0.0, 1.0]})
    np.testing.assert_array_equal(again.predict(sizes), result.predict(sizes))
    assert again.parameters["E"] == 1.8
    assert again.settings["speedup"] == "recipe == 'new'"
    assert result.predict(sizes)[1] < result.predict(sizes)[0]


@pytest.mark.parametrize("name", ["params_tokens", "kaplan_e", "interaction", "skaling", "power_flops_e"])
def test_formula_and_derivatives_for_laws_of_every_kind(name: str) -> None:
    law, columns = SpeedupLaw.of(get_law(name)), table(seed=2)
    columns |= {"compared_set": np.tile([0.0, 1.0], 25)}
    parameters = NATURAL[name] | {"speedup": 1.7}
    scaled = "flops" if name == "power_flops_e" else "tokens"
    more = {**columns, scaled: columns[scaled] * np.tile([1.0, 1.7], 25)}
    np.testing.assert_allclose(law.predict(parameters, columns), law.law.predict(NATURAL[name], more), rtol=1e-12)
    theta = law.theta(parameters)
    assert law.natural(theta) == pytest.approx(parameters, rel=1e-12)
    exact, differences = law.jacobian(theta, columns), Law.jacobian(law, theta, columns)
    assert np.abs(exact - differences).max() <= 1e-7 * np.abs(exact).max()
    for one in (name for name in law.parameters if name != "alpha_N"):
        row, target = law.constraint(one, parameters[one])
        assert row @ theta == pytest.approx(target, abs=1e-9)
    assert get_law(law.name).parameters == law.parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speedup": "recipe == 'none'"}, "0 of the 40 rows that count meet it"),
        ({"speedup": "flavour == 1"}, "flavour"),
        ({"speedup": "recipe == 'new'", "law": "median3"}, "cannot be shared by two sets"),
        ({"speedup": "recipe == 'new'", "law": "annealing"}, "cannot be shared by two sets"),
        ({"speedup": "recipe == 'new'", "law": "width_depth_tokens"}, "width"),
        ({"speedup": "recipe == 'new'", "method": "hull"}, "give method=parametric"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(loaded(tmp_path / "runs.csv", frame(2.0)), **options)


@pytest.mark.slow
def test_one_command_prints_it(script: Script, tmp_path: Path) -> None:
    frame(2.0, noise=1e-3).to_csv(tmp_path / "runs.csv", index=False)
    done = script(
        "fit.py", "runs=csv", f"runs.path={tmp_path / 'runs.csv'}", "speedup=\"recipe == 'new'\"", "delta=1e-2",
        "bootstrap.n=20", "tracker=none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "speedup = 2.0" in done.stdout or "speedup = 1.9" in done.stdout
