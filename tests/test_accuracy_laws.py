"""Laws from a loss to an accuracy: formulas, gradients, recovery, and SciPy's own optimum."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import OptimizeResult, least_squares

from shapelaw import fit, load_runs
from shapelaw.errors import UserError
from shapelaw.laws import Law, get_law
from support import Script

NATURAL = {
    "accuracy_exponential": {"epsilon": 0.86, "k": 2.4, "gamma": 0.71},
    "accuracy_sigmoid": {"low": 0.12, "span": 0.63, "k": 2.3, "L_0": 2.9},
}


def by_hand(name: str, p: dict[str, float], loss: np.ndarray) -> np.ndarray:
    """The formulas as the papers write them, of the error."""
    if name == "accuracy_exponential":
        return p["epsilon"] - p["k"] * np.exp(-p["gamma"] * loss)
    return p["low"] + p["span"] / (1 + np.exp(-p["k"] * (loss - p["L_0"])))


def frame(name: str, noise: float = 0.0, runs: int = 12, points: int = 8) -> pd.DataFrame:
    """Runs from 3.9 down to 2 nats; the noise is of the log error, most of it shared by a run's points."""
    rng = np.random.default_rng(1)
    loss = np.linspace(3.9, 2.0, runs * points).reshape(points, runs).T
    scatter = noise * (rng.standard_normal((runs, 1)) + 0.3 * rng.standard_normal((runs, points)))
    error = by_hand(name, NATURAL[name], loss) * np.exp(scatter)
    rows = {"run": np.repeat([f"run{i}" for i in range(runs)], points), "loss": loss.ravel(), "arc": 1 - error.ravel()}
    sizes = {"params": 1e8, "tokens": np.tile(np.geomspace(1e9, 1e11, points), runs)}
    return pd.DataFrame(rows | sizes)


def loaded(path: Path, table: pd.DataFrame):
    table.to_csv(path, index=False)
    return load_runs("csv", path=path, columns={"accuracy": "arc"})


def scipys(name: str, table: pd.DataFrame, delta: float) -> OptimizeResult:
    """SciPy's optimum of the same objective, from the truth; its cost is ours over delta^2."""
    loss, log_error = table["loss"].to_numpy(), np.log(1 - table["arc"].to_numpy())
    names = list(NATURAL[name])

    def residual(values: np.ndarray) -> np.ndarray:
        return (np.log(by_hand(name, dict(zip(names, values, strict=True)), loss)) - log_error) / delta

    start = np.array(list(NATURAL[name].values()))
    return least_squares(residual, start, loss="huber", xtol=1e-15, ftol=1e-15, gtol=1e-15, x_scale="jac")


@pytest.mark.parametrize("name", NATURAL)
def test_formula_and_gradient(name: str) -> None:
    law, loss = get_law(name), np.linspace(2.0, 6.0, 40)
    columns = {"loss": loss}
    np.testing.assert_allclose(law.predict(NATURAL[name], columns), by_hand(name, NATURAL[name], loss), rtol=1e-13)
    theta = law.theta(NATURAL[name])
    exact, differences = law.jacobian(theta, columns), Law.jacobian(law, theta, columns)
    assert np.abs(exact - differences).max() <= 1e-7 * np.abs(exact).max()


@pytest.mark.parametrize("name", NATURAL)
def test_a_known_law_is_recovered(name: str, tmp_path: Path) -> None:
    found = fit(loaded(tmp_path / "a.csv", frame(name)), law=name, delta=1e-3)
    assert found.parameters == pytest.approx(NATURAL[name], rel=1e-6)
    assert found.predict(pd.DataFrame({"loss": [2.5]})) == pytest.approx(by_hand(name, NATURAL[name], np.array([2.5])))


@pytest.mark.parametrize("name", NATURAL)
@pytest.mark.parametrize("delta", [0.01, 1.0])
def test_no_optimum_of_scipy_is_lower(name: str, delta: float, tmp_path: Path) -> None:
    table = frame(name, noise=0.02)
    found = fit(loaded(tmp_path / "a.csv", table), law=name, delta=delta)
    theirs = scipys(name, table, delta)
    assert found.objective <= delta**2 * theirs.cost * (1 + 1e-9)
    np.testing.assert_allclose(list(found.parameters.values()), theirs.x, rtol=2e-3)


def test_intervals_are_those_of_resampled_runs(tmp_path: Path) -> None:
    """The spread of gamma over refits is SciPy's own over draws of whole runs (60 draws know a spread to 9%)."""
    name, table = "accuracy_exponential", frame("accuracy_exponential", noise=0.01)
    found = fit(loaded(tmp_path / "a.csv", table), law=name, delta=1.0, bootstrap={"n": 60, "by": "runs"})
    low, high = found.intervals["gamma"]
    assert low < NATURAL[name]["gamma"] < high
    blocks, rng, theirs = [block for _, block in table.groupby("run")], np.random.default_rng(5), []
    for _ in range(60):
        drawn = pd.concat([blocks[i] for i in rng.integers(len(blocks), size=len(blocks))])
        theirs.append(scipys(name, drawn, 1.0).x[2])
    assert np.std(found.replicates["gamma"]) == pytest.approx(np.std(theirs), rel=0.4)


def test_the_command_fits_a_csv_and_draws_it(script: Script, outputs: Path, tmp_path: Path) -> None:
    frame("accuracy_sigmoid").to_csv(tmp_path / "a.csv", index=False)
    done = script(
        "fit.py", "runs=csv", f"runs.path={tmp_path}/a.csv", "runs.columns={accuracy: arc}", "law=accuracy/sigmoid",
        "delta=1e-2", "bootstrap.n=20", "tracker=none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "L_0 = 2.9" in done.stdout
    folder = next((outputs / "fits").glob("accuracy_sigmoid-*"))
    content = json.loads((folder / "fit.json").read_text())
    assert content["units"]["L_0"] == "nats per token"
    assert set(content["intervals"]) == set(NATURAL["accuracy_sigmoid"])
    assert (folder / "accuracy_loss.png").exists()


def test_what_cannot_be_fitted_is_said(tmp_path: Path) -> None:
    table = frame("accuracy_sigmoid")
    table.to_csv(tmp_path / "a.csv", index=False)
    runs = load_runs("csv", path=tmp_path / "a.csv", reduce="none")
    with pytest.raises(UserError, match=r"the table has none.*with runs\.columns"):
        fit(runs, law="accuracy_sigmoid")
    with pytest.raises(UserError, match=r"shares from 0 to 1 \(percent"):
        loaded(tmp_path / "a.csv", table.assign(arc=100 * table["arc"]))
