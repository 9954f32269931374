"""All evaluations of a law agree: the law itself, the compiled, torch and general solvers, the prescriptions' surface and the
report page's own code, on random parameters, for every registered law and for random sums of powers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shapelaw.report
from arrays import solve
from shapelaw.fitting import kernels
from shapelaw.fitting.general import GeneralNewton
from shapelaw.fitting.newton import Compiled, Newton
from shapelaw.fitting.newton_torch import NewtonTorch, _Batch
from shapelaw.fitting.objective import Problem
from shapelaw.fitting.solvers import SOLVERS
from shapelaw.laws import Law, SumLaw, Term, get_law, law_names
from shapelaw.prescribe.surface import Surface
from shapelaw.prescribe.world import Points
from shapelaw.report.calculator import form_of, packed
from test_laws import falls_before

POINTS = 40
PREDICTORS = ("width", "depth", "params", "tokens")
SUMS = [name for name in law_names() if isinstance(get_law(name), SumLaw)]
OTHERS = {
    "accuracy_exponential": {"epsilon": 0.86, "k": 2.4, "gamma": 0.71},
    "accuracy_sigmoid": {"low": 0.12, "span": 0.63, "k": 2.3, "L_0": 2.9},
    "accuracy_direct": {"A": 30.0, "B": 300.0, "alpha": 0.25, "beta": 0.3},
    "annealing": {"A": 0.63, "C": 0.4, "alpha": 0.65, "E": 2.9},
    "multi_power": {"A": 0.63, "B": 400.0, "C": 0.3, "alpha": 0.5, "beta": 0.6, "gamma": 0.5, "E": 2.9},
    "data_constrained": {"A": 521.0, "B": 1488.0, "alpha": 0.353, "beta": 0.353, "r_T": 15.4, "r_N": 5.3, "E": 1.87},
    "overfitting": {
        "A": 480.0,
        "B": 2100.0,
        "P": 0.02,
        "alpha": 0.35,
        "beta": 0.37,
        "delta": 1.2,
        "kappa": 0.4,
        "E": 1.8,
    },
    "steps_batch": {"N_c": 6e7, "alpha_N": 0.06, "S_c": 50.0, "alpha_S": 0.6, "B_star": 6e4, "alpha_B": 0.25},
    "steps_batch_e": {
        "N_c": 6e7,
        "alpha_N": 0.06,
        "S_c": 50.0,
        "alpha_S": 0.6,
        "B_star": 6e4,
        "alpha_B": 0.25,
        "E": 0.5,
    },
}
"""Parameters near which the laws that are no sums are evaluated."""


def test_every_registered_law_is_compared() -> None:
    assert sorted(law_names()) == sorted([*SUMS, *OTHERS])


def columns_of(seed: int) -> dict[str, np.ndarray]:
    """Shapes and tokens, some of them twice, as rows of one run are."""
    rng = np.random.default_rng(seed)
    width, depth = 128.0 * rng.integers(2, 25, POINTS), rng.integers(3, 80, POINTS).astype(float)
    params, tokens = 12 * width**2 * depth, 1e10 * rng.integers(1, 35, POINTS)
    sizes = {"width": width, "depth": depth, "params": params, "tokens": tokens, "flops": 6 * params * tokens}
    sizes |= {"unique_tokens": tokens / rng.choice([0.5, 1.0, 4.0, 20.0], POINTS)}
    sizes |= {"lr_area": tokens / 1e11, "lr_annealed": rng.choice([0.0, 0.2, 0.6], POINTS)}
    sizes |= {"lr_falls": falls_before(POINTS)}
    return sizes | {"loss": rng.uniform(2.0, 4.0, POINTS), "batch_tokens": 2.0 ** rng.integers(9, 20, POINTS)}


def problem_of(law: Law, seed: int, delta: float) -> Problem:
    rng = np.random.default_rng(seed + 1)
    measured, weights = np.exp(rng.normal(1.0, 0.1, POINTS)), rng.integers(1, 4, POINTS).astype(float)
    columns = columns_of(seed)
    return Problem.of(law, {name: columns[name] for name in law.predictors}, measured, delta, weights)


def in_words(law: SumLaw, parameters: dict[str, float], columns: dict[str, np.ndarray]) -> np.ndarray:
    """The formula of a sum law from its declaration and named natural parameters, read independently of theta's order."""
    total = np.zeros(POINTS)
    for term in law.terms:
        value = np.full(POINTS, parameters[term.coefficient])
        for predictor, name in term.falls.items():
            value = value / columns[predictor] ** parameters[name]
        for predictor, name in term.grows.items():
            value = value * columns[predictor] ** parameters[name]
        for predictor, power in term.fixed.items():
            value = value * columns[predictor] ** power
        total = total + value
    if law.power:
        total = total ** parameters[law.power]
    if law.aspect:
        kappa, mu = (parameters[name] for name in law.aspect)
        total = total * (1 + kappa**2 * (np.log(columns["width"] / columns["depth"]) - mu) ** 2)
    return total + (parameters[law.irreducible] if law.irreducible else 0.0)


def theta_of(law: SumLaw, made: Compiled, rng: np.random.Generator) -> np.ndarray:
    """Random parameters of which no term is lost beside the others."""
    terms, exponents = len(law.terms), len(made.data.owner)
    power = [rng.uniform(0.2, 0.9)] if law.power else []
    aspect = [rng.uniform(-2.5, -1.0), rng.uniform(2.5, 4.5)] if law.aspect else []
    inner = [*rng.uniform(-1.5, 0, terms), *rng.uniform(0.1, 0.5, exponents)]
    return made.theta(np.array([*inner, *power, *aspect, rng.uniform(-1, 0.5)])[None])[0]


def derivative(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """Central differences of fourth order, one row an entry."""
    rows = []
    for step in h * np.eye(len(at)):
        near, far = function(at + step) - function(at - step), function(at + 2 * step) - function(at - 2 * step)
        rows.append((8 * near - far) / (12 * h))
    return np.array(rows)


def close(found: np.ndarray, expected: np.ndarray, share: float) -> bool:
    """Whether the largest difference is below a share of the largest entry."""
    return bool(np.abs(found - expected).max() <= share * max(np.abs(expected).max(), 1e-300))


@pytest.fixture(scope="module")
def page() -> Iterator[Callable[[SumLaw, np.ndarray, dict[str, np.ndarray]], np.ndarray]]:
    """Losses by page.js itself, in one process of node."""
    node = shutil.which("node")
    if node is None:
        reason = "no node (Debian: apt-get install nodejs)"
        if os.environ.get("SHAPELAW_REQUIRE_BROWSER") == "1":
            pytest.fail(f"SHAPELAW_REQUIRE_BROWSER=1, but there is {reason}")
        pytest.skip(reason)
    script = Path(__file__).with_name("page_numbers.js")
    page_js = Path(str(shapelaw.report.__file__)).with_name("page.js")
    with subprocess.Popen([node, script, page_js], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:

        def losses(law: SumLaw, theta: np.ndarray, columns: dict[str, np.ndarray]) -> np.ndarray:
            shapes = {name: packed(columns[name]) for name in ("width", "depth", "params")}
            data = {
                "form": form_of(law),
                "thetas": packed(theta),
                "counted": shapes["params"],
                "flops": shapes["params"],
            }
            asked = {"data": {**data, **shapes}, "logTokens": np.log(columns["tokens"]).tolist()}
            assert running.stdin is not None
            assert running.stdout is not None
            running.stdin.write(json.dumps(asked) + "\n")
            running.stdin.flush()
            return np.array(json.loads(running.stdout.readline()), dtype=float)

        yield losses
        assert running.stdin is not None
        running.stdin.close()


def compare(law: SumLaw, seed: int, page: Callable[[SumLaw, np.ndarray, dict[str, np.ndarray]], np.ndarray]) -> None:
    """Every evaluation of a sum law against its formula in words and against finite differences."""
    delta, columns = 1e-2, columns_of(seed)
    problem = problem_of(law, seed, delta)
    newton = Newton(problem)
    made, rng = newton.compiled, np.random.default_rng(seed + 2)
    theta = theta_of(law, made, rng)
    expected = np.exp(law.log_prediction(theta, columns))
    natural = law.natural(theta)
    np.testing.assert_allclose(law.predict(natural, columns), expected, rtol=1e-9)
    if type(law) is SumLaw:
        np.testing.assert_allclose(in_words(law, natural, columns), expected, rtol=1e-9)

    def log_prediction(at: np.ndarray) -> np.ndarray:
        return law.log_prediction(at, columns)

    assert close(law.jacobian(theta, columns), derivative(log_prediction, theta).T, 1e-7)

    phi = made.phi(theta[None])[0]
    value, g, hessian, gauss = kernels.evaluate(phi, made.data, delta)
    assert value == pytest.approx(problem.value(theta), rel=1e-10)
    assert SOLVERS["reference"].search(problem).value(theta) == pytest.approx(value, rel=1e-9)
    smooth = 1e9  # no residual changes sides of it within a difference
    _, g_smooth, hessian_smooth, _ = kernels.evaluate(phi, made.data, smooth)
    assert close(derivative(lambda at: np.array(kernels.evaluate(at, made.data, smooth)[0]), phi), g_smooth, 1e-7)
    assert close(derivative(lambda at: kernels.evaluate(at, made.data, smooth)[1], phi), hessian_smooth, 1e-7)

    torch = pytest.importorskip("torch")
    batch = _Batch(NewtonTorch(problem), made.data, "cpu")
    tensors = [found.numpy()[0] for found in batch.evaluate(torch.tensor(phi[None]), delta)]
    for found, own in zip(tensors, (np.array(value), g, hessian, gauss), strict=True):
        np.testing.assert_allclose(found, own, rtol=1e-9, atol=1e-12 * np.abs(gauss).max())

    if set(law.predictors) <= set(PREDICTORS):
        points = Points(*(columns[name] for name in ("width", "depth", "params", "params", "params", "params")))
        surface = Surface(law, theta[None]).at(points)
        np.testing.assert_allclose(surface.loss(np.log(columns["tokens"]))[0], expected, rtol=1e-10)
        np.testing.assert_allclose(page(law, theta, columns), expected, rtol=1e-10)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SUMS)
def test_every_evaluation_of_a_registered_sum_law_is_its_formula(name: str, seed: int, page: object) -> None:
    law = get_law(name)
    assert isinstance(law, SumLaw)
    compare(law, seed, page)  # type: ignore[arg-type]


@st.composite
def sum_laws(draw: st.DrawFn) -> SumLaw:
    """Sums of one to three terms of one to three predictors, with a power, an aspect factor, both or neither."""
    terms, names = [], iter("abcdefghi")
    for k in range(draw(st.integers(1, 3))):
        reads = draw(st.lists(st.sampled_from(PREDICTORS), min_size=1, max_size=3, unique=True))
        ways = [draw(st.sampled_from(("falls", "falls", "grows", "fixed"))) for _ in reads]
        ways[0] = "falls" if "falls" not in ways else ways[0]
        parts: dict[str, dict[str, object]] = {"falls": {}, "grows": {}, "fixed": {}}
        for predictor, way in zip(reads, ways, strict=True):
            parts[way][predictor] = draw(st.sampled_from((-0.5, 0.25))) if way == "fixed" else next(names)
        terms.append(Term(f"C{k}", **parts))  # type: ignore[arg-type]
    irreducible, power, aspect = (draw(st.booleans()) for _ in range(3))
    return SumLaw(
        "random", "random", "this test", tuple(terms),
        "E" if irreducible else None, "rho" if power else None, ("kappa", "mu") if aspect else None,
    )  # fmt: skip


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(law=sum_laws(), seed=st.integers(0, 10_000))
def test_every_evaluation_of_a_random_sum_law_is_its_formula(page: object, law: SumLaw, seed: int) -> None:
    compare(law, seed, page)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", law_names())
def test_the_general_solver_sees_the_law_s_own_derivatives(name: str, seed: int) -> None:
    law = get_law(name)
    problem, rng = problem_of(law, seed, 1e9), np.random.default_rng(seed + 3)
    if isinstance(law, SumLaw):
        theta = theta_of(law, Compiled.of(problem), rng)
    else:
        theta = law.theta(OTHERS[name])
        theta = theta * (1 + 0.05 * rng.uniform(-1, 1, len(theta)))
    solver, columns = GeneralNewton(problem), problem.columns
    assert close(law.jacobian(theta, columns), derivative(lambda at: law.log_prediction(at, columns), theta).T, 1e-7)
    g, hessian, _ = solver._derivatives(theta, problem)
    linear = np.diag(np.where(solver.linear, g, 0.0))
    assert close(derivative(lambda at: np.array(problem.value(at)), theta), g, 1e-7)
    curvature = derivative(lambda at: solver._derivatives(at, problem)[0], theta)
    assert close(curvature, hessian + linear, 1e-3)  # it takes forward differences of 1e-5


TRUTH = {"A": 4e3, "B": 1e6, "alpha": 0.5, "beta": 0.7, "rho": 0.5, "kappa": 0.2, "mu": 3.5, "E": 1.5}


@pytest.mark.parametrize("name", ["params_tokens_aspect", "skaling", "skaling_aspect"])
def test_laws_with_a_power_or_an_aspect_factor_are_recovered(name: str) -> None:
    """Every factor acts, as the formula says, and what is held out is predicted."""
    law, rng = get_law(name), np.random.default_rng(0)
    truth = {one: TRUTH[one] for one in law.parameters}
    width, depth = 128.0 * rng.integers(2, 25, 300), rng.integers(3, 80, 300).astype(float)
    params, tokens = 12 * width**2 * depth, np.exp(rng.uniform(np.log(2e9), np.log(3.5e11), 300))
    columns = {"width": width, "depth": depth, "params": params, "tokens": tokens}
    loss = law.predict(truth, columns)
    early = np.arange(300) < 200
    found = solve(law, {one: columns[one][early] for one in law.predictors}, loss[early])
    assert law.natural(found.theta) == pytest.approx(truth, rel=1e-4)
    np.testing.assert_allclose(np.exp(law.log_prediction(found.theta, columns)), loss, rtol=1e-8)
