"""Approaches 1 and 2 from their lines to a size, against the optimum of the law that the runs were made by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_questions import asked

from shapelaw import FitResult, RunsTable, UserError, fit
from shapelaw.verbs.prescribe import prescribe

A, B, ALPHA, BETA, E = 406.4, 410.7, 0.34, 0.28, 1.69
"""Hoffmann et al. 2022, approach 3."""


def best(flops: float, alpha: float = ALPHA, beta: float = BETA) -> tuple[float, float]:
    """Params and loss of the best size in closed form (their eq 4)."""
    ratio = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    params = ratio * (flops / 6) ** (beta / (alpha + beta))
    return params, E + A * params**-alpha + B * (flops / 6 / params) ** -beta


def isoflops(
    low: float,
    high: float,
    sizes: int = 9,
    noise: float = 0.0,
    exponents: tuple[float, float] = (ALPHA, BETA),
    drift: float = 1.0,
) -> RunsTable:
    """Seven budgets of sizes from `low` to `high` times the best, off by 1/drift at the first budget to drift at the last."""
    alpha, beta = exponents
    budgets, off = (np.repeat(np.geomspace(*ends, 7), sizes) for ends in ((1e18, 1e21), (1 / drift, drift)))
    middles = np.array([best(c, alpha, beta)[0] for c in budgets]) * off
    params = middles * np.tile(np.geomspace(low, high, sizes), 7)
    tokens = budgets / 6 / params
    loss = (E + A * params**-alpha + B * tokens**-beta) * np.exp(np.random.default_rng(0).normal(0, noise, len(params)))
    runs = [f"r{i}" for i in range(len(params))]
    return RunsTable(pd.DataFrame({"run": runs, "params": params, "tokens": tokens, "loss": loss}))


def answer(result: FitResult, runs: RunsTable, folder: Path, **options: Any) -> Any:
    result.save(folder, runs)
    return prescribe(asked(fit=str(folder), **options))


def test_isoflop_prescribes_size_tokens_and_loss_with_intervals(tmp_path: Path) -> None:
    runs = isoflops(0.5, 2.0, noise=1e-3)
    result = fit(runs, method="isoflop", bootstrap={"n": 60})
    told = answer(result, runs, tmp_path, budget=1e20)
    params, loss = best(1e20)
    assert told.values["params"] == pytest.approx(params, rel=0.1)
    assert told.values["params"] * told.values["tokens"] == pytest.approx(1e20 / 6, rel=0.01)
    assert told.values["loss"] == pytest.approx(loss, rel=0.01)
    for name in ("params", "tokens", "tokens_per_param", "loss"):
        low, high = told.intervals[name]
        assert low < told.values[name] < high
    assert told.intervals["params"][0] < params < told.intervals["params"][1]
    assert told.inside
    assert set(result.intervals) >= {"params_log_coefficient", "tokens_log_coefficient", "loss_log_coefficient"}
    far = answer(result, runs, tmp_path, budget=1e23)
    assert far.outside["flops"] == pytest.approx(100, rel=1e-6)
    assert far.values["loss"] == pytest.approx(best(1e23)[1], rel=0.02)


def test_the_hull_prescribes_too(tmp_path: Path) -> None:
    runs = isoflops(0.5, 2.0)
    told = answer(fit(runs, method="hull", bootstrap={"n": 30}), runs, tmp_path, budget=1e20)
    assert told.values["params"] == pytest.approx(best(1e20)[0], rel=0.15)
    assert told.intervals["params"][0] <= told.values["params"] <= told.intervals["params"][1]


@pytest.mark.parametrize(
    ("exponents", "low", "high", "drift", "bias"),
    [
        ((0.34, 0.28), 0.1, 10.0, 1.0, 0.03),
        ((0.46, 0.20), 0.1, 10.0, 1.0, 0.15),
        ((0.34, 0.28), 0.25, 16.0, 2.0, 0.05),
    ],
    ids=["wide", "wide, of unequal exponents", "off centre"],
)
def test_the_parabolas_bias_is_said_and_cubics_have_less(
    exponents: tuple[float, float], low: float, high: float, drift: float, bias: float
) -> None:
    """Over wide grids, and off the middle, parabolas are off by percents without any noise."""
    runs = isoflops(low, high, exponents=exponents, drift=drift)
    parabolas, cubics = (fit(runs, method="isoflop", curve=curve) for curve in ("parabola", "cubic"))
    off = [abs(np.log(_at(result, 1e24) / best(1e24, *exponents)[0])) for result in (parabolas, cubics)]
    assert off[0] > bias
    assert off[1] < off[0] / 5
    said = [flag for flag in parabolas.flags if flag.startswith("isoflop_bias")]
    assert len(said) == 1
    assert "give method.curve=cubic" in said[0]
    assert not any(flag.startswith("isoflop_bias") for flag in cubics.flags)


def test_narrow_grids_about_the_best_are_not_flagged() -> None:
    result = fit(isoflops(0.7, 1.45), method="isoflop")
    assert not any(flag.startswith("isoflop_bias") for flag in result.flags)
    assert _at(result, 1e24) == pytest.approx(best(1e24)[0], rel=0.02)


def test_four_sizes_a_budget_cannot_tell(tmp_path: Path) -> None:
    runs = isoflops(0.5, 2.0, sizes=4)
    assert any("too few sizes per budget" in flag for flag in fit(runs, method="isoflop").flags)
    with pytest.raises(UserError, match="at least 5 sizes"):
        fit(runs, method="isoflop", curve="cubic")


def test_other_questions_are_refused(tmp_path: Path) -> None:
    runs = isoflops(0.5, 2.0)
    result = fit(runs, method="isoflop")
    for options in ({"loss": 2.5}, {"budget": 1e20, "width": 64}, {}):
        with pytest.raises(
            UserError, match="method=isoflop gives only lines of the best size; give budget=NUMBER, in FLOPs"
        ):
            answer(result, runs, tmp_path, **options)
    assert "no intervals" in answer(result, runs, tmp_path, budget=1e20).notes[0]


def _at(result: FitResult, flops: float) -> float:
    return float(
        np.exp(result.parameters["params_log_coefficient"] + result.parameters["params_exponent"] * np.log(flops))
    )
