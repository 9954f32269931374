"""The law of whole curves under a schedule: sums of the rate, recovery, and curves of schedules that a fit has not seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import annealing
import numpy as np
import pandas as pd
import pytest

from shapelaw import FitResult, RunsTable, UserError, fit, load_fit, load_runs
from shapelaw.laws import get_law
from shapelaw.runs.schedules import MEMORY, areas
from support import Script

TRUTH = {"A": 0.63, "C": 0.43, "alpha": 0.65, "E": 2.86}
STEPS = np.arange(50, 4001, 50)
Rate = Callable[[np.ndarray], np.ndarray]
SCHEDULES: dict[str, Rate] = {
    "constant": lambda s: np.full(len(s), 3e-3),
    "cosine": lambda s: 3e-3 * (0.55 + 0.45 * np.cos(np.pi * s / 4000)),
    "wsd": lambda s: 3e-3 * np.where(s <= 3000, 1.0, 1 - 0.9 * (s - 3000) / 1000),
}


def step_by_step(rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums as the paper writes them, from the rate of every step."""
    area, annealed, left, sums = 0.0, 0.0, 0.0, []
    for before, rate in zip([rates[0], *rates[:-1]], rates, strict=True):
        left = MEMORY * left + max(before - rate, 0.0)
        area, annealed = area + rate, annealed + left
        sums.append((area, annealed))
    return tuple(np.array(sums).T)


def every_step(rate: Rate) -> np.ndarray:
    """The rate of every step, along lines between the file's rows."""
    return np.interp(np.arange(1, 4001), STEPS, rate(STEPS))


def curves(noise: float = 0.0, column: str = "lr") -> pd.DataFrame:
    """A run of every schedule, as a file would hold them."""
    rng, frames = np.random.default_rng(0), []
    for name, rate in SCHEDULES.items():
        area, annealed = (values[STEPS - 1] for values in step_by_step(every_step(rate)))
        loss = TRUTH["E"] + TRUTH["A"] / area ** TRUTH["alpha"] - TRUTH["C"] * annealed
        loss *= np.exp(noise * rng.standard_normal(len(STEPS)))
        frames.append(pd.DataFrame({"run": name, "step": STEPS, column: rate(STEPS), "loss": loss, "schedule": name}))
    return pd.concat(frames, ignore_index=True)


def loaded(path: Path, frame: pd.DataFrame) -> RunsTable:
    frame.to_csv(path, index=False)
    constants = {"params": 1e8, "batch_tokens": 1e5}
    return load_runs("csv", path=path, constants=constants, midway="keep", reduce="none")


MULTI_POWER = {"A": 0.63, "B": 40.0, "C": 0.5, "alpha": 0.65, "beta": 0.6, "gamma": 0.5, "E": 2.86}


def multi_power_by_steps(rates: np.ndarray, p: dict[str, float]) -> np.ndarray:
    """The multi-power law as the paper writes it, from the rate of every step, at every 50th."""
    area, fall = np.cumsum(rates), -np.diff(rates, prepend=rates[0])
    losses = []
    for step in STEPS - 1:
        since = area[step] - area[: step + 1] + rates[: step + 1]
        drop = fall[: step + 1] * (1 - (1 + p["C"] * since / rates[: step + 1] ** p["gamma"]) ** -p["beta"])
        losses.append(p["E"] + p["A"] / area[step] ** p["alpha"] - p["B"] * drop.sum())
    return np.array(losses)


def with_multi_power(noise: float = 0.0) -> pd.DataFrame:
    """Runs of every schedule whose losses are of the multi-power law."""
    frame, rng = curves(), np.random.default_rng(1)
    losses = [multi_power_by_steps(every_step(rate), MULTI_POWER) for rate in SCHEDULES.values()]
    return frame.assign(loss=np.concatenate(losses) * np.exp(noise * rng.standard_normal(len(frame))))


def test_groups_of_falls_say_what_all_steps_do(tmp_path: Path) -> None:
    """To 3e-4 of the loss, of which the falls are up to a twentieth; and selected rows keep the falls of those left out."""
    runs = loaded(tmp_path / "curves.csv", with_multi_power())
    law = get_law("multi_power")
    np.testing.assert_allclose(law.predict(MULTI_POWER, runs.columns_for(law)), runs.kept["loss"], rtol=3e-4)
    late = runs.select("run == 'wsd' and step > 3500")
    np.testing.assert_allclose(law.predict(MULTI_POWER, late.columns_for(law)), late.kept["loss"], rtol=3e-4)
    fallen = 1 - runs.kept["loss"].to_numpy() / law.predict(MULTI_POWER | {"B": 0.0}, runs.columns_for(law))
    assert 0.02 < fallen.max() < 0.05


def test_the_multi_power_law_is_found_and_predicts_another_schedule(tmp_path: Path) -> None:
    runs = loaded(tmp_path / "curves.csv", with_multi_power(noise=1e-4))
    fixed = {name: MULTI_POWER[name] for name in ("C", "alpha", "beta", "gamma")}
    result = fit(runs.select("run != 'wsd'"), law="multi_power", delta=1e-3, fixed=fixed)
    other = runs.select("run == 'wsd'")
    np.testing.assert_allclose(result.predict(other), other.kept["loss"], rtol=2e-3)
    result.save(tmp_path / "fit", runs)
    np.testing.assert_array_equal(load_fit(tmp_path / "fit").predict(runs), result.predict(runs))


def test_the_multi_power_law_needs_rates_along_runs(tmp_path: Path) -> None:
    runs = loaded(tmp_path / "curves.csv", curves().assign(lr=1e-3))
    with pytest.raises(UserError, match=r"needs the column lr_area.*; give a file with one column lr that varies"):
        fit(runs, law="multi_power")


@pytest.mark.parametrize("name", SCHEDULES)
def test_sums_over_rows_are_the_sums_over_steps(name: str) -> None:
    """Rows every 50 steps say as much as every step does, where the rate runs along lines between them."""
    rate = SCHEDULES[name]
    expected_sums = step_by_step(every_step(rate))
    for found, expected in zip(areas(STEPS.astype(float), rate(STEPS)), expected_sums, strict=True):
        np.testing.assert_allclose(found, expected[STEPS - 1], rtol=1e-9, atol=1e-15)


def test_a_rise_of_the_rate_anneals_nothing() -> None:
    _, annealed = areas(np.array([1.0, 10.0, 20.0]), np.array([1e-4, 3e-3, 3e-3]))
    np.testing.assert_array_equal(annealed, 0.0)


def test_a_file_s_rows_have_their_sums_whatever_their_order(tmp_path: Path) -> None:
    frame = curves(column="train/learning_rate")
    runs = loaded(tmp_path / "curves.csv", frame.sample(frac=1.0, random_state=1))
    kept = runs.kept.set_index(["run", "step"]).loc[[("cosine", int(step)) for step in STEPS]]
    area, annealed = areas(STEPS.astype(float), SCHEDULES["cosine"](STEPS))
    np.testing.assert_allclose(kept["lr_area"], area, rtol=1e-12)
    np.testing.assert_allclose(kept["lr_annealed"], annealed, rtol=1e-12, atol=1e-18)
    assert (runs.kept.loc[runs.kept["run"] == "constant", "lr_annealed"] == 0).all()


def test_a_rate_that_is_the_same_all_along_each_run_says_nothing_of_a_schedule(tmp_path: Path) -> None:
    frame = curves().assign(lr=lambda rows: rows["run"].map({"constant": 1e-3, "cosine": 2e-3, "wsd": 3e-3}))
    runs = loaded(tmp_path / "curves.csv", frame)
    assert "lr_area" not in runs
    with pytest.raises(
        UserError, match=r"needs the column lr_area.*; give a file with one column lr that varies along runs"
    ):
        fit(runs, law="annealing")


def test_constant_and_cosine_runs_predict_another_schedule(tmp_path: Path) -> None:
    runs = loaded(tmp_path / "curves.csv", curves())
    result = fit(runs.select("run != 'wsd'"), law="annealing", delta=1e-3)
    assert dict(result.parameters) == pytest.approx(TRUTH, rel=1e-6)
    other = runs.select("run == 'wsd'")
    np.testing.assert_allclose(result.predict(other), other.kept["loss"], rtol=1e-8)
    assert not any("schedule" in flag or "midway" in flag for flag in result.flags if not flag.startswith("read_as"))


def test_constant_runs_alone_leave_the_annealing_open(tmp_path: Path) -> None:
    runs = loaded(tmp_path / "curves.csv", curves())
    result = fit(runs.select("run == 'constant'"), law="annealing", delta=1e-3)
    assert "C" in result.not_identified


def test_saved_and_loaded_it_predicts_the_same(tmp_path: Path) -> None:
    runs = loaded(tmp_path / "curves.csv", curves(noise=1e-3))
    result = fit(runs, law="annealing", delta=1e-3)
    result.save(tmp_path / "fit", runs)
    again: FitResult = load_fit(tmp_path / "fit")
    np.testing.assert_array_equal(again.predict(runs), result.predict(runs))
    columns = runs.columns_for(get_law("annealing"))
    np.testing.assert_array_equal(
        result.predict(runs), np.exp(get_law("annealing").log_prediction(result.vector, columns))
    )


def test_published_curves_are_predicted_to_half_a_percent(data_dir: Path) -> None:
    """100M, the middle one of three sizes: the warm-up-stable-decay curves from constant and cosine runs."""
    found = annealing.errors(annealing.table(data_dir / annealing.CURVES), 1e8, delta=1e-3)
    assert len(found) == 5
    assert found["mean"].max() < 5e-3


@pytest.mark.slow
def test_one_command_fits_a_file(script: Script, tmp_path: Path) -> None:
    curves(noise=1e-3).to_csv(tmp_path / "curves.csv", index=False)
    done = script(
        "fit.py", "law=annealing", "runs=csv", f"runs.path={tmp_path / 'curves.csv'}", "runs.midway=keep", "delta=1e-3",
        "runs.constants={params: 1e8, batch_tokens: 1e5}", "bootstrap.n=20", "tracker=none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "L = E + A/lr_area^alpha - C*lr_annealed" in done.stdout
