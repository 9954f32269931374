"""Residual structure, the likelihood behind the objective, and intervals, each against another way to compute it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from scipy.integrate import quad

from shapelaw.fitting.intervals import bca, percentile
from shapelaw.fitting.objective import huber
from shapelaw.fitting.residuals import _log_normaliser, huber_log_likelihood, information_criteria, residual_structure


def test_huber_density_is_normalised() -> None:
    for delta, scale in [(1e-4, 5e-7), (1e-3, 1e-6), (0.5, 0.1), (3.0, 1.0)]:
        inside = quad(lambda r, d=delta, s=scale: np.exp(-huber(r, d) / s), 0, delta, epsabs=0)[0]
        beyond = quad(lambda u, d=delta, s=scale: np.exp(-huber(d + u * s / d, d) / s) * s / d, 0, np.inf, epsabs=0)[0]
        assert np.exp(_log_normaliser(np.log(scale), delta)) == pytest.approx(2 * (inside + beyond), rel=1e-8)


def test_likelihood_goes_to_gaussian_and_laplace() -> None:
    residuals = np.random.default_rng(0).normal(size=400)
    gaussian = scipy.stats.norm(0, np.sqrt(np.mean(residuals**2))).logpdf(residuals).sum()
    laplace = scipy.stats.laplace(0, np.mean(np.abs(residuals))).logpdf(residuals).sum()
    assert huber_log_likelihood(residuals, 1e3) == pytest.approx(gaussian, rel=1e-8)
    assert huber_log_likelihood(residuals, 1e-6) == pytest.approx(laplace, rel=1e-4)


def test_criteria_count_the_scale() -> None:
    residuals = np.random.default_rng(1).normal(size=100)
    likelihood = huber_log_likelihood(residuals, 0.1)
    aic, bic = information_criteria(residuals, 0.1, 5)
    assert aic == pytest.approx(12 - 2 * likelihood)
    assert bic == pytest.approx(6 * np.log(100) - 2 * likelihood)


def test_structure_splits_the_sum_of_squares() -> None:
    rng = np.random.default_rng(2)
    kept = pd.DataFrame({"run": np.repeat(list("abcd"), 25), "tokens": np.tile(np.arange(1.0, 26.0), 4)})
    residuals = np.repeat(rng.normal(size=4), 25) + 0.1 * rng.normal(size=100)
    found = residual_structure(kept, residuals)
    total = np.var(residuals)
    assert found.between_run_sd**2 + found.within_run_sd**2 == pytest.approx(total)
    assert found.between_run_share == pytest.approx(found.between_run_sd**2 / total)
    expected = kept.assign(r=residuals).groupby("run")["r"]
    assert np.allclose(found.by_run["mean"], expected.mean())
    assert np.allclose(found.by_run["sd"], expected.std(ddof=0))
    assert found.by_tokens["points"].sum() == 100
    assert found.by_shape.empty
    assert residual_structure(kept.drop_duplicates("run"), residuals[::25]).between_run_share is None


def test_bca_is_scipys() -> None:
    data = np.random.default_rng(3).exponential(size=60)
    theirs = scipy.stats.bootstrap((data,), np.mean, confidence_level=0.9, method="BCa", n_resamples=4000, rng=0)
    jackknife = np.array([np.delete(data, i).mean() for i in range(60)])
    ours = bca(theirs.bootstrap_distribution, 0.9, data.mean(), jackknife)
    assert np.allclose(ours, theirs.confidence_interval, rtol=1e-10)


def test_percentile_leaves_out_failed_refits() -> None:
    assert percentile(np.array([np.nan, *range(101)]), 0.9) == pytest.approx((5.0, 95.0))
