"""Laws of data that repeats: what they become without repetition, what fits find of them, and what they are asked."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shapelaw import FitResult, RunsTable, UserError, fit, load_runs
from shapelaw.laws import get_law
from shapelaw.verbs.prescribe import prescribe
from support import Door, asked
from test_laws import NATURAL
from test_laws import table as sizes

NAMES = ("data_constrained", "overfitting")
EQ_1 = ("A", "B", "alpha", "beta", "E")


def table(name: str, noise: float = 0.0, unique: tuple[float, ...] = (1e8, 1e9)) -> RunsTable:
    """Sizes and numbers of different tokens, each seen from half a time to 30 times."""
    rng, axes = np.random.default_rng(0), (np.geomspace(1e7, 2e9, 5), unique, (0.5, 1.0, 3.0, 10.0, 30.0))
    params, tokens, epochs = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    columns = {"params": params, "tokens": tokens * epochs, "unique_tokens": tokens}
    loss = get_law(name).predict(NATURAL[name], columns) * np.exp(noise * rng.standard_normal(len(params)))
    return RunsTable(pd.DataFrame(columns).assign(run=[f"r{i}" for i in range(len(params))], loss=loss))


@cache
def fitted(name: str) -> FitResult:
    return fit(table(name, noise=2e-3), law=name, delta=1e-2, bootstrap={"n": 40})


@pytest.mark.parametrize("name", NAMES)
def test_with_fresh_tokens_throughout_the_law_is_eq_1(name: str) -> None:
    n, t = np.array([1e6, 1e7]), np.array([1e10, 1e12])  # fewer params than so many tokens fill
    p = NATURAL[name]
    found = get_law(name).predict(p, {"params": n, "tokens": t, "unique_tokens": 3 * t})
    np.testing.assert_allclose(
        found, get_law("params_tokens").predict({k: p[k] for k in EQ_1}, {"params": n, "tokens": t})
    )


def test_repeated_tokens_are_worth_what_the_paper_says() -> None:
    """Up to four epochs nearly as much as fresh ones, and no more than 1 + r_T times the different ones (section 3 there)."""
    law, p = get_law("data_constrained"), NATURAL["data_constrained"]
    sizes = {"params": [1e6] * 3, "unique_tokens": [1e9, 4e9, 1e9]}
    four, fresh, many = law.predict(p, sizes | {"tokens": [4e9, 4e9, 1e15]}) - p["E"] - p["A"] / 1e6 ** p["alpha"]
    worth = 1e9 * (1 + p["r_T"] * (1 - np.exp(-3 / p["r_T"])))
    assert four == pytest.approx(p["B"] / worth ** p["beta"], rel=1e-9)
    assert 1 < four / fresh < 1.04
    assert many == pytest.approx(p["B"] / (1e9 * (1 + p["r_T"])) ** p["beta"], rel=1e-9)


@pytest.mark.parametrize("decay", [0.0, 1e-300, 1e-40])
def test_repeated_tokens_may_be_worth_nothing(decay: float) -> None:
    law, p = get_law("data_constrained"), NATURAL["data_constrained"] | {"r_T": decay}
    sizes = {"params": np.full(3, 1e6), "unique_tokens": np.array([1e9, 1e9, 2e9])}
    once, many = (law.predict(p, sizes | {"tokens": sizes["unique_tokens"] * times}) for times in (1.0, 50.0))
    np.testing.assert_allclose(many, once, rtol=1e-12)
    slopes = law.jacobian(law.theta(p), sizes | {"tokens": 50 * sizes["unique_tokens"]})
    assert np.isfinite(slopes).all()
    table_ = table("data_constrained")
    held = fit(table_, law="data_constrained", delta=1e-2, fixed={"r_T": decay})
    np.testing.assert_allclose(held.predict(table_), law.predict(held.parameters, table_.columns_for(law)), rtol=1e-9)


def test_a_steep_bend_has_one_slope() -> None:
    """The derivative is continuous where the params are as many as the tokens can fill."""
    law, p = get_law("data_constrained"), NATURAL["data_constrained"]
    g = (p["A"] / p["B"]) ** (1 / (2 * p["alpha"]))
    best = g * g * 1e9
    columns = {"params": best * np.array([1 - 1e-9, 1 + 1e-9]), "tokens": [4e9] * 2, "unique_tokens": [1e9] * 2}
    below, above = law.jacobian(law.theta(p), columns)
    np.testing.assert_allclose(below, above, atol=1e-6)


def off_the_bend(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows whose params are not near the compute-optimal ones for their different tokens."""
    p = NATURAL["data_constrained"]
    g = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    best = g * (np.minimum(columns["unique_tokens"], columns["tokens"]) * g) ** (p["beta"] / p["alpha"])
    far = np.abs(np.log(columns["params"] / best)) > 0.1
    return {name: values[far] for name, values in columns.items()}


def test_the_slope_is_the_derivative_off_the_bend() -> None:
    """By differences that are small beside the distance from the bend, as its place moves 60 times as far as an exponent."""
    law, columns = get_law("data_constrained"), off_the_bend(sizes())
    theta = law.theta(NATURAL["data_constrained"])
    exact = law.jacobian(theta, columns)
    for place, step in enumerate(1e-4 * np.eye(len(theta))):
        near, far = (
            law.log_prediction(theta + m * step, columns) - law.log_prediction(theta - m * step, columns)
            for m in (1, 2)
        )
        np.testing.assert_allclose(exact[:, place], (8 * near - far) / 12e-4, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_noise_widens_the_intervals_about_the_truth(name: str) -> None:
    result = fitted(name)
    for parameter in (*EQ_1, *(("r_T", "r_N") if name == "data_constrained" else ("P", "delta", "kappa"))):
        low, high = result.intervals[parameter]
        assert low < high
        assert low - (high - low) < NATURAL[name][parameter] < high + (high - low)


def test_one_number_of_different_tokens_is_enough() -> None:
    runs = table("data_constrained", unique=(3e8,))
    result = fit(runs, law="data_constrained", delta=1e-3)
    np.testing.assert_allclose(result.predict(runs), runs.kept["loss"], rtol=1e-8)
    assert result.parameters["r_T"] == pytest.approx(15.4, rel=1e-4)
    assert not any("unique_tokens" in flag for flag in result.flags)


def test_tokens_that_never_repeat_are_refused_as_tied() -> None:
    frame = table("data_constrained").kept
    with pytest.raises(UserError, match="tokens and unique_tokens vary together"):
        fit(RunsTable(frame.assign(unique_tokens=frame["tokens"])), law="data_constrained")


def test_a_file_says_its_different_tokens(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    table("overfitting").kept.assign(unique_tokens=lambda rows: rows["unique_tokens"] / 1e9).to_csv(path, index=False)
    runs = load_runs("csv", path=path, units={"unique_tokens": "B"}, reduce="none")
    assert sorted(set(runs.kept["unique_tokens"])) == [1e8, 1e9]
    with pytest.raises(UserError, match=r"needs the column unique_tokens.*runs\.constants=\{unique_tokens: NUMBER\}"):
        fit(RunsTable(runs.kept.drop(columns="unique_tokens")), law="overfitting")


@pytest.fixture
def ask(tmp_path: Path) -> Any:
    def answer(name: str, **options: Any) -> dict[str, float]:
        runs = table(name, noise=2e-3)
        result = fitted(name) if name in NAMES else fit(runs, law=name, bootstrap={"n": 5})
        result.save(tmp_path / name, runs)
        return dict(prescribe(asked(fit=str(tmp_path / name), **options)).values)

    return answer


def test_the_best_size_for_few_tokens_is_the_optimum_of_the_formula(ask: Any) -> None:
    told, result = ask("data_constrained", budget=1e20, unique_tokens=5e8, space="params"), fitted("data_constrained")
    n = np.geomspace(told["params"] / 3, told["params"] * 3, 20_001)
    columns = {"params": n, "tokens": 1e20 / (6 * n), "unique_tokens": np.full_like(n, 5e8)}
    losses = get_law("data_constrained").log_prediction(result.vector, columns)
    assert told["params"] == pytest.approx(n[losses.argmin()], rel=2e-3)
    assert told["loss"] == pytest.approx(np.exp(losses.min()), rel=1e-9)
    plenty = ask("data_constrained", budget=1e20, unique_tokens=1e15, space="params")
    assert plenty["loss"] < told["loss"]


def test_a_size_and_its_tokens_there_and_back(ask: Any) -> None:
    there = ask("data_constrained", params=1e8, tokens=5e9, unique_tokens=5e8)
    back = ask("data_constrained", params=1e8, loss=there["loss"], unique_tokens=5e8)
    assert back["tokens"] == pytest.approx(5e9, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("data_constrained", {"budget": 1e20, "space": "params"}, "give unique_tokens=NUMBER"),
        ("params_tokens", {"budget": 1e20, "space": "params", "unique_tokens": 1e9}, "does not read it; leave it out"),
        ("overfitting", {"params": 1e8, "tokens": 5e9, "unique_tokens": 1e9}, "answers budget"),
    ],
)
def test_what_cannot_be_asked_says_why(ask: Any, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ask(name, **options)


def test_the_next_run_is_planned_for_the_different_tokens_that_there_are(
    tmp_path: Path, outputs: Path, door: Door
) -> None:
    runs = table("data_constrained", noise=2e-3)
    fitted("data_constrained").save(tmp_path / "fit", runs)
    words = (f"fit={tmp_path}/fit", "budget=3e18", "target.params=2e9", "target.tokens=1e11", "limits.params_min=4e9")
    code, said = door("next", *words)
    assert (code, said.count("\n")) == (2, 1)
    assert "give unique_tokens=NUMBER, the different tokens available" in said
    code, said = door("next", *words, "unique_tokens=1e9")
    assert code == 0, said
    assert "To know the loss of 2e+09 parameters at 1e+11 tokens" in said
