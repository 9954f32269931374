"""The noise scale at losses: known courses, and their ratio to a critical batch."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from shapelaw.errors import UserError
from shapelaw.figures.noise import noise_and_critical
from shapelaw.step_batch.noise_scale import beside_critical, noise_at_losses


def measured(noisy: float = 0.0) -> pd.DataFrame:
    """Two runs whose noise scale is 1e4 * (3 / L)^5 tokens, measured 200 times."""
    generator, frames = np.random.default_rng(0), []
    for run in ("a", "b"):
        tokens = np.linspace(1e4, 2e6, 200)
        loss = 1.5 + 40 * tokens**-0.35
        grad_sq = 0.02 * (loss - 1.2) ** 2
        trace = grad_sq * 1e4 * (3 / loss) ** 5
        spread = 1 + noisy * generator.standard_normal((2, 200))
        frames.append(
            pd.DataFrame(
                {"run": run, "tokens": tokens, "loss": loss, "grad_sq": grad_sq * spread[0], "trace": trace * spread[1]}
            )
        )
    return pd.concat(frames)


def test_a_known_course_comes_back() -> None:
    found = noise_at_losses(measured(), [2.0, 2.3], average=1)
    assert found["noise_tokens"].to_numpy() == pytest.approx(
        np.tile(1e4 * (3 / np.array([2.0, 2.3])) ** 5, 2), rel=1e-3
    )


def test_noise_is_averaged_before_the_ratio() -> None:
    """Both moments scatter by 60%: ratios of means over 50 have an error of 12%; twice that is allowed."""
    found = noise_at_losses(measured(0.6), [1.8], average=50)
    assert found["noise_tokens"].to_numpy() == pytest.approx([1e4 * (3 / 1.8) ** 5] * 2, rel=0.24)


def test_the_ratio_to_a_critical_batch() -> None:
    table = beside_critical(noise_at_losses(measured(), [2.0, 2.2], average=1), lambda loss: 5e3 * (3 / loss) ** 5)
    assert table["ratio"].to_numpy() == pytest.approx([2.0] * 4, rel=1e-3)
    (axes,) = noise_and_critical(table).axes
    assert {text.get_text() for text in axes.figure.legends[0].get_texts()} == {
        *("a", "b", "median, quartiles", "B_crit of the contours")
    }


def test_losses_out_of_reach_name_the_range() -> None:
    with pytest.raises(UserError, match=r"the measured losses are 1\.\d+ to 3\.\d+"):
        noise_at_losses(measured(), [0.5])
