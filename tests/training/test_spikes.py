"""The detector of spikes on curves whose spikes are known, and the order of batches that rollbacks leave out."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shapelaw.runs import load_runs
from shapelaw.training.rollback import batch_of, skip
from shapelaw.training.spikes import Detector, RunSpikeRule, Verdict
from support import ROOT

RULE = RunSpikeRule(
    window_steps=128,
    least_steps=32,
    loss_mads=10,
    norm_mads=15,
    sustain_steps=3,
    over_best_nats=1,
    over_chance_nats=1,
    chance_nats=math.log(256),
    warmup_steps=10,
)
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def curve(steps: int, seed: int, tails: float = math.inf) -> Curve:
    """Losses that fall as a power of the steps, and falling log-normal norms; noise of Student's t with so many degrees."""
    random = np.random.default_rng(seed)
    step = np.arange(1, steps + 1)
    noise = random.standard_t(tails, (2, steps)) if math.isfinite(tails) else random.normal(size=(2, steps))
    losses = 2.5 + 6.0 * step**-0.4 + 0.05 * noise[0]
    return losses, np.exp(-0.2 * np.log(step) + 0.3 * noise[1])


def verdicts(made: Curve, every: int = 10, rule: RunSpikeRule = RULE) -> list[Verdict]:
    """Of a detector that looks every so many steps, as JSON keeps it in between."""
    losses, norms = made
    found, detector = [], Detector(rule)
    for start in range(0, len(losses), every):
        detector = Detector.restore(rule, json.loads(json.dumps(detector.state(), allow_nan=False)))
        found += detector.look(start + 1, losses[start : start + every].tolist(), norms[start : start + every].tolist())
    return found


@pytest.mark.parametrize("every", [1, 10, 64])
@pytest.mark.parametrize("first", [200, 263, 500])
def test_a_planted_spike_is_found_at_its_first_step(first: int, every: int) -> None:
    losses, norms = curve(800, seed=1)
    losses[first - 1 : first + 30] += 2.0
    (found,) = verdicts((losses, norms), every)
    assert (found.first_step, found.step, found.what) == (first, first + RULE.sustain_steps - 1, "loss")
    assert found.loss == losses[first + 1]
    assert found.limit < found.loss


def test_a_spike_of_the_gradient_alone_is_found() -> None:
    losses, norms = curve(400, seed=2)
    norms[299:304] *= 1e3
    (found,) = verdicts((losses, norms))
    assert (found.first_step, found.step, found.what) == (300, 302, "gradient norm")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("step", [1, 5, 300])
def test_what_is_no_number_is_told_at_once(value: float, where: int, step: int) -> None:
    """Also before there is a scale."""
    made = curve(310, seed=3)
    made[where][step - 1] = value
    (found,) = verdicts(made)
    assert (found.first_step, found.step, found.what) == (step, step, "not a number")


def test_high_steps_that_do_not_last_are_noise() -> None:
    losses, norms = curve(600, seed=4)
    for step in (200, 201, 350, 351, 352 + 10):
        losses[step - 1] += 3.0
    assert verdicts((losses, norms)) == []


def test_a_long_spike_is_told_once_and_a_new_level_becomes_the_scale() -> None:
    losses, norms = curve(1200, seed=5)
    losses[300:] += 1.5
    losses[900:] += 1.5
    assert [found.first_step for found in verdicts((losses, norms))] == [301, 901]


@pytest.mark.parametrize(("since", "climb"), [(400, 0.002), (400, 0.005), (60, 0.03), (40, 0.08)])
def test_divergence_that_comes_slowly_is_found(since: int, climb: float) -> None:
    """A loss that climbs in small steps takes the running scale with it; its own best stays."""
    losses, norms = curve(1200, seed=7)
    losses[since:] += climb * np.arange(1, 1201 - since)
    unfixed = replace(RULE, over_best_nats=1e9, over_chance_nats=1e9)
    assert verdicts((losses, norms), rule=unfixed) == [], "the running scale alone does not see it"
    found = verdicts((losses, norms))[0]
    best = min(np.median(losses[max(end - 128, 0) : end]) for end in range(40, found.first_step, 10))
    high = losses[: found.step] > best + 1
    assert found.limit == pytest.approx(min(best, math.log(256)) + 1)
    assert high[-3:].all()
    assert not (high[42:-1] & high[41:-2] & high[40:-3]).any(), "no three steps in a row were as high before"


@pytest.mark.parametrize(("tail", "told"), [(6.4, []), (6.7, [101])])
def test_a_run_that_never_learnt_is_told_above_chance(tail: float, told: list[int]) -> None:
    """There is no best to compare with: ln(256) + 1 = 6.545 is the limit, once warm-up (here of 100 steps) is over."""
    losses = np.full(300, tail)
    losses[0] = 5.6
    found = verdicts((losses, np.ones(300)), rule=replace(RULE, warmup_steps=100))
    assert [each.first_step for each in found] == told
    assert all(each.limit == pytest.approx(math.log(256) + 1, abs=0.06) for each in found)


def test_a_run_that_stays_where_it_starts_has_not_diverged() -> None:
    """Initial weights may lie above ln(vocabulary): a rate that is too low is no divergence."""
    losses = 7.5 + 0.2 * np.random.default_rng(8).normal(size=2000)
    losses[0] = 7.4
    assert verdicts((losses, np.ones(2000))) == []


def test_an_explosion_before_there_is_a_scale_is_told_when_there_is_one() -> None:
    losses = np.concatenate([[7.5], np.full(99, 60.0)])
    (found,) = verdicts((losses, np.ones(100)))
    assert (found.first_step, found.what) == (RULE.least_steps + 1, "loss")


def test_a_warm_up_that_overshoots_is_no_spike() -> None:
    """Up to ln(256) + 1.15 and down again within the steps of the warm-up; after them it would be one."""
    losses = np.concatenate([np.linspace(5.6, 6.7, 60), np.linspace(6.7, 5.0, 40), 5.0 * np.arange(1, 901) ** -0.1])
    made = losses, np.ones(1000)
    assert verdicts(made, rule=replace(RULE, warmup_steps=100)) == []
    assert [each.what for each in verdicts(made, rule=replace(RULE, warmup_steps=50))] == ["loss"]


def test_norms_that_are_not_measured_are_kept_as_json_while_a_spike_is_suspected() -> None:
    losses, norms = curve(400, seed=9)
    losses[198:204] += 3.0
    (found,) = verdicts((losses, np.zeros_like(norms)))
    assert (found.first_step, found.step) == (199, 201)


def test_a_start_that_falls_fast_is_no_spike() -> None:
    losses = np.concatenate([np.linspace(10, 3, 40), np.full(300, 3.0)])
    assert verdicts((losses, np.ones_like(losses))) == []


@pytest.mark.parametrize("seeds", [range(4), pytest.param(range(4, 20), marks=pytest.mark.slow)])
@pytest.mark.parametrize("tails", [math.inf, 5.0, 3.0])
def test_normal_curves_are_left_alone(tails: float, seeds: range) -> None:
    """200,000 steps in all of normal, and of heavy-tailed noise: no false alarm with either rule."""
    for seed in seeds:
        made = curve(10_000, seed, tails)
        assert verdicts(made, every=10) == []


@pytest.mark.parametrize("sustain", [3, 10])
def test_real_curves_are_left_alone(sustain: int) -> None:
    """Every step of a nano run (32x2 at lr_base=5, the default warm-up, 600 steps), at the settings of stop and of rollback."""
    table = np.loadtxt(ROOT / "tests" / "golden" / "nano_32x2_curve.csv", delimiter=",", skiprows=1)
    assert len(table) == 600
    assert table[0, 0] > 5 > 3 > table[-1, 0]
    assert verdicts((table[:, 0], table[:, 1]), rule=replace(RULE, sustain_steps=sustain)) == []


@pytest.mark.parametrize(("subset", "runs"), [("hot_100b+_477", 22), ("lr_ablation_hot_477", 20)])
def test_published_curves_are_left_alone(data_dir: Path, subset: str, runs: int) -> None:
    """Held-out losses of the Gemstones, one in 477 steps; no single one is high."""
    curves = load_runs("gemstones", subset=subset).kept.sort_values("tokens").groupby("run")
    assert len(curves) == runs
    for _, rows in curves:
        made = rows["loss"].to_numpy(), np.zeros(len(rows))
        assert len(rows) > RULE.least_steps
        assert verdicts(made, rule=replace(RULE, sustain_steps=1, chance_nats=math.log(50_304), warmup_steps=1)) == []


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_size=5))
def test_batches_that_are_left_out_are_the_spikes_and_no_others(spikes: list[tuple[int, int]]) -> None:
    """Against a list of all batches from which those of each spike are taken out as it comes."""
    left = list(range(400))
    skipped: tuple[tuple[int, int], ...] = ()
    for first_step, more in spikes:
        skipped = skip(skipped, first_step, first_step + more)
        doomed = range(left[first_step - 1], left[first_step + more - 1] + 1)
        left = [batch for batch in left if batch not in doomed]
        assert [batch_of(step, skipped) for step in range(60)] == left[:60]
        assert list(skipped) == sorted(skipped)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 80), min_size=1, max_size=10))
def test_an_interruption_changes_no_verdict(lengths: list[int]) -> None:
    """Values that wait in a checkpoint to be looked at are looked at together, wherever it was cut."""
    losses, norms = curve(300, seed=6)
    losses[150:190] += 2.0
    whole, cut = Detector(RULE), Detector(RULE)
    found: list[Verdict] = []
    for start in range(0, 300, 10):
        whole_found = whole.look(start + 1, losses[start : start + 10].tolist(), norms[start : start + 10].tolist())
        if start // 10 in lengths:
            cut = Detector.restore(RULE, cut.state())
        found += cut.look(start + 1, losses[start : start + 10].tolist(), norms[start : start + 10].tolist())
        assert found[len(found) - len(whole_found) :] == whole_found
    assert cut.state() == whole.state()
