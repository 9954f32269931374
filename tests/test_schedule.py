"""Schedules at named steps."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shapelaw.errors import UserError
from shapelaw.schedule import (
    Constant,
    Cooldown,
    Cosine,
    Linear,
    Schedule,
    WarmupStableDecay,
    cooldown_end_step,
    lr_factor,
)

STEP_TOKENS = 2048 * 2048  # the Gemstones' world batch


def test_gemstones_warmup_at_named_steps() -> None:
    schedule = Constant(warmup_tokens=80e6)
    factors = [lr_factor(step * STEP_TOKENS, schedule) for step in (0, 1, 19, 20, 83_474)]
    assert factors == pytest.approx([0.0, 4_194_304 / 80e6, 19 * 4_194_304 / 80e6, 1.0, 1.0])
    assert factors[2] == pytest.approx(0.99615, abs=1e-5)


@pytest.mark.parametrize(
    ("schedule", "expected"),  # at tokens 0, 50, 100, 325, 550, 1000, 2000
    [
        (Constant(100), [0, 0.5, 1, 1, 1, 1, 1]),
        (Linear(1000, 100), [0, 0.5, 1, 0.75, 0.5, 0, 0]),
        (Linear(1000, 100, 0.2), [0, 0.5, 1, 0.8, 0.6, 0.2, 0.2]),
        (Cosine(1000, 100), [0, 0.5, 1, 0.5 + 0.5 * math.cos(math.pi / 4), 0.5, 0, 0]),
        (Cosine(1000, 100, 0.1), [0, 0.5, 1, 0.1 + 0.9 * (0.5 + 0.5 * math.cos(math.pi / 4)), 0.55, 0.1, 0.1]),
        (WarmupStableDecay(1000, 100, 0.5), [0, 0.5, 1, 1, 0.9, 0, 0]),
        (WarmupStableDecay(1000, 100, 0.5, 0.5), [0, 0.5, 1, 1, 0.95, 0.5, 0.5]),
        (Constant(0), [1] * 7),
    ],
)
def test_factors_at_named_tokens(schedule: Schedule, expected: list[float]) -> None:
    tokens = (0, 50, 100, 325, 550, 1000, 2000)
    assert [lr_factor(seen, schedule) for seen in tokens] == pytest.approx(expected)


def test_cooldown_runs_n_steps_down_to_one_nth() -> None:
    """From step 100, ten steps: numbers 100 to 109 at 10/10, 9/10, ... 1/10, and 0 after."""
    cooldown = Cooldown(start_tokens=100 * STEP_TOKENS)
    factors = [lr_factor(step * STEP_TOKENS, Constant(0), cooldown) for step in range(98, 113)]
    assert factors == pytest.approx([1, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0, 0, 0])


def test_published_cooldowns_end_where_ours_do(data_dir: Path) -> None:
    """The published rows before and after each cooldown carry the steps done."""
    begin, end = (
        pd.read_json(data_dir / "gemstones" / "runs" / f"wandb_df_for_fitting_{name}.jsonl", lines=True)
        for name in ("cool_begin", "cool_end")
    )
    starts, ends = (sorted({int(step) for step in rows["step"]}) for rows in (begin, end))
    assert len(starts) == 10
    assert [cooldown_end_step(start) for start in starts] == ends
    assert {tokens / step for tokens, step in zip(end["tokens"], end["step"], strict=True)} == {STEP_TOKENS}


@given(st.floats(0, 2e6), st.floats(1, 1e6), st.floats(0, 1))
def test_factors_stay_within_bounds_and_never_rise_after_warmup(seen: float, total: float, final: float) -> None:
    for schedule in (Cosine(total, 0.0, final), Linear(total, 0.0, final), WarmupStableDecay(total, 0.0, 0.3, final)):
        factors = [lr_factor(tokens, schedule) for tokens in (0.0, seen / 2, seen, 2 * seen)]
        assert all(0.0 <= factor <= 1.0 for factor in factors)
        assert all(after <= before + 1e-12 for before, after in pairwise(factors))


def test_bad_input() -> None:
    with pytest.raises(UserError, match=r"schedule.total_tokens=5: .* above schedule.warmup_tokens=10"):
        Linear(5, 10)
    with pytest.raises(UserError, match=r"schedule.warmup_tokens=-1"):
        Constant(-1)
    with pytest.raises(UserError, match=r"schedule.final_factor=2"):
        Cosine(100, 0, 2)
    with pytest.raises(UserError, match=r"schedule.decay_fraction=0"):
        WarmupStableDecay(100, 0, 0)
    with pytest.raises(UserError, match=r"cooldown.start_tokens=0"):
        Cooldown(0)
    with pytest.raises(UserError, match=r"cooldown.fraction=-1"):
        Cooldown(10, -1)
