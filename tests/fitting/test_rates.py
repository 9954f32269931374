"""Best rates: known parabolas, SciPy's fit of them, coverage of the interval, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import curve_fit

from shapelaw.errors import UserError
from shapelaw.fitting.rates import best_rate, best_rates, spread
from shapelaw.lr_rules import NO_PATCH, lr_eff
from shapelaw.shapes import Shape

RATES = np.array([0.625, 1.25, 2.5, 5.0, 10.0, 20.0])


def bowl(rates: np.ndarray, best: float, depth: float = 0.05, bottom: float = 2.0) -> np.ndarray:
    return bottom + depth * np.log(rates / best) ** 2


@pytest.mark.parametrize("best", [1.4, 3.3, 5.0, 9.0])
def test_a_parabola_s_minimum_is_found_exactly(best: float) -> None:
    found = best_rate(RATES, bowl(RATES, best))
    assert found.rate == pytest.approx(best, rel=1e-9)
    assert found.loss == pytest.approx(2.0, rel=1e-12)
    assert found.curvature == pytest.approx(0.1, rel=1e-9)
    assert found.high / found.low == pytest.approx(1.0, abs=1e-6)


def test_value_and_error_are_scipy_s() -> None:
    """The same parabola written by its vertex, whose standard error curve_fit gives at once."""
    x = np.log(RATES[:-1])
    losses = bowl(RATES, 3.0) + np.array([0, 0.003, -0.002, 0.004, -0.001, 0])
    found = best_rate(RATES, losses)
    popt, pcov = curve_fit(lambda x, v, a, c: c + a * (x - v) ** 2, x, losses[:-1], p0=[1.0, 0.05, 2.0])
    assert found.points == 5  # the lowest is at 2.5; two steps of two either way
    assert np.log(found.rate) == pytest.approx(popt[0], abs=1e-6)
    t = 2.919986  # Student's, 2 degrees of freedom, 95%
    assert np.log(found.high / found.rate) == pytest.approx(t * np.sqrt(pcov[0, 0]), rel=1e-4)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """400 noisy bowls: 90% intervals hold the truth in 90% of them, to four standard errors."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        found = best_rate(RATES, bowl(RATES, 3.6) + 0.002 * generator.standard_normal(6))
        held += found.low <= 3.6 <= found.high
    assert held / 400 == pytest.approx(0.9, abs=0.06)


def test_coarse_rates_use_the_neighbours_of_the_lowest() -> None:
    """Of rates a factor of 10 apart, further than the reach, the three about the minimum give the parabola's own."""
    rates = np.array([0.01, 0.1, 1.0, 10.0])
    found = best_rate(rates, bowl(rates, 0.17))
    assert (found.rate, found.points) == (pytest.approx(0.17), 3)


def test_three_points_have_no_interval() -> None:
    found = best_rate([1, 2, 4], bowl(np.array([1.0, 2, 4]), 2.2))
    assert found.rate == pytest.approx(2.2)
    assert np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize(
    ("rates", "losses", "words"),
    [
        (RATES, bowl(RATES, 40.0), r"at the highest rate tried \(20\).*try higher"),
        (RATES, bowl(RATES, 0.3), r"at the lowest rate tried \(0.625\).*try lower"),
        ([1.0, 2.0, 4.0], [2.0, np.inf, np.nan], "1 rates with a finite loss"),
        ([0.0, 2.0, 4.0], [2.0, 1.0, 2.0], "above 0"),
    ],
)
def test_what_is_refused(rates: np.ndarray, losses: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=words):
        best_rate(rates, losses)


def test_a_rule_that_holds_makes_the_spread_vanish() -> None:
    """Four shapes whose best lr_base is 4: the best rates themselves lie as far apart as width x sqrt(depth)."""
    shapes = pd.DataFrame({"width": [32, 32, 128, 256], "depth": [2, 16, 1, 1]})
    frame = shapes.merge(pd.DataFrame({"lr_base": RATES}), how="cross")
    frame["loss"] = bowl(frame["lr_base"].to_numpy(), 4.0)
    scales = [lr_eff(1.0, Shape(w, d, 16), width_unit=8.0, patch=NO_PATCH) for w, d in frame[["width", "depth"]].values]
    frame["lr_eff"] = frame["lr_base"] * scales
    ruled, plain = spread(best_rates(frame, "lr_base")), spread(best_rates(frame, "lr_eff"))
    assert ruled.ratio == pytest.approx(1.0, abs=1e-6)
    assert ruled.worst_cost == pytest.approx(0.0, abs=1e-9)
    assert plain.ratio == pytest.approx(256 / (32 * np.sqrt(2)), rel=1e-6)
    assert (plain.shapes, len(frame)) == (4, 24)
    logs = np.log(shapes["width"] * np.sqrt(shapes["depth"]))
    assert plain.worst_cost == pytest.approx(0.05 * ((logs - logs.mean()) ** 2).max(), rel=1e-6)


def test_a_shape_at_the_edge_is_named_and_left_out() -> None:
    frame = pd.concat(
        [
            pd.DataFrame({"width": w, "depth": 1, "lr_base": RATES, "loss": bowl(RATES, b)})
            for w, b in ((8, 3.0), (16, 90.0))
        ]
    )
    best = best_rates(frame, "lr_base")
    assert best["refused"].str.contains("try higher").tolist() == [False, True]
    with pytest.raises(UserError, match="1 shapes have a best rate"):
        spread(best)
