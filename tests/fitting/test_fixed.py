"""Parameters that are given, not fitted: the optimum on what is left, whatever the law, the solver and the question."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from shapelaw import UserError, fit, load_fit
from shapelaw.config import FitConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.fitting.spec import FitSpec
from shapelaw.laws import Law, get_law
from shapelaw.laws.fixed import FixedLaw
from shapelaw.runs import RunsTable
from shapelaw.verbs.fit import folder_of, make_fit
from support import Compose

NAMES = ("A", "B", "alpha", "beta", "E")
COEFFICIENTS = ("A", "B", "E")


def frame() -> pd.DataFrame:
    """Six token counts of five sizes by a known law with a little noise."""
    params, tokens = np.tile([2e7, 6e7, 2e8, 6e8, 2e9], 6), np.repeat(np.geomspace(1e9, 1e11, 6), 5)
    noise = np.random.default_rng(1).normal(0, 3e-3, 30)
    loss = (1.8 + 410 * params**-0.34 + 1200 * tokens**-0.35) * np.exp(noise)
    shapes = {"width": np.tile([256, 384, 640, 1024, 1536], 6), "depth": np.tile([8, 10, 14, 20, 30], 6)}
    return pd.DataFrame(
        {"run": [f"r{i}" for i in range(30)], "params": params, "tokens": tokens, "loss": loss} | shapes
    )


def scipys(fixed: Mapping[str, float], start: Mapping[str, float], delta: float) -> float:
    """The objective that scipy's simplex reaches over the other parameters, from the law as it is written."""
    table, free = frame(), [name for name in NAMES if name not in fixed]

    def value(x: np.ndarray) -> float:
        p = {name: np.exp(v) if name in COEFFICIENTS else v for name, v in zip(free, x, strict=True)} | dict(fixed)
        predicted = p["A"] * table.params ** -p["alpha"] + p["B"] * table.tokens ** -p["beta"] + p["E"]
        size = np.abs(np.log(table.loss) - np.log(predicted))
        return float(np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).sum())

    first = [np.log(start[name]) if name in COEFFICIENTS else start[name] for name in free]
    options = {"maxiter": 4000, "maxfev": 4000, "xatol": 1e-9, "fatol": 1e-16}
    return float(minimize(value, np.array(first) * 1.001, method="Nelder-Mead", options=options).fun)


CASES = [
    {"E": 1.6},
    {"alpha": 0.5},
    {"A": 400.0},
    {"E": 0.0},
    {"E": 1.6, "alpha": 0.5},
    {"A": 400.0, "alpha": 0.34, "B": 1e3},
]


@pytest.mark.parametrize("fixed", CASES)
def test_the_others_are_at_their_optimum_given_what_is_fixed(fixed: dict[str, float]) -> None:
    result = fit(frame(), "params_tokens", delta=1e-3, fixed=fixed)
    assert {name: result.parameters[name] for name in fixed} == fixed
    assert set(result.parameters) == set(NAMES)
    reached = scipys(fixed, {**result.parameters, "E": max(result.parameters["E"], 1e-6)}, 1e-3)
    assert result.objective <= reached * (1 + 1e-6)
    assert result.objective == pytest.approx(reached, rel=0.02)
    assert result.objective > fit(frame(), "params_tokens", delta=1e-3).objective


@pytest.mark.parametrize("solver", ["newton_torch", "reference"])
def test_every_solver_holds_them(solver: str) -> None:
    options = {"starts": "grid", "grid_size": 3} if solver == "reference" else {}
    result = fit(frame(), "params_tokens", delta=1e-1, solver=solver, fixed={"E": 1.6, "beta": 0.3}, **options)  # type: ignore[arg-type]
    assert (result.parameters["E"], result.parameters["beta"]) == (1.6, 0.3)
    best = fit(frame(), "params_tokens", delta=1e-1, fixed={"E": 1.6, "beta": 0.3})
    assert result.objective == pytest.approx(best.objective, rel=1e-3 if solver == "reference" else 1e-9)


@pytest.mark.parametrize("name", ["skaling", "kaplan", "width_depth_tokens", "interaction"])
def test_every_law_holds_every_parameter_at_its_own_optimum(name: str) -> None:
    """Given a parameter where the fit has it, the fit is the same; Kaplan's alpha_N is a product of two coordinates."""
    free = fit(frame(), law=name, delta=1e-2, ties="optimum")
    for parameter in get_law(name).parameters:
        if (name, parameter) == ("kaplan", "alpha_N"):
            with pytest.raises(UserError, match=r"fixed.alpha_N: cannot be fixed in law=kaplan \(alpha_N is a product"):
                fit(frame(), law=name, delta=1e-2, fixed={parameter: 0.3})
            continue
        held = fit(frame(), law=name, delta=1e-2, ties="optimum", fixed={parameter: free.parameters[parameter]})
        assert held.parameters[parameter] == free.parameters[parameter]
        assert held.objective == pytest.approx(free.objective, rel=1e-6), parameter


@pytest.mark.parametrize("solver", ["newton", "newton_torch", "reference"])
@pytest.mark.parametrize("coefficient", [0.0, 1e-300, 1e-40])
def test_a_term_whose_coefficient_is_zero_is_absent(solver: str, coefficient: float) -> None:
    """Or too small for any exponent in reach to make it noticeable; its own exponent is then not identified."""
    table = frame()
    table["loss"] = 1.7 + 400 / table["params"] ** 0.34
    options = {"starts": "grid", "grid_size": 3} if solver == "reference" else {}
    result = fit(table, "params_tokens", delta=1e-3, solver=solver, fixed={"B": coefficient}, **options)  # type: ignore[arg-type]
    assert result.parameters["B"] == coefficient
    found = [result.parameters[name] for name in ("A", "alpha", "E")]
    assert found == pytest.approx([400.0, 0.34, 1.7], rel=1e-2 if solver == "reference" else 1e-6)
    np.testing.assert_allclose(result.predict(table), table["loss"], rtol=1e-5)
    if solver == "newton":
        assert any(flag.startswith("ridge: beta, ") for flag in result.flags)


@pytest.mark.parametrize(
    ("law", "without"),
    [
        ("interaction", "params_tokens_interaction"),
        ("skaling_aspect", "skaling"),
        ("params_tokens_aspect", "params_tokens"),
    ],
)
@pytest.mark.parametrize("kappa", [0.0, 1e-40])
def test_an_aspect_ratio_without_a_price_leaves_the_law_of_params_and_tokens(
    law: str, without: str, kappa: float
) -> None:
    held = fit(frame(), law, delta=1e-2, counting="total", ties="optimum", fixed={"kappa": kappa})
    plain = fit(frame(), without, delta=1e-2, counting="total", ties="optimum")
    assert held.objective == pytest.approx(plain.objective, rel=1e-9)
    np.testing.assert_allclose(held.predict(frame()), plain.predict(frame()), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "exponents"),
    [
        ("interaction", ("beta", "gamma")),
        ("skaling", ("beta",)),
        ("params_tokens_aspect", ("beta",)),
        ("width_depth_params_tokens", ("beta",)),
    ],
)
def test_a_term_of_zero_is_absent_from_every_law(name: str, exponents: tuple[str, ...]) -> None:
    """The absent term's exponents do not change the prediction."""
    law = get_law(name)
    held = fit(frame(), name, delta=1e-2, counting="total", fixed={"B": 0.0})
    moved = held.parameters | dict.fromkeys(exponents, -3.0)
    columns = RunsTable(frame()).columns_for(law, "total")
    np.testing.assert_allclose(law.predict(moved, columns), held.predict(frame()), rtol=1e-12)


def test_the_derivative_is_that_of_differences() -> None:
    law = FixedLaw(get_law("kaplan_e"), {"N_c": 1e9, "E": 1.5})
    columns = {name: frame()[name].to_numpy() for name in law.predictors}
    theta = law.theta({"D_c": 1e10, "alpha_N": 0.3, "alpha_D": 0.25})
    assert law.natural(theta) == pytest.approx({"N_c": 1e9, "D_c": 1e10, "alpha_N": 0.3, "alpha_D": 0.25, "E": 1.5})
    np.testing.assert_allclose(law.jacobian(theta, columns), Law.jacobian(law, theta, columns), rtol=1e-7, atol=1e-9)


def test_intervals_profiles_predictions_and_records_know_what_is_fixed(tmp_path: Path) -> None:
    table = RunsTable(frame())
    result = fit(table, fixed={"E": 1.8, "alpha": 0.34}, bootstrap={"n": 40}, profile=True, holdouts=["largest"])
    assert set(result.intervals) == {"A", "B", "beta", "compute_optimal_exponent"}
    assert set(result.profiles) == {"A", "B", "beta", "compute_optimal_exponent"}
    low, high = result.intervals["beta"]
    assert low < 0.35 < high
    free = fit(table, bootstrap={"n": 40}).intervals["beta"]
    assert high - low < (free[1] - free[0]) / 2
    form = result.checklist["form"]
    assert (form["free"], form["fixed"]) == (["A", "B", "beta"], {"E": 1.8, "alpha": 0.34})
    assert "E = 1.8 (fixed) nats per token" in result.summary()
    again = load_fit(result.save(tmp_path / "fit", table))
    ends = again.predict(frame(), kind="new_run")
    assert ((ends["low"] < ends["predicted"]) & (ends["predicted"] < ends["high"])).all()
    by_hand = 1.8 + result.parameters["A"] * 2e7**-0.34 + result.parameters["B"] * 1e9 ** -result.parameters["beta"]
    assert again.predict(frame())[0] == pytest.approx(by_hand, rel=1e-12)
    best = again.prescribe(budget=1e20, space="params")
    assert best is not None


def test_given_exponents_answer_where_tokens_follow_from_sizes() -> None:
    """20 tokens per parameter throughout tell nothing apart, until one exponent is given."""
    params = np.geomspace(1e7, 1e10, 12)
    line = pd.DataFrame({"run": range(12), "params": params, "tokens": 20 * params})
    line["loss"] = 1.8 + 410 * line.params**-0.34 + 1200 * line.tokens**-0.35
    with pytest.raises(UserError, match="vary together"):
        fit(line)
    result = fit(line, fixed={"alpha": 0.34, "A": 410.0})
    assert result.parameters["beta"] == pytest.approx(0.35, rel=1e-4)


def test_the_flag_names_the_option() -> None:
    """Of two sizes, any exponent goes with a coefficient."""
    table = frame()[lambda rows: rows.params.isin(sorted(rows.params.unique())[:2])]
    said = " ".join(fit(table, law="params_tokens", delta=1e-2).flags)
    assert "or give one with fixed.alpha=VALUE" in said
    assert "fix one (fixed.A=VALUE)" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": {"E_0": 1.0}}, "fixed.E_0: law=params_tokens has no such parameter; it has A, B, alpha, beta, E"),
        ({"fixed": {"E": -1.0}}, "fixed.E=-1.0: allowed values are numbers from 0, in nats per token"),
        ({"fixed": {"E": "low"}}, "fixed.E=low: allowed values are finite numbers"),
        ({"fixed": {"beta": float("nan")}}, "fixed.beta=nan: allowed values are finite numbers"),
        ({"fixed": dict.fromkeys(NAMES, 1.0)}, "nothing is left to fit"),
        ({"fixed": {"E": 1.0}, "law": "median3"}, "law=median3 is chosen by the fit"),
        ({"fixed": {"E": 1.0}, "method": "hull"}, "method=hull does not fit all parameters of a law at once"),
    ],
)
def test_what_cannot_be_fixed_is_refused_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        FitSpec.of(**options)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_the_command_line_fixes_them_and_other_fits_keep_their_folders(composed: Compose, tmp_path: Path) -> None:
    table = RunsTable(frame())
    asked: FitConfig = to_dataclass(composed("fixed.E=1.6", "bootstrap=none", name="fit"))
    assert make_fit(asked, table).parameters["E"] == 1.6
    plain: FitConfig = to_dataclass(composed("bootstrap=none", name="fit"))
    assert folder_of(asked, table) != folder_of(plain, table)
    from shapelaw.verbs.fit import science_of

    assert "fixed" not in science_of(plain, table)
    assert json.dumps(science_of(asked, table)["fixed"]) == '{"E": 1.6}'
