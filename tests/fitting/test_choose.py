"""law=auto takes what predicts its own held-out largest models best, and says what it tried; law=median3 is a law itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapelaw import Holdout, RunsTable, UserError, compare, fit, load_fit
from shapelaw.config import FitConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.fitting.choose import hold_out
from shapelaw.fitting.holdout import evaluate
from shapelaw.fitting.result import FitResult
from shapelaw.fitting.spec import FitSpec, Method
from shapelaw.laws import get_law
from shapelaw.laws.choices import CANDIDATES, CHOICES, MedianLaw
from shapelaw.prescribe.ask import Problem
from shapelaw.verbs.fit import folder_of, spec_of
from support import Compose
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


def test_it_is_the_default_where_a_method_can_choose(composed: Compose) -> None:
    """On the command line and in Python; other methods fit eq 1, and lines keep their folders whatever the default is."""
    runs = planted("params_tokens")
    asked: FitConfig = to_dataclass(composed("bootstrap=none", name="fit"))
    assert spec_of(asked) == FitSpec.of("auto", starts="varpro") == FitSpec()
    assert fit(runs, delta=1e-3).candidates == fit(runs, "auto", delta=1e-3).candidates
    assert FitSpec.of(method=Own()).law is get_law("params_tokens")
    lines: list[FitConfig] = [
        to_dataclass(composed("method=hull", *given, "bootstrap=none", name="fit"))
        for given in ([], ["law=params_tokens"])
    ]
    assert folder_of(lines[0], runs) == folder_of(lines[1], runs)


class Own(Method):
    """A method of a user's own."""

    name = "own"

    def fit(self, runs: RunsTable, spec: FitSpec) -> FitResult:
        raise NotImplementedError


@pytest.mark.parametrize("rows", [4, 5, 6, 7, 9, 12])
@pytest.mark.parametrize("noise", [0.0, 1e-2])
def test_small_tables_are_answered_as_by_eq_1(rows: int, noise: float) -> None:
    """A fit where eq 1 can be fitted, and else a refusal of one line."""
    rng = np.random.default_rng(rows)
    params, tokens = rng.choice([1e7, 3e7, 1e8, 4e8], rows), rng.choice([1e9, 4e9, 2e10], rows)
    loss = (1.7 + 400 / params**0.34 + 400 / tokens**0.28) * np.exp(noise * rng.standard_normal(rows))
    runs = RunsTable(
        pd.DataFrame({"run": np.arange(rows).astype(str), "params": params, "tokens": tokens, "loss": loss})
    )
    try:
        fit(runs, "params_tokens")
    except UserError:
        with pytest.raises(UserError) as refused:
            fit(runs)
        assert "\n" not in str(refused.value)
        assert "points" in str(refused.value)
    else:
        result = fit(runs, bootstrap={"n": 3})
        assert result.flags[0].startswith(f"auto: {result.law} was taken of 5 candidates ")
        assert np.isfinite(result.predict(runs, kind="new_run").to_numpy()).all()


def test_of_errors_that_are_those_of_rounding_the_law_with_fewest_parameters_is_taken() -> None:
    result = fit(planted("params_tokens", noise=0.0))
    assert result.law == "params_tokens"
    assert all(row["error"] < 1e-5 for row in result.candidates if row["error"] is not None)


def test_the_irreducible_loss_is_given_to_every_candidate_and_other_parameters_to_eq_1() -> None:
    runs = planted("params_tokens_interaction")
    given = fit(runs, delta=1e-3, fixed={"E": 1.7})
    assert given.law != "params_tokens"
    assert given.parameters["E"] == 1.7
    assert given.theta == fit(runs, given.law, delta=1e-3, counting="total", fixed={"E": 1.7}).theta
    exponent = fit(runs, delta=1e-3, fixed={"alpha": 0.34})
    assert (exponent.law, exponent.parameters["alpha"]) == ("params_tokens", 0.34)
    assert exponent.flags[0].startswith("auto: params_tokens was taken of 5 candidates as the only one")
    assert {row["reason"] for row in exponent.candidates if row["law"] == "skaling"} == {
        "fixed.alpha is read as the parameter of params_tokens; give law=skaling to set its own"
    }


def test_two_sets_choose_a_law_that_they_share() -> None:
    frame = planted("params_tokens", noise=0.0).frame.drop(columns="excluded")
    half = np.arange(len(frame)) % 2 == 1
    faster = frame.assign(tokens=np.where(half, frame.tokens / 3, frame.tokens))
    result = fit(faster.assign(recipe=1.0 + half), speedup="recipe == 2", fixed={"E": NATURAL["params_tokens"]["E"]})
    assert result.law == "speedup(params_tokens)"
    assert result.parameters["speedup"] == pytest.approx(3, rel=1e-4)


def test_rows_of_no_weight_have_no_say_in_the_choice() -> None:
    frame = planted("params_tokens_interaction").frame.drop(columns="excluded")
    spoilt = pd.concat(
        [frame.assign(weight=1.0), frame.assign(run="spoilt" + frame.run, loss=9.0, params=9e12, weight=0.0)]
    )
    found, clean = fit(spoilt.reset_index(drop=True), delta=1e-3, weights="weight"), fit(RunsTable(frame), delta=1e-3)
    assert (found.law, found.flags[0]) == (clean.law, clean.flags[0])
    assert all(row["error"] < 0.05 for row in found.candidates if row["error"])  # the spoilt rows err by 100%


def test_a_hold_out_chooses_anew_from_the_rows_that_it_fits() -> None:
    runs = planted("params_tokens_interaction")
    large = Holdout("where", train="params < 1e8", test="params >= 1e8")
    found = evaluate(runs, large, FitSpec(delta=1e-3))
    chosen = fit(runs.select("params < 1e8"), delta=1e-3)
    told = chosen.predict(runs.select("params >= 1e8"))
    np.testing.assert_allclose(found.points["predicted"], told, rtol=1e-12)
    compared = compare(runs, holdouts=[large], spec=FitSpec(delta=1e-3)).table
    assert list(compared["law"]) == [f"{row['law']}:total" for row in fit(runs, delta=1e-3).candidates if row["error"]]
    named = compare(runs, ["auto"], [large], spec=FitSpec(delta=1e-3))
    assert named.table["where"].item() == found.mean_absolute
    assert named.fits["auto"].candidates


def test_a_fit_says_in_one_line_which_law_was_taken_and_why() -> None:
    result = fit(planted("params_tokens_interaction"), delta=1e-3)
    lines = result.summary().splitlines()
    said = f"auto: {result.law} was taken of 5 candidates by the smallest error on its own hold-out of the largest models: "
    assert lines[0].startswith(f"{result.law}, fitted to 48 rows")
    assert lines[1].strip().startswith(f"{said}{result.law} {result.candidates[0]['error']:.2%}, ")
    assert sum("was taken" in line for line in lines) == 1
