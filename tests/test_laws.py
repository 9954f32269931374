"""Laws: derivatives, units, optima and the registry, each against something independent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from shapelaw.errors import UserError
from shapelaw.laws import EXPONENT, LAWS, Law, SumLaw, Term, get_law, register, sums
from shapelaw.laws.catalogue import KaplanLaw

NATURAL = {
    "params_tokens": {"A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "E": 1.8},
    "width_depth_params_tokens": {
        "A": 3.0, "B": 0.8, "C": 440.0, "D": 35000.0, "alpha": 0.22, "beta": 0.48, "gamma": 0.36, "zeta": 0.49, "E": 1.5,
    },
    "width_depth_tokens": {"A": 8.0, "B": 2.0, "C": 1e5, "alpha": 0.26, "beta": 0.14, "gamma": 0.54, "E": 0.4},
    "power_flops": {"A": 50.0, "alpha": 0.06},
    "power_flops_e": {"A": 500.0, "alpha": 0.15, "E": 1.5},
    "kaplan": {"N_c": 8.8e13, "D_c": 5.4e13, "alpha_N": 0.076, "alpha_D": 0.095},
    "kaplan_e": {"N_c": 1.5e9, "D_c": 3.6e10, "alpha_N": 0.15, "alpha_D": 0.3, "E": 1.5},
    "params_tokens_interaction": {"A": 22.0, "B": 3900.0, "alpha": 0.143, "beta": 0.55, "gamma": 0.18, "E": 1.37},
    "interaction": {
        "A": 21.6, "B": 3150.0, "alpha": 0.143, "beta": 0.54, "gamma": 0.18, "kappa": 0.084, "mu": 3.83, "E": 1.37,
    },
    "params_tokens_aspect": {"A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "kappa": 0.08, "mu": 3.8, "E": 1.8},
    "skaling": {"A": 4e3, "B": 1e6, "alpha": 0.5, "beta": 0.7, "rho": 0.5, "E": 1.5},
    "data_constrained": {"A": 521.0, "B": 1488.0, "alpha": 0.353, "beta": 0.353, "r_T": 15.4, "r_N": 5.3, "E": 1.87},
    "overfitting": {
        "A": 480.0, "B": 2100.0, "P": 0.02, "alpha": 0.35, "beta": 0.37, "delta": 1.2, "kappa": 0.4, "E": 1.8,
    },
    "annealing": {"A": 0.63, "C": 0.1, "alpha": 0.65, "E": 2.86},
    "multi_power": {"A": 0.63, "B": 100.0, "C": 0.3, "alpha": 0.5, "beta": 0.6, "gamma": 0.5, "E": 2.6},
    "skaling_aspect": {"A": 4e3, "B": 1e6, "alpha": 0.5, "beta": 0.7, "rho": 0.5, "kappa": 0.2, "mu": 3.5, "E": 1.5},
}  # fmt: skip


def table(seed: int = 0, n: int = 50) -> dict[str, np.ndarray]:
    """Shapes and tokens such as those of the Gemstones."""
    rng = np.random.default_rng(seed)
    width, depth = 128.0 * rng.integers(2, 25, n), rng.integers(3, 80, n).astype(float)
    params, tokens = 12 * width**2 * depth, np.exp(rng.uniform(np.log(2e9), np.log(3.5e11), n))
    sizes = {"width": width, "depth": depth, "params": params, "tokens": tokens, "flops": 6 * params * tokens}
    rates = {"lr_area": tokens / 1e10, "lr_annealed": np.tile([0.0, 0.1, 0.2, 0.3, 0.4], n)[:n]}
    rates |= {"lr_falls": falls_before(n)}
    return sizes | rates | {"unique_tokens": tokens * np.tile([2.0, 1.0, 0.5, 0.1, 0.02], n)[:n]}


def falls_before(n: int) -> np.ndarray:
    """Falls of the rate before each row, some of them of no fall: (n, 3 falls, what fell, the rate after, the rate since)."""
    some = np.array([[1e-4, 2e-4, 0.3], [5e-5, 1.5e-4, 1.0], [1e-4, 5e-5, 3.0]])
    out = np.tile(some, (n, 1, 1)) * np.linspace(0.5, 1.5, n)[:, None, None]
    out[::4] = 0.0
    out[1::4, 1:] = 0.0
    return out


def by_hand(name: str, p: dict[str, float], c: dict[str, np.ndarray]) -> np.ndarray:
    """The formulas as the papers write them."""
    w, d, n, t, f = (c[key] for key in ("width", "depth", "params", "tokens", "flops"))
    data = p.get("B", 0) * n ** p.get("gamma", 0) / t ** p.get("beta", 0)
    if name == "params_tokens":
        return p["E"] + p["A"] / n ** p["alpha"] + p["B"] / t ** p["beta"]
    if name == "width_depth_params_tokens":
        shape = p["A"] / w ** p["alpha"] + p["B"] / d ** p["beta"]
        return p["E"] + shape + p["C"] / n ** p["gamma"] + p["D"] / t ** p["zeta"]
    if name == "width_depth_tokens":
        return p["E"] + p["A"] / w ** p["alpha"] + p["B"] / d ** p["beta"] + p["C"] / t ** p["gamma"]
    if name.startswith("power_flops"):
        return p["A"] / f ** p["alpha"] + p.get("E", 0.0)
    if name.startswith("kaplan"):
        inside = (p["N_c"] / n) ** (p["alpha_N"] / p["alpha_D"]) + p["D_c"] / t
        return inside ** p["alpha_D"] + p.get("E", 0.0)
    if name == "annealing":
        return p["E"] + p["A"] / c["lr_area"] ** p["alpha"] - p["C"] * c["lr_annealed"]
    if name == "multi_power":
        dropped = np.zeros_like(c["lr_area"])
        for place in range(c["lr_falls"].shape[1]):
            fall, rate, since = c["lr_falls"][:, place].T
            x = np.where(fall == 0, 0.0, since / np.where(fall == 0, 1.0, rate) ** p["gamma"])
            dropped += p["B"] * fall * (1 - (1 + p["C"] * x) ** -p["beta"])
        return p["E"] + p["A"] / c["lr_area"] ** p["alpha"] - dropped
    unique = np.minimum(c["unique_tokens"], t)
    if name == "overfitting":
        harm = p["P"] * (t / unique - 1) ** p["delta"] * (n / c["unique_tokens"]) ** p["kappa"]
        return p["E"] + p["A"] / n ** p["alpha"] + p["B"] / t ** p["beta"] + harm
    if name == "data_constrained":
        g = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
        best = np.minimum(g * (unique * g) ** (p["beta"] / p["alpha"]), n)
        params = best + best * p["r_N"] * (1 - np.exp(-(n / best - 1) / p["r_N"]))
        tokens = unique + unique * p["r_T"] * (1 - np.exp(-(t / unique - 1) / p["r_T"]))
        return p["E"] + p["A"] / params ** p["alpha"] + p["B"] / tokens ** p["beta"]
    price = 1 + p["kappa"] ** 2 * (np.log(w / d) - p["mu"]) ** 2 if "kappa" in p else 1.0
    return p["E"] + (p["A"] / n ** p["alpha"] + data) ** p.get("rho", 1.0) * price


@pytest.mark.parametrize("name", LAWS)
def test_prediction_is_the_formula(name: str) -> None:
    law, columns = get_law(name), table()
    np.testing.assert_allclose(law.predict(NATURAL[name], columns), by_hand(name, NATURAL[name], columns), rtol=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_many_vectors_are_predicted_as_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To rounding: sums of other lengths may be vectorised in another way."""
    monkeypatch.setattr(sums, "BLOCK", 100)  # so that there are several blocks
    law, columns = get_law(name), table()
    thetas = np.array([law.theta(NATURAL[name])] * 7) + np.linspace(-0.01, 0.01, 7)[:, None]
    alone = np.array([law.log_prediction(theta, columns) for theta in thetas])
    np.testing.assert_allclose(law.log_predictions(thetas, columns), alone, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    "name", [name for name in LAWS if name != "data_constrained"]
)  # tests/test_repetition.py has it
def test_jacobian_is_the_derivative(name: str) -> None:
    law, columns = get_law(name), table()
    theta = law.theta(NATURAL[name])
    exact, differences = law.jacobian(theta, columns), Law.jacobian(law, theta, columns)
    assert np.abs(exact - differences).max() <= 1e-7 * np.abs(exact).max()


@pytest.mark.parametrize("name", LAWS)
def test_theta_and_natural_are_inverse(name: str) -> None:
    law = get_law(name)
    assert law.natural(law.theta(NATURAL[name])) == pytest.approx(NATURAL[name], rel=1e-12)
    assert set(law.units) == {*law.parameters, "loss"}


@pytest.mark.parametrize("name", [name for name in LAWS if get_law(name).irreducible])
def test_irreducible_loss_of_zero_survives(name: str) -> None:
    law = get_law(name)
    theta = law.theta(NATURAL[name] | {"E": 0.0})
    assert law.natural(theta)["E"] == 0.0
    assert np.isfinite(law.log_prediction(theta, table())).all()
    assert law.natural(np.append(theta[:-1], -4555.0))["E"] == 0.0  # as published for one data set


@pytest.mark.parametrize("name", [name for name in LAWS if get_law(name).compute_optimal_exponent(NATURAL[name])])
def test_compute_optimal_exponent_is_the_optimum(name: str) -> None:
    """Against a numerical minimisation over N at fixed N T, two budgets apart."""
    law, p = get_law(name), NATURAL[name]

    def best(budget: float) -> float:
        def loss(log_n: float) -> float:
            ratio = np.exp(p.get("mu", 0.0))
            columns = {"params": [np.exp(log_n)], "tokens": [budget / np.exp(log_n)], "width": [ratio], "depth": [1.0]}
            return float(law.predict(p, columns)[0]) - p.get("E", 0.0)

        found = minimize_scalar(loss, bounds=(5.0, np.log(budget) - 5), method="bounded", options={"xatol": 1e-9})
        return float(found.x)

    slope = (best(1e26) - best(1e18)) / np.log(1e8)
    assert law.compute_optimal_exponent(p) == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize("name", [name for name in LAWS if get_law(name).compute_optimal_exponent(NATURAL[name])])
def test_slope_constraint_holds_where_the_slope_is(name: str) -> None:
    law = get_law(name)
    slope = law.compute_optimal_exponent(NATURAL[name])
    assert slope is not None
    row, target = law.constraint(EXPONENT, slope)
    assert row @ law.theta(NATURAL[name]) == pytest.approx(target, abs=1e-12)
    other, level = law.constraint(EXPONENT, slope + 0.1)
    assert abs(other @ law.theta(NATURAL[name]) - level) > 1e-3


@pytest.mark.parametrize("name", LAWS)
def test_parameter_constraints_hold(name: str) -> None:
    law = get_law(name)
    for parameter in (one for one in law.parameters if one != "alpha_N"):
        row, target = law.constraint(parameter, NATURAL[name][parameter])
        assert row @ law.theta(NATURAL[name]) == pytest.approx(target, abs=1e-9)


@settings(deadline=None)
@given(
    a=st.floats(0.01, 1e4), b=st.floats(0.01, 1e6), alpha=st.floats(0.01, 1), beta=st.floats(0.01, 1), e=st.floats(0, 5)
)
def test_loss_falls_with_params_and_tokens(a: float, b: float, alpha: float, beta: float, e: float) -> None:
    law = get_law("params_tokens")
    parameters = {"A": a, "B": b, "alpha": alpha, "beta": beta, "E": e}
    loss = law.predict(parameters, {"params": [1e8, 1e9, 1e9], "tokens": [1e10, 1e10, 1e11]})
    assert loss[0] >= loss[1] >= loss[2] >= e * (1 - 1e-12)


def test_interaction_counts_without_embedding_and_head() -> None:
    assert get_law("interaction").default_counting == "no_embedding_and_head"
    assert get_law("params_tokens").default_counting == "total"


def test_unknown_laws_and_parameters_are_named() -> None:
    with pytest.raises(UserError, match="params_tokens"):
        get_law("chinchila")
    law = get_law("params_tokens")
    with pytest.raises(UserError, match=r"missing.*beta"):
        law.theta({"A": 1.0, "B": 1.0, "alpha": 0.3, "E": 1.0})
    with pytest.raises(UserError, match="allowed values are numbers from 0"):
        law.theta({"A": -1.0, "B": 1.0, "alpha": 0.3, "beta": 0.3, "E": 1.0})
    with pytest.raises(UserError, match=r"missing.*tokens"):
        law.predict(NATURAL["params_tokens"], {"params": [1e9]})
    with pytest.raises(UserError, match="alpha_N is a product"):
        get_law("kaplan").constraint("alpha_N", 0.1)
    with pytest.raises(UserError, match="registered already"):
        register(law)


def test_a_law_of_ones_own_is_registered_and_found() -> None:
    own = SumLaw("test_depth_only", "L = A/depth^alpha + E", "test", (Term("A", falls={"depth": "alpha"}),))
    try:
        assert get_law(register(own).name) is own
        assert own.predictors == ("depth",)
    finally:
        del LAWS["test_depth_only"]


def test_kaplan_refuses_impossible_parameters() -> None:
    law = get_law("kaplan")
    assert isinstance(law, KaplanLaw)
    with pytest.raises(UserError, match="alpha_D"):
        law.theta({"N_c": 1.0, "D_c": 1.0, "alpha_N": 0.1, "alpha_D": 0.0})
