"""Overestimates that cost more than underestimates: one objective in every solver, refit, profile, criterion and file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from test_fixed import frame
from test_formulas import derivative
from test_kernels import compiled, random_phi

from arrays import solve
from shapelaw import RunsTable, UserError, fit, load_fit
from shapelaw.config import FitConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.fitting import kernels
from shapelaw.fitting.general import GeneralNewton
from shapelaw.fitting.newton_torch import NewtonTorch, _Batch
from shapelaw.fitting.objective import huber, objective
from shapelaw.fitting.residuals import _log_normaliser
from shapelaw.fitting.solve import Status
from shapelaw.fitting.solvers import SOLVERS
from shapelaw.fitting.spec import spec_of
from shapelaw.laws import Columns, Law, get_law
from shapelaw.prescribe.next_run import _spec
from shapelaw.verbs.fit import folder_of, make_fit, table_of
from support import Compose

EQ1 = get_law("params_tokens")
COLUMNS = {name: frame()[name].to_numpy() for name in ("params", "tokens")}
LOG_PARAMS, LOG_TOKENS, LOG_LOSS = (np.log(frame()[name].to_numpy()) for name in ("params", "tokens", "loss"))


class Own(Law):
    """Eq 1, known through its prediction alone."""

    name, formula, source = "own", "L = A/params^alpha + B/tokens^beta + E", "this test"
    predictors, parameters, irreducible = ("params", "tokens"), ("A", "B", "alpha", "beta", "E"), "E"
    log_parameters = frozenset({"A", "B", "E"})

    def log_prediction(self, theta: np.ndarray, columns: Columns) -> np.ndarray:
        sizes = np.asarray(columns["params"]) ** -theta[2], np.asarray(columns["tokens"]) ** -theta[3]
        return np.log(np.exp(theta[0]) * sizes[0] + np.exp(theta[1]) * sizes[1] + np.exp(theta[4]))


def written_out(theta: np.ndarray, delta: float, over_cost: float) -> float:
    """The objective as the documentation has it."""
    predicted = np.exp(theta[0] - theta[2] * LOG_PARAMS) + np.exp(theta[1] - theta[3] * LOG_TOKENS) + np.exp(theta[4])
    size = np.abs(LOG_LOSS - np.log(predicted))
    each = np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))
    return float(np.sum(np.where(np.log(predicted) > LOG_LOSS, over_cost, 1.0) * each))


@pytest.mark.parametrize("delta", [1e9, 3e-2])
@pytest.mark.parametrize("name", ["params_tokens", "skaling_aspect"])
def test_gradient_and_hessian_are_derivatives_in_every_solver(name: str, delta: float) -> None:
    made = compiled(name, delta)
    problem = dataclasses.replace(made.problem, over_cost=4.0)
    data, phi = made.data._replace(over_cost=4.0), random_phi(made, np.random.default_rng(4))
    theta = made.theta(phi[None])[0]
    assert np.abs(problem.residuals(theta)).min() > 1e-4  # none changes sides within a difference
    value, g, hessian, gauss = kernels.evaluate(phi, data, delta)
    assert value == pytest.approx(problem.value(theta), rel=1e-12)
    slopes = derivative(lambda at: np.array(kernels.evaluate(at, data, delta)[0]), phi)
    bends = derivative(lambda at: kernels.evaluate(at, data, delta)[1], phi)
    np.testing.assert_allclose(slopes, g, rtol=0, atol=1e-7 * np.abs(g).max())
    np.testing.assert_allclose(bends, hessian, rtol=0, atol=1e-7 * np.abs(hessian).max())
    torch = pytest.importorskip("torch")
    batch = _Batch(NewtonTorch(problem), data, "cpu")
    for found, own in zip(batch.evaluate(torch.tensor(phi[None]), delta), (value, g, hessian, gauss), strict=True):
        np.testing.assert_allclose(found.numpy()[0], own, rtol=1e-9, atol=1e-12 * np.abs(gauss).max())
    if delta < 1:  # the law's own vector is not centred, so that residuals change sides of delta within a difference
        return
    general = GeneralNewton(problem)
    g, hessian, _ = general._derivatives(theta, problem)
    slopes = derivative(lambda at: np.array(problem.value(at)), theta)
    bends = derivative(lambda at: general._derivatives(at, problem)[0], theta) - np.diag(np.where(general.linear, g, 0))
    np.testing.assert_allclose(slopes, g, rtol=0, atol=1e-7 * np.abs(g).max())
    np.testing.assert_allclose(bends, hessian, rtol=0, atol=1e-4 * np.abs(hessian).max())


@pytest.mark.parametrize(("delta", "over_cost"), [(1e-3, 0.2), (1.0, 8.0)])
def test_every_solver_and_scipy_find_the_same_optimum(delta: float, over_cost: float) -> None:
    asked = {"delta": delta, "over_cost": over_cost, "grid_size": 4}
    found = {name: solve(EQ1, COLUMNS, frame().loss, solver=name, **asked) for name in ("newton", "newton_torch")}
    found["general"] = solve(Own(), COLUMNS, frame().loss, **asked)
    theta, least = found["newton"].theta, found["newton"].objective
    assert written_out(theta, delta, over_cost) == pytest.approx(least, rel=1e-9)
    for name, solution in found.items():
        assert solution.objective == pytest.approx(least, rel=1e-9), name
        assert solution.status is Status.converged
    options = {"maxiter": 9000, "maxfev": 9000, "xatol": 1e-9, "fatol": 1e-18}
    scipys = minimize(written_out, theta * 1.003, (delta, over_cost), method="Nelder-Mead", options=options)
    assert least * (1 - 1e-9) <= scipys.fun <= least * 1.001


def test_the_authors_solver_minimises_the_same_objective() -> None:
    made = compiled("params_tokens", 1e-2)
    problem = dataclasses.replace(made.problem, over_cost=5.0)
    theta = made.theta(random_phi(made, np.random.default_rng(3))[None])[0]
    assert SOLVERS["reference"].search(problem).value(theta) == pytest.approx(problem.value(theta), rel=1e-12)


def test_a_cost_of_1_is_no_cost_to_the_last_bit() -> None:
    for delta in (1e-3, 1.0):
        plain, one = (fit(frame(), EQ1, delta=delta, **given) for given in ({}, {"over_cost": 1.0}))
        assert (plain.theta, plain.objective) == (one.theta, one.objective)
        each = huber(np.log(frame().loss) - EQ1.log_prediction(plain.vector, COLUMNS), delta)
        assert objective(EQ1, plain.vector, COLUMNS, frame().loss, delta) == float(np.sum(each))
        assert "over_cost" not in plain.settings


def spoilt() -> RunsTable:
    """A known law of which every other run is up to 10% worse."""
    rows = frame()
    clean = 1.8 + 410 * rows.params**-0.34 + 1200 * rows.tokens**-0.35
    worse = np.abs(np.random.default_rng(5).normal(0, 0.05, 30)) * (np.arange(30) % 2)
    return RunsTable(rows.assign(loss=clean * np.exp(worse)))


def test_dear_overestimates_draw_the_law_below_noise_that_lies_on_one_side() -> None:
    table, clean = spoilt(), 1.8 + 410 * COLUMNS["params"] ** -0.34 + 1200 * COLUMNS["tokens"] ** -0.35

    def high(over_cost: float) -> float:
        return float(np.mean(np.log(fit(table, EQ1, delta=0.1, over_cost=over_cost).predict(COLUMNS) / clean)))

    dear, even, cheap = high(50.0), high(1.0), high(0.02)
    assert cheap > even > dear
    assert even > 0.01
    assert abs(dear) < even / 3


def test_refits_profiles_and_holdouts_keep_the_cost() -> None:
    asked = {"delta": 0.1, "over_cost": 20.0, "bootstrap": {"n": 20}}
    result = fit(spoilt(), EQ1, profile=True, holdouts=["largest"], **asked)
    even = fit(spoilt(), EQ1, profile=True, holdouts=["largest"], **{**asked, "over_cost": 1.0})

    def highest(thetas: np.ndarray) -> np.ndarray:
        return np.array([EQ1.log_prediction(theta, COLUMNS).mean() for theta in thetas])

    assert highest(result.vectors).max() < highest(even.vectors).mean()
    assert min(result.profiles["E"]["objectives"]) >= result.objective * (1 - 1e-9)
    signed = [one.checklist["held_out"][0]["mean_signed"] for one in (result, even)]
    assert signed[0] < signed[1]


def test_the_likelihood_of_the_criteria_has_two_sides() -> None:
    for delta, scale, over_cost in [(1e-3, 1e-6, 7.0), (0.5, 0.1, 0.1)]:
        sides = [
            quad(lambda u, c=cost, d=delta, s=scale: np.exp(-c * huber(u * s / d, d) / s) * s / d, 0, np.inf)[0]
            for cost in (1.0, over_cost)
        ]
        assert np.exp(_log_normaliser(np.log(scale), delta, over_cost)) == pytest.approx(sum(sides), rel=1e-6)


def test_the_cost_is_saved_and_refitted_by(tmp_path: Path) -> None:
    table = spoilt()
    result = fit(table, EQ1, delta=0.1, over_cost=20.0)
    again = load_fit(result.save(tmp_path, table))
    assert again.settings["over_cost"] == again.checklist["objective"]["over_cost"] == 20.0
    assert "times 20 where predicted > measured" in again.checklist["objective"]["kind"]
    assert "overestimates at 20 times the cost" in again.summary()
    assert "comparable only at equal rows and delta, and over_cost" in again.summary()
    assert spec_of(again).over_cost == 20.0
    refitted = fit(RunsTable.read(tmp_path / "runs.parquet"), _spec(again))
    assert (refitted.theta, refitted.objective) == (result.theta, result.objective)


def test_the_command_line_takes_it_and_folders_without_it_stay(composed: Compose, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    frame().to_csv(path, index=False)

    def asked(*given: str) -> FitConfig:
        config = composed("runs=csv", f"runs.path={path}", "law=params_tokens", "bootstrap=none", *given, name="fit")
        return to_dataclass(config)

    plain, one, dear = asked(), asked("over_cost=1.0"), asked("over_cost=10")
    runs = table_of(plain)
    assert folder_of(plain, runs) == folder_of(one, runs) != folder_of(dear, runs)
    assert make_fit(dear, runs).settings["over_cost"] == 10.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"over_cost": 0.0}, "over_cost=0: allowed values are numbers from 0.001 to 1000; 1 weighs both equally"),
        ({"over_cost": -2.0}, "over_cost=-2: allowed"),
        ({"over_cost": float("nan")}, "over_cost=nan: allowed"),
        (
            {"over_cost": 10.0, "method": "isoflop"},
            "over_cost=10: method=isoflop does not take it; give method=parametric",
        ),
        ({"over_cost": 10.0, "method": "hull"}, "over_cost=10: method=hull does not take it"),
        ({"over_cost": 0.5, "method": "staged", "law": "steps_batch"}, "over_cost=0.5: method=staged does not take it"),
    ],
)
def test_what_is_no_cost_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(frame(), **options)  # type: ignore[arg-type]
