"""Compiled kernels against finite differences, numpy and an independent objective."""

from __future__ import annotations

import numpy as np
import pytest

from shapelaw.fitting import kernels
from shapelaw.fitting.newton import Compiled
from shapelaw.fitting.objective import Problem
from shapelaw.laws import LAWS, SumLaw, get_law

NAMES = tuple(name for name, law in LAWS.items() if isinstance(law, SumLaw))


def compiled(name: str, delta: float, points: int = 300) -> Compiled:
    rng = np.random.default_rng(1)
    width, depth = 128.0 * rng.integers(2, 25, points), rng.integers(3, 80, points).astype(float)
    params, tokens = 12 * width**2 * depth, 1e10 * rng.integers(1, 35, points)
    columns = {"width": width, "depth": depth, "params": params, "tokens": tokens, "flops": 6 * params * tokens}
    weights = rng.integers(1, 4, points).astype(float)
    return Compiled.of(Problem.of(get_law(name), columns, np.exp(rng.normal(1.0, 0.1, points)), delta, weights))


def random_phi(made: Compiled, rng: np.random.Generator) -> np.ndarray:
    law, terms, exponents = made.law, len(made.law.terms), len(made.data.owner)
    extras = ([0.4] if law.power else []) + ([-1.5, 3.5] if law.aspect else [])
    return np.concatenate(
        [rng.uniform(-1.5, 0, terms), rng.uniform(0.1, 0.5, exponents), extras, [rng.uniform(-1, 0.5)]]
    )


@pytest.mark.parametrize("delta", [1e9, 3e-2])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_and_hessian_are_derivatives(name: str, delta: float) -> None:
    """Central differences of fourth order; no residual changes sides of delta within them."""
    made = compiled(name, delta)
    phi = random_phi(made, np.random.default_rng(2))
    _, g, hessian, _ = kernels.evaluate(phi, made.data, delta)
    slopes, bends = np.empty_like(g), np.empty_like(hessian)
    h = 1e-5
    for k in range(len(phi)):
        parts = [kernels.evaluate(phi + m * h * np.eye(len(phi))[k], made.data, delta)[:2] for m in (-2, -1, 1, 2)]
        slopes[k], bends[k] = (
            (parts[0][i] - 8 * parts[1][i] + 8 * parts[2][i] - parts[3][i]) / (12 * h) for i in (0, 1)
        )
    assert np.abs(slopes - g).max() <= 1e-7 * np.abs(g).max()
    assert np.abs(bends - hessian).max() <= 1e-7 * np.abs(hessian).max()


@pytest.mark.parametrize("name", NAMES)
def test_objective_and_gradient_match_the_law_itself(name: str) -> None:
    """The kernel's value and M against the law's own prediction and Jacobian in numpy."""
    made = compiled(name, 1e-2)
    phi = random_phi(made, np.random.default_rng(3))
    theta = made.theta(phi[None])[0]
    if made.law.irreducible is None:
        phi[-1] = -60.0
    value, g, _, gauss = kernels.evaluate(phi, made.data, 1e-2)
    problem = made.problem
    assert value == pytest.approx(problem.value(theta), rel=1e-12)
    residual = problem.residuals(theta)
    psi = np.clip(residual, -1e-2, 1e-2) * problem.weights
    jacobian = made.law.jacobian(theta, problem.columns) @ np.linalg.inv(made.to_phi[: len(theta)])
    p = len(theta)
    np.testing.assert_allclose(g[:p], -jacobian.T @ psi, rtol=1e-9, atol=1e-12 * np.abs(g).max())
    damp = problem.weights * np.minimum(1.0, 1e-2 / np.abs(residual))
    np.testing.assert_allclose(
        gauss[:p, :p], (jacobian * damp[:, None]).T @ jacobian, rtol=1e-8, atol=1e-12 * gauss.max()
    )


def test_logarithm_is_exact_to_the_last_place() -> None:
    rng = np.random.default_rng(0)
    x = np.exp(np.concatenate([rng.uniform(-300, 300, 128), rng.uniform(-0.01, 0.01, 128)]))
    out = np.empty(256)
    kernels.log_block(x, out, 256)
    assert (np.abs(out - np.log(x)) <= 1.5 * np.spacing(np.abs(np.log(x)))).all()


def test_exponential_is_exact_to_the_last_place() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-700, 700, 126), rng.uniform(-0.01, 0.01, 128), [0.0, -300.0]])
    expected, out = np.exp(x), np.empty(256)
    kernels.exp_block(x, out, 256)
    assert (np.abs(out - expected) <= 1.5 * np.spacing(expected)).all()


def test_theta_and_phi_are_inverse() -> None:
    for name in NAMES:
        made = compiled(name, 1e-3)
        thetas = np.random.default_rng(5).uniform(0.1, 2, (4, len(made.law.parameters)))
        np.testing.assert_allclose(made.theta(made.phi(thetas)), thetas, rtol=1e-12)
