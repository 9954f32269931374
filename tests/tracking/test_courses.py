"""Tracked runs say the rate of every step, so that laws of whole curves are fitted to them as they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from shapelaw import UserError, fit, load_fit, load_runs
from shapelaw.config import TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.courses import Course, course_of
from shapelaw.laws import get_law
from shapelaw.planned_run import PlannedRun, plan_run
from shapelaw.runs.axes import with_axes
from shapelaw.runs.schedules import MEMORY
from shapelaw.tracking import LR_SCALE, ROLLBACKS, VAL_LOSS, MlflowTracker, RunInfo
from shapelaw.training.run_info import run_info
from support import Compose
from tracked import store_of

TOKENS = ("tokens=25600", "batch_tokens=128")
TRUTH = {"A": 1.2, "C": 0.3, "alpha": 0.4, "E": 2.0}
SCHEDULES = {
    "constant": ("schedule.warmup_tokens=1000",),
    "cosine": ("schedule=cosine", "schedule.warmup_tokens=1000", "schedule.final_factor=0.1"),
    "linear": ("schedule=linear", "schedule.warmup_tokens=0"),
    "wsd": ("schedule=wsd", "schedule.decay_fraction=0.3", "schedule.warmup_tokens=500"),
    "branch": ("schedule.warmup_tokens=0", "cooldown=sqrt10", "cooldown.from_tokens=25600", "cooldown.fraction=0.3"),
}


def planned(composed: Compose, *given: str) -> tuple[PlannedRun, RunInfo]:
    config: TrainConfig = to_dataclass(composed(*TOKENS, *given))
    made = plan_run(config, "c" * 64)
    info = run_info(config, made, {})
    return made, dataclasses.replace(info, params={key: str(value) for key, value in info.params.items()})


def summed(run: PlannedRun) -> np.ndarray:
    """S1 and S2 after each step, as the law has them, (steps, 2)."""
    area = annealed = memory = 0.0
    before, out = run.lr_at(0), []
    for step in range(run.last_step):
        rate = run.lr_at(step)
        memory = MEMORY * memory + max(before - rate, 0.0)
        area, annealed, before = area + rate, annealed + memory, rate
        out.append((area, annealed))
    return np.array(out)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_record_has_the_rate_of_every_step(composed: Compose, name: str) -> None:
    run, info = planned(composed, *SCHEDULES[name])
    course = Course.of(course_of(info.params))
    assert course.plain() == course_of(info.params)
    assert course.rates(run.last_step) == [run.lr_at(step) for step in range(run.last_step)]


def test_what_leaves_the_rate_open_has_no_course(composed: Compose) -> None:
    _, info = planned(composed, *SCHEDULES["branch"])
    assert course_of(info.params)
    for key in ("lr_eff", "schedule", "cooldown.name"):
        assert not course_of({name: value for name, value in info.params.items() if name != key})
    for change in ({"trainer": "mine"}, {"schedule": "own"}, {"schedule": "cosine"}, {"cooldown.name": "mine.py:fall"}):
        assert not course_of({**info.params, **change})


def track(uri: str, root: Path, run: PlannedRun, info: RunInfo, every: int = 10) -> None:
    """A run whose losses are those of the law."""
    tracker = MlflowTracker(store_of(uri, root), info, root / run.identity, 60.0)
    law, sums = get_law("annealing"), summed(run)
    for step in range(every, run.last_step + 1, every):
        columns = {"lr_area": sums[step - 1, :1], "lr_annealed": sums[step - 1, 1:]}
        tracker.log({VAL_LOSS: float(law.predict(TRUTH, columns)[0])}, step * run.batch_tokens)
    tracker.finish("FINISHED")
    tracker.close()


def test_laws_of_whole_curves_are_fitted_to_tracked_runs_as_they_are(
    composed: Compose, uri: str, tmp_path: Path
) -> None:
    runs = {}
    for given in SCHEDULES.values():
        run, info = planned(composed, *given)
        track(uri, tmp_path, run, info)
        runs[run.identity] = summed(run)
    table = load_runs("mlflow", uri=uri, experiment="tiny", midway="keep")
    assert not table.has("lr_area")  # other fits, and their folders, stay as they are
    read = with_axes(table, get_law("annealing")).frame
    for identity, own in read.groupby("run"):
        expected = runs[str(identity)][own["step"] - 1]
        np.testing.assert_allclose(own[["lr_area", "lr_annealed"]], expected, rtol=1e-12, atol=1e-15)
    result = fit(table, "annealing", delta=1e-3)
    assert result.parameters == pytest.approx(TRUTH, rel=1e-4)
    saved = result.save(tmp_path / "fit", table)
    assert load_fit(saved).predict(load_runs("mlflow", uri=uri, experiment="tiny", midway="keep")) == pytest.approx(
        table.column("loss", "test"), rel=1e-6
    )
    ends = load_runs("mlflow", uri=uri, experiment="tiny")
    assert len(ends) < len(table) / 2  # on the way down, losses of several lengths do not compare


def test_a_run_whose_rate_was_lowered_on_the_way_has_no_sums_from_there(
    composed: Compose, uri: str, tmp_path: Path
) -> None:
    for place, (given, scale) in enumerate({"linear": 0.5, "wsd": 1.0}.items()):
        run, info = planned(composed, *SCHEDULES[given], f"seed={place}")
        tracker = MlflowTracker(store_of(uri, tmp_path), info, tmp_path / run.identity, 60.0)
        tracker.log({VAL_LOSS: 3.0}, 12_800)
        tracker.rewind(1, 12_800, {ROLLBACKS: 1, LR_SCALE: scale})
        tracker.log({VAL_LOSS: 2.5}, 25_600)
        tracker.finish("FINISHED")
        tracker.close()
    table = load_runs("mlflow", uri=uri, experiment="tiny", midway="keep")
    read = with_axes(table, get_law("annealing")).frame
    known = read["lr_area"].notna().groupby(read["schedule"]).agg(list).to_dict()
    assert known == {"linear": [True, False], "wsd": [True, True]}
    with pytest.raises(UserError, match="lr_area"):
        fit(table, "annealing")
