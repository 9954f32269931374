"""law=auto takes what predicts its own held-out largest models best, and says what it tried; law=median3 is a law itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapelaw import RunsTable, UserError, fit, load_fit
from shapelaw.fitting.choose import hold_out
from shapelaw.fitting.spec import FitSpec
from shapelaw.laws import get_law
from shapelaw.laws.choices import CANDIDATES, CHOICES, MedianLaw
from shapelaw.prescribe.ask import Problem
from test_laws import NATURAL


def planted(law: str, sizes: int = 8, noise: float = 1e-3, shapes: bool = False) -> RunsTable:
    """Losses of a law, six token counts to each of some sizes."""
    rng = np.random.default_rng(0)
    depth = np.repeat(rng.integers(4, 40, sizes), 6).astype(float)
    width = np.repeat(128.0 * rng.permutation(np.arange(2, 2 + sizes)), 6)
    params, tokens = 12 * width**2 * depth, np.tile(np.geomspace(1e9, 1e11, 6), sizes)
    columns = {"width": width, "depth": depth, "params": params, "tokens": tokens}
    loss = get_law(law).predict(NATURAL[law], columns) * np.exp(noise * rng.standard_normal(len(params)))
    frame = pd.DataFrame(
        {"run": np.repeat(np.arange(sizes), 6).astype(str), "params": params, "tokens": tokens, "loss": loss}
    )
    return RunsTable(frame.assign(width=width, depth=depth) if shapes else frame)


@pytest.mark.parametrize("law", ["params_tokens", "params_tokens_interaction"])
def test_the_law_of_the_data_is_taken(law: str, tmp_path: Path) -> None:
    runs = planted(law, noise=1e-4)
    result = fit(runs, law="auto", delta=1e-3, counting="total")
    errors = {row["law"]: row["error"] for row in result.candidates}
    identified = {row["law"]: row["error"] for row in result.candidates if row["error"] and not row["reason"]}
    assert list(errors) == [row["law"] for row in sorted(result.candidates, key=lambda row: row["error"] or np.inf)]
    assert errors[law] < 1e-3
    assert [row["law"] for row in result.candidates if row["chosen"]] == [result.law]
    assert result.law == min(identified, key=lambda name: identified[name])
    assert fit(runs, law=str(result.law), delta=1e-3, counting="total").theta == result.theta
    assert load_fit(result.save(tmp_path, runs)) == result
    assert any(
        flag.startswith(f"auto: {result.law} was taken of 5 candidates by the smallest error") for flag in result.flags
    )


def test_candidates_that_the_table_cannot_serve_are_left_out_with_the_reason() -> None:
    result = fit(planted("params_tokens"), law="auto", delta=1e-3)
    left_out = {row["law"]: row["reason"] for row in result.candidates if row["error"] is None}
    assert set(left_out) == {"interaction", "skaling_aspect"}
    assert all("needs the column width" in reason for reason in left_out.values())


def test_a_hold_out_needs_sizes() -> None:
    assert hold_out(planted("params_tokens"), "total")[1].endswith("hold-out of the largest models")
    assert "latest tokens" in hold_out(planted("params_tokens", sizes=2), "total")[1]
    one = planted("params_tokens", sizes=2)
    assert "lowest AIC" in hold_out(one.select("tokens < 4e9"), "total")[1]


def test_nothing_to_choose_from_is_said() -> None:
    with pytest.raises(
        UserError, match=r"law=auto: no candidate can be fitted to this table \(params_tokens: .*give law=NAME"
    ):
        fit(planted("params_tokens", sizes=2).select("tokens < 2e9"), law="auto", delta=1e-3)


def test_the_median_is_one_of_three_predictions(tmp_path: Path) -> None:
    runs = planted("params_tokens_interaction", shapes=True)
    result = fit(runs, law="median3", delta=1e-3, counting="total", grid_size=8, bootstrap={"n": 5})
    law = get_law(str(result.law))
    assert isinstance(law, MedianLaw)
    assert [row["law"] for row in result.candidates if row["chosen"]] == [one.name for one in law.laws]
    members = [fit(runs, law=one.name, delta=1e-3, counting="total", ties="optimum", grid_size=8) for one in law.laws]
    np.testing.assert_allclose(
        result.predict(runs), np.median([one.predict(runs) for one in members], axis=0), rtol=1e-12
    )
    back = load_fit(result.save(tmp_path, runs))
    np.testing.assert_array_equal(back.predict(runs), result.predict(runs))
    assert len(back.vectors) == 5
    ends = back.predict(runs, kind="new_run")
    assert (ends["low"] < ends["predicted"]).all()


def test_a_choice_is_no_law_to_predict_with() -> None:
    for name, law in CHOICES.items():
        assert get_law(name) is law
        assert FitSpec.of(name).law is law
        with pytest.raises(UserError, match=f"law={name}: is chosen by a fit"):
            law.predict({}, {"params": [1e9]})
    assert all(get_law(name).name == name for name in CANDIDATES)


def test_prescriptions_are_asked_of_the_law_that_was_taken() -> None:
    runs = planted("params_tokens", noise=1e-4)
    result = fit(runs, law="auto", delta=1e-3, counting="total", bootstrap={"n": 5})
    answer = Problem.of(result, runs, space="params").best(3e19)
    assert answer.law == result.law
    assert any("was taken" in flag for flag in answer.flags)
