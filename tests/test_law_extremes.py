"""Every law at parameters and sizes as extreme as numbers hold them: the formula's value, or one line, and no warning."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shapelaw import UserError
from shapelaw.laws import LAWS, get_law, law_names
from test_laws import by_hand

LARGEST = float(np.finfo(np.float64).max)
COMPOSED = ("median3(params_tokens,skaling,skaling_aspect)", "speedup(interaction)")
ROWS = 3


POSITIVE_COEFFICIENTS = {"N_c", "D_c", "speedup", "r_T", "r_N", "data_constrained.A", "data_constrained.B"}
"""Coefficients by which a formula divides."""


def coefficients(law: str, name: str) -> st.SearchStrategy[float]:
    """Zero, and all but the smallest and largest numbers; decays as far as 15 digits tell 1 - exp(-1/r) from 0."""
    low, high = (-3.0, 4.0) if name in ("r_T", "r_N") else (-300.0, 300.0)
    positive = st.floats(low, high).map(lambda power: 10.0**power)
    return positive if {name, f"{law}.{name}"} & POSITIVE_COEFFICIENTS else st.one_of(st.just(0.0), positive)


POSITIVE = {
    "steps_batch": (0.3, 1.5),
    "kaplan": (0.3, 1.5),
    "data_constrained": (0.3, 5.0),
    "overfitting": (0.05, 5.0),
}
"""Exponents of laws whose formulas mean nothing at or below 0; for data_constrained as far as the reference's numbers reach."""


@st.composite
def cases(draw: st.DrawFn, name: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Parameters in natural units, and rows of sizes from 1 to 1e30."""
    law = get_law(name)
    low, high = next((bounds for start, bounds in POSITIVE.items() if name.startswith(start)), (-5.0, 5.0))
    other = st.floats(low, high)
    logarithmic = {*law.log_parameters, "N_c", "D_c", "speedup"}
    parameters = {key: draw(coefficients(name, key) if key in logarithmic else other) for key in law.parameters}
    assume(abs(parameters.get("rho", 1.0)) >= 0.01)  # 0^rho jumps at rho = 0
    sizes = st.lists(st.floats(0.0, 30.0).map(lambda power: 10.0**power), min_size=ROWS, max_size=ROWS)
    columns = {key: np.array(draw(sizes)) for key in law.predictors}
    if "lr_falls" in columns:  # of rates from 1e-9 to 1, with areas since as any size
        small = np.array(draw(st.lists(st.floats(-9.0, 0.0), min_size=2 * ROWS, max_size=2 * ROWS)))
        columns["lr_falls"] = np.stack([*10 ** small.reshape(2, ROWS), columns["lr_falls"]], axis=1)[:, None]
    return parameters, columns | ({"compared_set": np.array([0.0, 1.0, 1.0])} if "compared_set" in columns else {})


def predicted(name: str, parameters: dict[str, float], columns: dict[str, np.ndarray]) -> np.ndarray | str:
    """The prediction, or what is said in place of it; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            get_law(name).log_prediction(get_law(name).theta(parameters), columns)
            return get_law(name).predict(parameters, columns)
        except UserError as error:
            return str(error)


def exact(name: str, p: dict[str, float], c: dict[str, np.ndarray]) -> np.ndarray:
    """The formula as the papers write it, in numbers of 15 bits of exponent in place of 11."""
    every = {
        key: np.ones(ROWS, np.longdouble) for key in ("width", "depth", "params", "tokens", "flops", "unique_tokens")
    }
    with np.errstate(all="ignore"):
        long = {key: np.longdouble(value) for key, value in p.items()}
        return by_hand(name, long, every | {key: value.astype(np.longdouble) for key, value in c.items()})


@pytest.mark.parametrize("name", [*law_names(), *COMPOSED])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_law_gives_numbers_or_one_line_and_no_warning(name: str, data: st.DataObject) -> None:
    value = predicted(name, *data.draw(cases(name)))
    if isinstance(value, str):
        assert value.startswith(f"law={name}: its parameters give ")
        assert "\n" not in value
    else:
        assert np.isfinite(value).all()
        assert (value >= 0).all()


REFERRED = [name for name in LAWS if not name.startswith("steps_batch") and name != "multi_power"]
"""Laws whose formula is exact enough in longer numbers: not one that is implicit, nor one of differences from 1."""


@pytest.mark.parametrize("name", REFERRED)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_numbers_are_the_formula_s(name: str, data: st.DataObject) -> None:
    parameters, columns = data.draw(cases(name))
    value, truth = predicted(name, parameters, columns), exact(name, parameters, columns)
    if isinstance(value, str):
        assert not (np.isfinite(truth) & (truth > 0) & (truth < LARGEST)).all()
    else:
        np.testing.assert_allclose(value, truth.astype(np.float64), rtol=1e-9, atol=1e-300)
