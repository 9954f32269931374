"""A curve that is written before its run is trained: sealed, with the interval of a new run, and compared afterwards."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from shapelaw import FitResult, RunsTable, UserError, fit
from shapelaw.fitting.result import plain
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.prediction import CURVE_POINTS, compare, prediction_at, read_prediction
from shapelaw.prescribe.world import World
from worlds import table


def law_of(width: pd.Series, depth: pd.Series, tokens: pd.Series) -> pd.Series:
    """What the runs follow."""
    return 1.7 + 40 / (12 * width**2 * depth) ** 0.2 + 400 / tokens**0.28


def fitted() -> tuple[FitResult, RunsTable]:
    """Gemstones' shapes with losses of a law and noise of their runs."""
    runs = table()
    kept = runs.kept
    noise = dict(zip(kept["run"].unique(), 3e-3 * np.random.default_rng(0).standard_normal(6), strict=True))
    loss = law_of(kept["width"], kept["depth"], kept["tokens"]) * np.exp(kept["run"].map(noise))
    runs = RunsTable(kept.assign(loss=loss), runs.about, runs.recorded)
    return fit(runs, law="params_tokens", delta=1e-2, bootstrap={"n": 20}), runs


def written(
    folder: Path, width: int = 4096, depth: int = 30, tokens: float = 1e11
) -> tuple[dict[str, object], RunsTable]:
    result, runs = fitted()
    result.save(folder, runs)
    world = World.of(result, runs)
    problem = Problem(
        result, world, space="relaxed", limits=Problem.of(result, runs, space="params").limits.holding(64)
    )
    return prediction_at(problem, runs, folder, world.points([width], [depth]), tokens), runs


def trained(prediction: dict[str, object], factor: float) -> RunsTable:
    """The run that was predicted, at a factor of its losses."""
    tokens = np.geomspace(2e10, 1e11, 9)
    points = pd.DataFrame(prediction["points"])
    loss = factor * np.exp(np.interp(np.log(tokens), np.log(points["tokens"]), np.log(points["loss"])))
    sizes = {name: prediction[name] for name in ("width", "depth", "params", "batch_tokens")}
    return RunsTable(pd.DataFrame({"run": "new", **sizes, "tokens": tokens, "loss": loss, "vocab_size": 50_304}))


def test_a_run_as_predicted_has_no_error_and_one_that_is_not_has_it(tmp_path: Path) -> None:
    prediction, runs = written(tmp_path)
    assert (prediction["runs_hash"], prediction["fit"], prediction["batch_tokens"]) == (runs.hash, tmp_path.name, 2**22)
    points = pd.DataFrame(prediction["points"])
    assert len(points) == CURVE_POINTS
    assert points["tokens"].iloc[-1] == pytest.approx(1e11, rel=1e-12)
    assert (points["loss_low"] < points["loss"]).all()
    assert (points["loss"] < points["loss_high"]).all()
    same = compare(prediction, trained(prediction, 1.0)).plain()
    assert same["mean_absolute_error"] < 1e-4  # of interpolation between the written points
    assert same["inside_interval"] == 1.0
    other = compare(prediction, trained(prediction, 1.5)).plain()
    assert other["mean_absolute_error"] == pytest.approx(1 - 1 / 1.5, abs=1e-4)
    assert other["error_at_the_end"] == pytest.approx(1 / 1.5 - 1, abs=1e-4)
    assert other["inside_interval"] == 0.0


def test_the_interval_is_that_of_a_new_run(tmp_path: Path) -> None:
    """What `result.predict(kind="new_run")` gives for the same size and tokens."""
    prediction, _ = written(tmp_path)
    result, _ = fitted()
    points = pd.DataFrame(prediction["points"])
    ends = result.predict(pd.DataFrame({"params": prediction["params"], "tokens": points["tokens"]}), kind="new_run")
    for ours, theirs in (("loss", "predicted"), ("loss_low", "low"), ("loss_high", "high")):
        np.testing.assert_allclose(points[ours], ends[theirs], rtol=1e-12)


def test_what_was_written_cannot_be_changed(tmp_path: Path) -> None:
    prediction, _ = written(tmp_path)
    file = tmp_path / "answer.yaml"
    content = OmegaConf.create({"prediction": plain(prediction)})
    OmegaConf.save(content, file)
    assert read_prediction(file)["hash"] == prediction["hash"]
    for change in ({"tokens": 2e11}, {"theta": [0.0] * 5}, {"written": "2020-01-01T00:00:00+00:00"}):
        OmegaConf.save(OmegaConf.merge(content, {"prediction": change}), file)
        with pytest.raises(UserError, match="was changed after it was written"):
            read_prediction(file)


def test_a_fit_without_refits_predicts_no_new_run(tmp_path: Path) -> None:
    result, runs = fitted()
    alone = dataclasses.replace(result, refits=(), replicates={}, new_run={})
    alone.save(tmp_path, runs)
    world = World.of(alone, runs)
    problem = Problem(alone, world, space="params")
    assert prediction_at(problem, runs, tmp_path, world.points([512], [12]), 1e11) == {}
