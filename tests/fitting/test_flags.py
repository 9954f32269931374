"""Flags on data for which each is known to hold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from arrays import flags, solve
from shapelaw.fitting.solve import Solution, Status
from shapelaw.fitting.starts import start_ranges
from shapelaw.laws import EXPONENT, get_law
from shapelaw.runs import load_runs
from test_laws import NATURAL, table


def found(law: str, subset: str) -> dict[str, set[str | None]]:
    """Code -> parameters flagged on a published data set."""
    runs, form = load_runs("gemstones", subset=subset), get_law(law)
    columns, loss = runs.columns_for(form), runs.kept["loss"].to_numpy(float)
    return by_code(flags(form, columns, loss, solve(form, columns, loss)))


def by_code(raised: tuple[object, ...]) -> dict[str, set[str | None]]:
    codes: dict[str, set[str | None]] = {}
    for flag in raised:
        codes.setdefault(flag.code, set()).add(flag.parameter)
        assert len(flag.message) > 20
    return codes


def test_three_terms_have_no_irreducible_loss(data_dir: object) -> None:
    assert found("width_depth_tokens", "hot_100b+")["irreducible_zero"] == {"E"}


def test_four_terms_and_late_tokens_are_flat(data_dir: object) -> None:
    assert "zeta" in found("width_depth_params_tokens", "hot_100b+")["near_flat"]
    assert EXPONENT in found("params_tokens", "hot_120b+_only")["near_flat"]


def test_one_width_drives_the_exponent_out_of_range(data_dir: object) -> None:
    assert found("params_tokens", "hot_100b+_512x")["exponent_range"] == {"alpha"}


@pytest.mark.parametrize(("gamma", "flagged"), [(2.29, False), (3.5, True)])
def test_an_exponent_is_out_of_the_range_of_its_own_law_s_starts(gamma: float, flagged: bool) -> None:
    law = get_law("accuracy_exponential")
    columns = {"loss": np.linspace(2.0, 4.0, 30)}
    error = law.predict({"epsilon": 0.8, "k": np.exp(gamma), "gamma": gamma}, columns)
    solution = solve(law, columns, error)
    said = [flag.message for flag in flags(law, columns, error, solution) if flag.code == "exponent_range"]
    assert said == ["gamma = 3.5 is outside 0.25 to 3, the range of the starts"] * flagged


def test_ranges_of_starts_are_those_of_parameters_in_natural_units() -> None:
    """Kaplan's alpha_N is the product of two coordinates, from 0.5 to 2 and from 0.05 to 0.6."""
    assert start_ranges(get_law("kaplan"))["alpha_N"] == pytest.approx((0.025, 1.2))


def test_a_good_fit_has_none(data_dir: object) -> None:
    assert not found("params_tokens", "hot")


def test_a_term_that_the_data_do_not_need_is_dead() -> None:
    law = get_law("params_tokens")
    columns = table(n=80)
    one_term = get_law("params_tokens").predict(NATURAL["params_tokens"] | {"B": 0.0}, columns)
    noisy = one_term * np.exp(
        1e-3 * np.random.default_rng(0).standard_normal(80) + 1e-3 * np.log(columns["tokens"] / 1e10)
    )
    codes = by_code(flags(law, columns, noisy, solve(law, columns, noisy)))
    assert codes.keys() & {"dead_term", "near_flat", "exponent_range", "not_identified", "bound_hit"}


def test_collinear_predictors_cannot_be_told_apart() -> None:
    law = get_law("params_tokens")
    params = np.geomspace(1e8, 1e10, 40)
    columns = {"params": params, "tokens": 20 * params}
    loss = law.predict({"A": 480.0, "B": 2000.0, "alpha": 0.3, "beta": 0.3, "E": 1.8}, columns)
    loss = loss * np.exp(1e-3 * np.random.default_rng(0).standard_normal(40))
    codes = by_code(flags(law, columns, loss, solve(law, columns, loss)))
    assert codes.keys() & {"not_identified", "dead_term", "near_flat"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"status": Status.max_iter}, "not_converged"),
        ({"status": Status.bound_hit}, "bound_hit"),
        ({"share_at_best": 0.05}, "low_share"),
        ({"next_basin": 1.0000001}, "second_basin"),
    ],
)
def test_doubtful_searches_are_named(change: dict[str, object], code: str) -> None:
    law, columns = get_law("params_tokens"), table(n=40)
    loss = law.predict(NATURAL["params_tokens"], columns) * np.exp(1e-2 * np.random.default_rng(0).standard_normal(40))
    solution: Solution = solve(law, columns, loss)
    if "next_basin" in change:
        change = {"next_basin": solution.objective * 1.001}
    assert code in by_code(flags(law, columns, loss, dataclasses.replace(solution, **change)))
