"""The step-and-batch law against bisection by scipy, its definition and finite differences; the rate by the batch."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from shapelaw.errors import UserError
from shapelaw.step_batch.converged import regress
from shapelaw.step_batch.law import STEPS_BATCH, STEPS_BATCH_E, StepsBatchLaw

KNOWN = {"N_c": 8.8e13, "alpha_N": 0.076, "S_c": 2.1e3, "alpha_S": 0.76, "B_star": 2.1e8, "alpha_B": 0.21, "E": 0.4}
LAWS = (STEPS_BATCH, STEPS_BATCH_E)


def sizes(n: int = 200) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    batch = 10 ** rng.uniform(2, 7, n)
    return {
        "params": 10 ** rng.uniform(4, 9, n),
        "batch_tokens": batch,
        "tokens": batch * 10 ** rng.uniform(1, 6, n),
    }


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_root_is_scipys(law: StepsBatchLaw) -> None:
    columns = sizes()
    floor = (KNOWN["N_c"] / columns["params"]) ** KNOWN["alpha_N"] + (KNOWN["E"] if law.irreducible else 0)
    for i, loss in enumerate(law.predict(KNOWN, columns)):
        batch, steps = columns["batch_tokens"][i], columns["tokens"][i] / columns["batch_tokens"][i]

        def gap(x: float, batch: float = batch, steps: float = steps, low: float = floor[i]) -> float:
            excess = 1 + KNOWN["B_star"] / (batch * x ** (1 / KNOWN["alpha_B"]))
            return low + (KNOWN["S_c"] / steps * excess) ** KNOWN["alpha_S"] - x

        assert loss == pytest.approx(brentq(gap, floor[i], 1e9, xtol=1e-14, rtol=1e-14), rel=1e-12)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_jacobian_is_that_of_finite_differences(law: StepsBatchLaw) -> None:
    columns = sizes()
    theta = law.theta(KNOWN)
    exact = law.jacobian(theta, columns)
    for i in range(len(theta)):
        step = np.zeros_like(theta)
        step[i] = 1e-4 * max(abs(theta[i]), 0.05)
        near, far = (
            law.log_prediction(theta + k * step, columns) - law.log_prediction(theta - k * step, columns)
            for k in (1, 2)
        )
        found = (8 * near - far) / (12 * step[i])
        np.testing.assert_allclose(exact[:, i], found, rtol=1e-7, atol=1e-7)


def test_trade_off_is_a_hyperbola_and_halves_at_the_critical_batch() -> None:
    law = STEPS_BATCH
    loss, params = 4.0, 1e8
    critical = float(law.critical_batch(KNOWN, loss))
    batches = critical * np.array([0.01, 0.3, 1.0, 7.0])
    steps = law.steps_to(KNOWN, params, loss, batches)
    steps_min = law.steps_min_to(KNOWN, params, loss)
    np.testing.assert_allclose((steps / steps_min - 1) * (steps * batches / (critical * steps_min) - 1), 1, rtol=1e-12)
    assert steps[2] == pytest.approx(2 * steps_min, rel=1e-12)
    back = law.predict(KNOWN, {"params": np.full(4, params), "tokens": steps * batches, "batch_tokens": batches})
    np.testing.assert_allclose(back, loss, rtol=1e-12)


def test_target_below_the_converged_loss_is_refused_with_the_range() -> None:
    law = STEPS_BATCH
    floor = float(law.converged_loss(KNOWN, 1e8))
    with pytest.raises(UserError, match=f"between {floor:.4f}"):
        law.steps_min_to(KNOWN, 1e8, 0.9 * floor)


@pytest.mark.parametrize("alpha", [1e-5, 0.3, 1.5, 9.0])
@pytest.mark.parametrize("irreducible", [0.0, 1.4])
def test_a_size_law_is_found_however_steep_or_flat_it_is(alpha: float, irreducible: float) -> None:
    """Floors that are extrapolated far below the losses fall as steeply as N^-1.5; the search starts within its bounds."""
    params = np.array([1.2e6, 2.5e6, 4.9e6, 9.8e6, 1.8e7, 3.1e7])
    floors = (1.0e6 / params) ** alpha + irreducible
    found = regress(params, floors, np.ones(6), irreducible=True)
    assert found is not None
    np.testing.assert_allclose(np.exp(found.log_floor_at(np.log(params))), floors, rtol=1e-3)
