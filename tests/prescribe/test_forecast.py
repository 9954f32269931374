"""Plain forecasts are what the law says by its formula, there and back, with intervals from its own refits."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_questions import asked

from shapelaw import FitResult, RunsTable, UserError, fit
from shapelaw.prescribe import Prescription
from shapelaw.verbs.prescribe import prescribe


def table() -> RunsTable:
    params, tokens = np.tile([2e7, 6e7, 2e8, 6e8, 2e9], 6), np.repeat(np.geomspace(1e9, 1e11, 6), 5)
    noise = np.random.default_rng(1).normal(0, 3e-3, 30)
    loss = (1.8 + 410 * params**-0.34 + 1200 * tokens**-0.35) * np.exp(noise)
    return RunsTable(
        pd.DataFrame({"run": [f"r{i}" for i in range(30)], "params": params, "tokens": tokens, "loss": loss})
    )


@cache
def fitted(law: str) -> FitResult:
    return fit(table(), law=law, bootstrap={"n": 60})


@pytest.fixture
def ask(tmp_path: Path) -> Any:
    def answer(law: str, **options: Any) -> Prescription:
        folder = tmp_path / law
        fitted(law).save(folder, table())
        return prescribe(asked(fit=str(folder), **options))

    return answer


def test_the_loss_of_a_size_is_the_formulas_with_the_intervals_of_its_refits(ask: Any) -> None:
    told, result = ask("params_tokens", params=6.8e9, tokens=5e10), fitted("params_tokens")
    p = result.parameters
    by_hand = p["E"] + p["A"] * 6.8e9 ** -p["alpha"] + p["B"] * 5e10 ** -p["beta"]
    assert told.values["loss"] == pytest.approx(by_hand, rel=1e-12)
    assert told.values["flops"] == pytest.approx(6 * 6.8e9 * 5e10)
    drawn = [
        E + A * 6.8e9**-a + B * 5e10**-b
        for A, B, a, b, E in zip(*(result.replicates[name] for name in ("A", "B", "alpha", "beta", "E")), strict=True)
    ]
    np.testing.assert_allclose(told.intervals["loss"], np.quantile(drawn, [0.05, 0.95]), rtol=1e-9)
    (low, high), (lowest, highest) = told.loss_of_size["mean"], told.loss_of_size["new_run"]
    assert lowest < low < told.values["loss"] < high < highest
    same = result.predict(pd.DataFrame({"params": [6.8e9], "tokens": [5e10]}), kind="new_run")
    np.testing.assert_allclose([lowest, highest], same[["low", "high"]].to_numpy()[0], rtol=1e-9)
    assert told.outside["params"] == pytest.approx(3.4)


def test_tokens_for_a_loss_and_the_loss_of_these_tokens_agree(ask: Any) -> None:
    told = ask("params_tokens", params=1e9, loss=2.6)
    assert ask("params_tokens", params=1e9, tokens=told.values["tokens"]).values["loss"] == pytest.approx(2.6, rel=1e-9)
    low, high = told.intervals["tokens"]
    assert low < told.values["tokens"] < high
    with pytest.raises(
        UserError,
        match=r"params=1e\+06, loss=2: under law params_tokens this many parameters do not reach it .* lowest is",
    ):
        ask("params_tokens", params=1e6, loss=2.0)


@pytest.mark.parametrize("law", ["power_flops", "power_flops_e"])
def test_a_law_of_flops_answers_both_ways(ask: Any, law: str) -> None:
    told, p = ask(law, budget=1e22), fitted(law).parameters
    assert told.values["loss"] == pytest.approx(p.get("E", 0.0) + p["A"] * 1e22 ** -p["alpha"], rel=1e-12)
    back = ask(law, loss=told.values["loss"])
    assert back.values["flops"] == pytest.approx(1e22, rel=1e-6)
    low, high = back.intervals["flops"]
    assert low < 1e22 < high
    assert told.loss_of_size["new_run"][0] < told.loss_of_size["mean"][0] < told.values["loss"]
    assert told.outside["flops"] == pytest.approx(1e22 / (6 * 2e9 * 1e11))
    inside = ask(law, budget=1e20)
    widths = [np.ptp(np.log(one.loss_of_size["new_run"])) for one in (inside, told)]
    assert widths[0] < widths[1]


def test_a_loss_below_the_floor_is_refused(ask: Any) -> None:
    with pytest.raises(UserError, match=r"loss=0.1: law power_flops_e does not reach it at any number of FLOPs"):
        ask("power_flops_e", loss=0.1)
