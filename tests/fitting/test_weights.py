"""Rows weighed by a column: whole weights are repeats, 0 leaves a row out, and refits keep them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_fixed import frame

from shapelaw import RunsTable, UserError, fit, load_runs
from shapelaw.config import FitConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.fitting.result import load_fit
from shapelaw.fitting.spec import spec_of
from shapelaw.runs.weights import weights_of
from shapelaw.verbs.fit import folder_of, table_of
from support import Compose


def weighed(values: np.ndarray) -> RunsTable:
    return RunsTable(frame(), further=pd.DataFrame({"weight": values}))


def test_a_whole_weight_is_that_many_repeats_of_the_row() -> None:
    counts = np.random.default_rng(0).integers(1, 4, 30)
    repeated = frame().loc[np.repeat(np.arange(30), counts)].reset_index(drop=True)
    repeated["run"] = [f"{run} {i}" for i, run in enumerate(repeated["run"])]
    one, other = fit(weighed(counts), delta=1e-3, weights="weight"), fit(repeated, delta=1e-3)
    assert one.parameters == pytest.approx(other.parameters, rel=1e-6)
    assert one.objective * counts.mean() == pytest.approx(other.objective, rel=1e-9)
    assert one.checklist["objective"]["weights"] == "column weight, scaled to a mean of 1"


def test_a_row_of_weight_0_is_left_out_of_fits_and_refits() -> None:
    spoilt = frame()
    spoilt.loc[[3, 17], "loss"] *= 1.3
    weights = np.ones(30)
    weights[[3, 17]] = 0.0
    table = RunsTable(spoilt, further=pd.DataFrame({"weight": weights}))
    result = fit(table, delta=1e-1, weights="weight", bootstrap={"n": 40}, holdouts=["largest"])
    clean = fit(spoilt.drop(index=[3, 17]).reset_index(drop=True), delta=1e-1, bootstrap={"n": 40})
    assert result.parameters == pytest.approx(clean.parameters, rel=1e-6)
    low, high = result.intervals["E"]
    spoiled = fit(spoilt, delta=1e-1, bootstrap={"n": 40}).intervals["E"]
    assert high - low < (spoiled[1] - spoiled[0]) / 2


def test_the_command_line_reads_the_column_of_a_file(composed: Compose, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    folders = []
    for scale in (1.0, 2.0):
        frame().assign(evaluations=np.arange(30) ** scale + 1).to_csv(path, index=False)
        given = [f"runs.path={path}", "weights=evaluations", "bootstrap=none"]
        asked: FitConfig = to_dataclass(composed("runs=csv", *given, name="fit"))
        folders.append(folder_of(asked, table_of(asked)))
    assert folders[0] != folders[1]
    assert fit(load_runs("csv", path=path), weights="evaluations").settings["weights"] == "evaluations"


def test_the_column_is_saved_with_the_fit(tmp_path: Path) -> None:
    table = weighed(np.arange(30.0))
    result = fit(table, "params_tokens", delta=1e-3, weights="weight", fixed={"E": 1.0})
    again, runs = load_fit(result.save(tmp_path, table)), RunsTable.read(tmp_path / "runs.parquet")
    assert weights_of(runs, "weight").tolist() == weights_of(table, "weight").tolist()
    refitted = fit(runs, again.law, delta=1e-3, weights="weight", fixed=again.settings["fixed"])
    assert (refitted.theta, refitted.objective) == (result.theta, result.objective)
    spec = spec_of(again)
    assert (spec.weights, spec.law.parameters) == ("weight", ("A", "B", "alpha", "beta"))


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (
            np.ones(30),
            {"weights": "none"},
            "weights=none: there is no such column; the table has run, width, depth, .*weight",
        ),
        (np.full(30, -1.0), {"weights": "weight"}, "weights=weight: allowed values are numbers from 0 in every row"),
        (np.zeros(30), {"weights": "weight"}, "not all of them 0"),
        (np.full(30, np.nan), {"weights": "weight"}, "allowed values are numbers from 0"),
        (np.ones(30), {"weights": "weight", "method": "hull"}, "weights=weight: method=hull does not take it"),
    ],
)
def test_what_is_no_weight_is_refused(values: np.ndarray, options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(weighed(values), **options)  # type: ignore[arg-type]
