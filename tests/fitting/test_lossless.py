"""A fit that was saved and read back predicts, to the last bit, what its solver predicted: for every law."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_spec import frame

from shapelaw import FitResult, RunsTable, UserError, fit, load_fit
from shapelaw.fitting.solve import solve
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.laws import LOG_FLOOR, SumLaw, get_law, law_names
from shapelaw.prescribe.surface import Surface

COLUMNS = {
    "params": [1e7, 1e8, 1e9],
    "tokens": [1e9, 3e10, 1e11],
    "width": [256.0, 512.0, 1024.0],
    "depth": [4.0, 8.0, 9.0],
    "flops": [6e16, 6e18, 6e20],
    "batch_tokens": [4096.0, 8192.0, 1e6],
    "loss": [3.0, 2.5, 2.2],
    "unique_tokens": [2e9, 3e10, 1e9],
    "lr_area": [0.3, 3.0, 30.0],
    "lr_annealed": [0.0, 0.1, 0.5],
    "lr_step": [1e-3, 1e-3, 1e-4],
}
NO_FALLS = {"lr_falls": np.zeros((3, 1, 3))}
"""Of rows that are runs of their own."""


def result_of(name: str, theta: tuple[float, ...], refits: tuple[tuple[float, ...], ...]) -> FitResult:
    law = get_law(name)
    return FitResult(
        law.methods[0], name, law.natural(theta), law.units, 0.0, None, theta=theta, refits=refits,
        settings={"counting": "total", "flops": None},
    )  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", law_names())
def test_every_law_predicts_to_the_last_bit_what_its_theta_does(name: str, tmp_path: Path, data: st.DataObject) -> None:
    """Logarithms of coefficients far below what natural units can hold, too."""
    law = get_law(name)
    logarithm, other = st.floats(-300.0, 30.0), st.floats(0.05, 2.0)
    vector = st.tuples(*(logarithm if one in law.log_parameters else other for one in law.parameters))
    saved = result_of(name, data.draw(vector), tuple(data.draw(st.lists(vector, max_size=2))))
    back = load_fit(saved.save(tmp_path))
    assert back == saved
    columns = {key: np.array((COLUMNS | NO_FALLS)[key]) for key in law.predictors}
    with np.errstate(all="ignore"):
        expected = np.exp(law.log_prediction(np.array(saved.theta), columns))
    if np.isfinite(expected).all():
        np.testing.assert_array_equal(back.predict(pd.DataFrame(COLUMNS)), expected)
    else:
        with pytest.raises(UserError, match=f"law={name}: its parameters give "):
            back.predict(pd.DataFrame(COLUMNS))
    np.testing.assert_array_equal(back.vectors, np.array(saved.refits).reshape(-1, len(law.parameters)))


def steep(n: int = 60) -> pd.DataFrame:
    """A loss that rises steeply with width at the largest widths: a term A/width^alpha with alpha near -20, ln A near -150."""
    rng = np.random.default_rng(0)
    width, depth = 128.0 * rng.integers(2, 20, n), rng.integers(3, 60, n).astype(float)
    params, tokens = 12 * width**2 * depth, 10 ** rng.uniform(9.5, 11, n)
    loss = 1.8 + 0.02 * (width / 2432) ** 20 + 3 / depth**0.5 + 400 / params**0.34 + 2000 / tokens**0.37
    return pd.DataFrame(
        {"run": range(n), "width": width, "depth": depth, "params": params, "tokens": tokens, "loss": loss}
    )


@pytest.mark.parametrize("name", [name for name in law_names() if isinstance(get_law(name), SumLaw)])
def test_every_fitted_law_predicts_to_the_last_bit_what_its_solver_did(name: str, tmp_path: Path) -> None:
    law, table = get_law(name), RunsTable(steep(20))
    spec = FitSpec.of(law, delta=1e-2, counting="total", starts="grid", grid_size=4, bootstrap={"n": 2}, ties="optimum")
    solution = solve(FitData.of(table, spec), spec)
    back = load_fit(fit(table, spec).save(tmp_path))
    np.testing.assert_array_equal(back.vector, solution.theta)
    expected = np.exp(law.log_prediction(solution.theta, table.columns_for(law, "total")))
    np.testing.assert_array_equal(back.predict(table), expected)


def test_a_coefficient_far_below_rounding_is_kept(tmp_path: Path) -> None:
    table = RunsTable(steep())
    result = fit(table, law="width_depth_params_tokens", delta=1e-3, bootstrap={"n": 3})
    law = get_law("width_depth_params_tokens")
    assert result.theta[0] < LOG_FLOOR
    assert 0 < result.parameters["A"] < 1e-60
    by_hand = law.predict(result.parameters, table.columns_for(law))
    np.testing.assert_allclose(by_hand, result.predict(table), rtol=1e-12)
    back = load_fit(result.save(tmp_path, table))
    np.testing.assert_array_equal(
        back.predict(table), np.exp(law.log_prediction(np.array(result.theta), table.columns_for(law)))
    )
    np.testing.assert_allclose(back.predict(table), table.kept["loss"], rtol=1e-6)
    surface = Surface.of(back)
    np.testing.assert_array_equal(surface.thetas, np.array([result.theta, *result.refits]))


def test_a_coefficient_that_was_stored_as_zero_is_read(tmp_path: Path) -> None:
    """As it was where its logarithm is below -60; predictions come from theta."""
    result = fit(RunsTable(steep()), law="width_depth_params_tokens", delta=1e-3)
    file = result.save(tmp_path)
    content = json.loads(file.read_text())
    del content["seal"]
    content["parameters"]["A"] = 0.0
    file.write_text(json.dumps(content))
    np.testing.assert_array_equal(load_fit(file).predict(steep()), result.predict(steep()))


def as_version_1(result: FitResult, path: Path) -> Path:
    """fit.json as it was written before it held theta."""
    content = json.loads(result.save(path).read_text())
    for key in ("theta", "refits", "law_sha256", "seal"):
        del content[key]
    (path / "fit.json").write_text(json.dumps(content | {"version": 1}))
    return path


def test_version_1_is_read_and_predicts_from_natural_units(tmp_path: Path) -> None:
    table = RunsTable(frame())
    result = fit(table, "params_tokens", delta=1e-2, bootstrap={"n": 4})
    old = load_fit(as_version_1(result, tmp_path / "old"))
    np.testing.assert_allclose(old.predict(table), result.predict(table), rtol=1e-12)
    np.testing.assert_allclose(old.vectors, result.vectors, rtol=1e-9)
    assert load_fit(old.save(tmp_path / "again")).predict(table) == pytest.approx(old.predict(table), rel=1e-15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"parameters": {"alpha": 0.9}},
            "its parameters have alpha=0.9, but its theta.* change both, or leave theta empty",
        ),
        ({"theta": [1.0, 2.0]}, "its theta or refits do not have the 5 numbers"),
        ({"refits": [[1.0]]}, "its theta or refits do not have the 5 numbers"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = fit(RunsTable(frame()), "params_tokens", delta=1e-2).save(tmp_path)
    content = json.loads(path.read_text())
    del content["seal"]
    if "parameters" in change:
        change = {"parameters": content["parameters"] | change["parameters"]}
    path.write_text(json.dumps(content | change))
    with pytest.raises(UserError, match=message):
        load_fit(path)
