"""Accuracies at a budget: a law of the loss chained to a law of the accuracy, with the doubt of both."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shapelaw import FitResult, RunsTable, UserError, fit
from shapelaw.prescribe import Prescription
from shapelaw.verbs.prescribe import prescribe
from support import asked


@cache
def losses() -> tuple[RunsTable, FitResult]:
    n, t = (axis.ravel() for axis in np.meshgrid(np.geomspace(2e7, 2e9, 6), np.geomspace(1e9, 1e11, 5)))
    noise = np.exp(3e-3 * np.random.default_rng(0).standard_normal(30))
    loss = (1.8 + 410 / n**0.34 + 1200 / t**0.35) * noise
    runs = RunsTable(pd.DataFrame({"run": range(30), "params": n, "tokens": t, "loss": loss}))
    return runs, fit(runs, "params_tokens", bootstrap={"n": 80}, delta=1e-2)


@cache
def accuracies(refits: bool = True) -> tuple[RunsTable, FitResult]:
    loss = np.linspace(2.0, 3.6, 25)
    error = (0.12 + 0.63 / (1 + np.exp(-2.3 * (loss - 2.9)))) * np.exp(
        1e-2 * np.random.default_rng(1).standard_normal(25)
    )
    columns = {"run": range(25), "params": 1e8, "tokens": 1e9 * (1 + np.arange(25)), "loss": loss, "error": error}
    runs = RunsTable(pd.DataFrame(columns))
    return runs, fit(runs, law="accuracy_sigmoid", delta=5e-2, bootstrap={"n": 80} if refits else None)


@pytest.fixture
def ask(tmp_path: Path) -> Any:
    def answer(other: tuple[RunsTable, FitResult], **options: Any) -> Prescription:
        for name, (runs, result) in (("loss", losses()), ("accuracy", other)):
            result.save(tmp_path / name, runs)
        folders = {"fit": str(tmp_path / "loss"), "accuracy": str(tmp_path / "accuracy")}
        return prescribe(asked(**folders, **({"space": "params"} if "budget" in options else {}), **options))

    return answer


def test_the_accuracy_is_that_of_the_predicted_loss(ask: Any) -> None:
    told, law = ask(accuracies(), budget=1e20), accuracies()[1]
    error = law.predict(pd.DataFrame({"loss": [told.values["loss"]], "params": 1e8, "tokens": 1e9}))[0]
    assert told.values["accuracy"] == pytest.approx(1 - error, rel=1e-12)
    assert told.units["accuracy"] == "share of right answers"


def test_its_interval_holds_the_doubt_of_both_laws(ask: Any) -> None:
    """Wider than by the loss alone, and than by the accuracy alone."""

    def width(told: Prescription) -> float:
        low, high = told.intervals["accuracy"]
        assert low < told.values["accuracy"] < high
        return high - low

    both, loss_alone = ask(accuracies(), budget=1e20), ask(accuracies(refits=False), budget=1e20)
    law = accuracies()[1]
    drawn = np.exp(law.log_predictions({"loss": np.array([both.values["loss"]])}))[:, 0]
    low, high = np.quantile(drawn, [0.05, 0.95])
    assert width(both) > width(loss_alone)
    assert width(both) > 0.95 * (high - low)
    assert any("interval is that of the size alone" in note for note in loss_alone.notes)


def test_a_size_has_one_too_and_losses_beyond_those_fitted_are_said(ask: Any) -> None:
    told = ask(accuracies(), params=1e7, tokens=5e8)
    assert told.values["loss"] > 3.6
    assert any(note.startswith("accuracy: a loss of") and "above the highest (3.6)" in note for note in told.notes)


def test_a_fit_that_is_none_of_an_accuracy_is_refused(ask: Any) -> None:
    with pytest.raises(UserError, match=r"law=params_tokens is not a law of an accuracy; give a fit of law=accuracy/"):
        ask(losses(), budget=1e20)


def test_losses_of_another_unit_are_refused(ask: Any) -> None:
    runs, result = accuracies()
    other = RunsTable(runs.frame, {"loss_unit": "bits per byte"})
    with pytest.raises(UserError, match="in bits per byte, but those of the law of the loss are in nats per token"):
        ask((other, result), budget=1e20)


def test_the_direct_law_reads_the_size_itself(ask: Any) -> None:
    n, t = (axis.ravel() for axis in np.meshgrid(np.geomspace(2e7, 2e9, 6), np.geomspace(1e9, 1e11, 5)))
    columns = {"run": range(30), "params": n, "tokens": t, "loss": losses()[0].kept["loss"]}
    runs = RunsTable(pd.DataFrame(columns | {"error": 1 - np.exp(-(30 / n**0.25 + 300 / t**0.3))}))
    result = fit(runs, law="accuracy_direct", delta=1e-2, bootstrap={"n": 20})
    assert dict(result.parameters) == pytest.approx({"A": 30, "B": 300, "alpha": 0.25, "beta": 0.3}, rel=1e-5)
    told = ask((runs, result), budget=1e20)
    by_hand = np.exp(-(30 / told.values["params"] ** 0.25 + 300 / told.values["tokens"] ** 0.3))
    assert told.values["accuracy"] == pytest.approx(by_hand, rel=1e-6)
    other = fit(runs, law="accuracy_direct", delta=1e-2)
    changed = {**other.settings, "counting": "no_embedding"}
    with pytest.raises(UserError, match="counted as no_embedding, but those of the law of the loss as total"):
        ask((runs, dataclasses.replace(other, settings=changed)), budget=1e20)
