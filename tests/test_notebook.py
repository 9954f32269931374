"""Fits and tables in a notebook: text of a screen at most, HTML, tables, axes and prescriptions."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from shapelaw import FitResult, RunsTable, UserError, fit, load_fit
from shapelaw.fitting import progress
from shapelaw.fitting.shown import COLUMNS, LINES
from shapelaw.prescribe import Problem

TRUTH = {"E": 1.5, "A": 400.0, "B": 400.0, "alpha": 0.34, "beta": 0.28}


@pytest.fixture(scope="module")
def runs() -> RunsTable:
    """Nine runs of three validations each, by eq. 1 with noise of 0.1%."""
    sizes = pd.DataFrame({"params": np.repeat(np.geomspace(1e8, 8e8, 9), 3), "tokens": np.tile([1e9, 4e9, 16e9], 9)})
    noise = np.exp(1e-3 * np.random.default_rng(0).standard_normal(27))
    loss = (1.5 + 400 / sizes.params**0.34 + 400 / sizes.tokens**0.28) * noise
    return RunsTable(sizes.assign(run=[f"<{k // 3}>" for k in range(27)], loss=loss))


@pytest.fixture(scope="module")
def result(runs: RunsTable) -> FitResult:
    return fit(runs, "params_tokens", bootstrap={"n": 50}, profile=True)


def test_a_fit_is_a_screen_of_text(result: FitResult) -> None:
    lines = repr(result).splitlines()
    assert repr(result) == result.summary()
    assert lines[0].startswith("params_tokens, fitted to 27 rows of 9 runs")
    wordy = dataclasses.replace(result, flags=tuple(f"code_{k}: {'word ' * 200}" for k in range(60)))
    lines = repr(wordy).splitlines()
    assert (len(lines), max(map(len, lines)), lines[-1]) == (LINES, COLUMNS, "  ...")


def test_its_table_holds_values_and_intervals(result: FitResult) -> None:
    table = result.table()
    assert list(table.columns) == ["value", "low", "high", "unit", "identified"]
    assert {*table.index} == {*TRUTH, "compute_optimal_exponent"}
    low, high = result.intervals["alpha"]
    row = table.loc["alpha"]
    assert (row["value"], row["low"], row["high"]) == (result.parameters["alpha"], low, high)
    assert low < TRUTH["alpha"] < high
    assert table.loc["E", "unit"] == "nats per token"
    vague = dataclasses.replace(result, not_identified=("E",), intervals={})
    assert not vague.table().loc["E", "identified"]
    assert vague.table()["low"].isna().all()


def test_its_html_has_parameters_flags_and_the_picture(result: FitResult, runs: RunsTable) -> None:
    flagged = dataclasses.replace(result, flags=("few_runs: <b>9</b> runs",)).fitted_to(runs)
    html = flagged._repr_html_()
    assert f"<td>{result.parameters['alpha']:.4g}</td>" in html
    assert "<li>few_runs: &lt;b&gt;9&lt;/b&gt; runs</li>" in html
    assert re.search(r'<img alt="[^"]+" src="data:image/png;base64,iVBOR', html)
    assert "<img" not in dataclasses.replace(result)._repr_html_()  # the runs are not known any more


def test_its_pictures_are_axes(result: FitResult, runs: RunsTable) -> None:
    axes = Figure().add_subplot()
    assert result.plot(ax=axes) is axes
    assert axes.get_xlabel() == "training FLOPs"
    measured = [line for line in axes.lines if line.get_marker() == "." and len(np.asarray(line.get_xdata()))]
    assert sorted(y for line in measured for y in np.asarray(line.get_ydata())) == sorted(runs.kept["loss"])
    assert "minus 1 (%)" in result.plot("residuals", ax=Figure().add_subplot()).get_ylabel()
    assert "exponent" in result.plot("profile", ax=Figure().add_subplot()).get_xlabel()


@pytest.mark.parametrize("kind", ["loss", "residuals"])
def test_what_cannot_be_drawn_is_refused(result: FitResult, runs: RunsTable, kind: str) -> None:
    with pytest.raises(UserError, match=r"^kind=pie: allowed values are loss, residuals, profile$"):
        result.plot("pie")
    with pytest.raises(UserError, match=f"^kind={kind}: is drawn only for laws of the loss, and this is hull$"):
        fit(runs, method="hull").plot(kind)
    with pytest.raises(UserError, match=r"^kind=profile: the fit has no profile"):
        dataclasses.replace(result, profiles={}).plot("profile")
    with pytest.raises(UserError, match=r"^runs: this fit does not know the table"):
        dataclasses.replace(result).plot(kind)


def test_it_prescribes(result: FitResult, runs: RunsTable) -> None:
    answer = result.prescribe(budget=1e20, space="params")
    assert answer.values == Problem.of(result, runs, space="params").best(1e20).values
    reached = result.prescribe(loss=2.6, space="params")
    assert reached.values["loss"] == pytest.approx(2.6)
    for given in ({}, {"budget": 1e20, "loss": 2.6}):
        with pytest.raises(UserError, match=r"^prescribe: give either budget=FLOPs or loss=NATS$"):
            result.prescribe(space="params", **given)


def test_a_fit_that_is_read_back_knows_its_runs(result: FitResult, runs: RunsTable, tmp_path: Path) -> None:
    again = load_fit(result.save(tmp_path / "with", runs))
    assert again.fitted_runs == runs
    assert again.prescribe(budget=1e20, space="params").values == result.prescribe(budget=1e20, space="params").values
    alone = load_fit(result.save(tmp_path / "without"))
    with pytest.raises(UserError, match=r"^runs: this fit does not know"):
        alone.plot()
    assert alone.plot(runs=runs, ax=Figure().add_subplot()).get_title() == ""
    assert alone == again


def test_a_table_is_a_line_html_and_a_picture(runs: RunsTable) -> None:
    assert repr(runs) == "RunsTable: 27 rows of 9 runs; params 1e+08 to 8e+08, tokens 1e+09 to 1.6e+10, loss " + (
        f"{runs.kept['loss'].min():.3g} to {runs.kept['loss'].max():.3g}"
    )
    frame = runs.frame.assign(excluded=["<bad>", *[""] * 26])
    html = RunsTable(frame)._repr_html_()
    assert "<li>1 rows excluded: &lt;bad&gt;</li>" in html
    assert html.count("<tr") == 9  # the head and eight rows
    axes = runs.plot(ax=Figure().add_subplot())
    drawn = sorted(y for line in axes.lines for y in np.asarray(line.get_ydata()))
    assert drawn == sorted(runs.kept["loss"])


def test_a_figure_of_its_own_is_one_that_a_notebook_shows(tmp_path: Path) -> None:
    """By pyplot, in a process of its own, as pyplot keeps its figures."""
    code = """
import matplotlib; matplotlib.use("Agg")
import matplotlib.pyplot as plt, pandas as pd, sys
from shapelaw import RunsTable
assert "shapelaw.figures.fit" not in sys.modules
frame = pd.DataFrame({"params": [1e8, 2e8], "tokens": [1e9, 2e9], "loss": [3.0, 2.9], "run": ["a", "b"]})
assert RunsTable(frame).plot().figure is plt.figure(plt.get_fignums()[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_refits_of_a_notebook_have_one_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """One display, updated, and empty at the end; short work, and work elsewhere, shows none."""
    shown: list[tuple[str, str]] = []

    class Handle:
        def update(self, content: dict[str, str], raw: bool) -> None:
            shown.append(("updated", content["text/plain"]))

    def display(content: dict[str, str], raw: bool, display_id: bool) -> Handle:
        shown.append(("new", content["text/plain"]))
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    for notebook, after in ((False, 0.0), (True, 100.0), (True, 0.0)):
        monkeypatch.setattr(progress, "_in_notebook", lambda notebook=notebook: notebook)
        monkeypatch.setattr(progress, "AFTER_SECONDS", after)
        assert shown == []
        with progress.Progress(3, "refits") as counted:
            for _ in range(3):
                counted.step()
    assert shown == [
        ("new", "1 of 3 refits"),
        ("updated", "2 of 3 refits"),
        ("updated", "3 of 3 refits"),
        ("updated", ""),
    ]
