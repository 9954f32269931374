"""Laws that read further axes of shapes: columns beside the canonical ones, fitted, kept with the fit, and asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shapelaw import RunsTable, UserError, fit, load_fit
from shapelaw.laws import LAWS, SumLaw, Term, get_law
from shapelaw.runs.axes import table_of
from shapelaw.verbs.prescribe import prescribe
from support import Door, asked

EXPERTS = SumLaw(
    "experts",
    "L = A/(params^alpha experts^gamma) + B/tokens^beta + E",
    "this test",
    (Term("A", falls={"params": "alpha", "experts": "gamma"}), Term("B", falls={"tokens": "beta"})),
)
FILE = """
import numpy as np

from shapelaw.laws import Law


class Experts(Law):
    name = "my_experts"
    formula = "L = A/(params^alpha experts^gamma) + B/tokens^beta + E"
    source = "this test"
    predictors = ("params", "tokens", "experts")
    parameters = ("A", "B", "alpha", "beta", "gamma", "E")
    log_parameters = frozenset({"A", "B", "E"})
    exponents = ("alpha", "beta")
    irreducible = "E"

    def log_prediction(self, theta, columns):
        n, t, e = (np.log(columns[name]) for name in self.predictors)
        first = theta[0] - theta[2] * n - theta[4] * e
        return np.logaddexp(np.logaddexp(first, theta[1] - theta[3] * t), theta[5])


MINE = Experts()
"""
TRUTH = {"A": 400.0, "B": 400.0, "alpha": 0.34, "gamma": 0.1, "beta": 0.28, "E": 1.7}


def frame(noise: float = 0.0) -> pd.DataFrame:
    """Sizes on a grid of params, tokens and experts, in a column that is no canonical one."""
    axes = (np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 1e11, 4), (1.0, 4.0, 16.0))
    params, tokens, experts = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    loss = EXPERTS.predict(TRUTH, {"params": params, "tokens": tokens, "experts": experts})
    loss = loss * np.exp(noise * np.random.default_rng(0).standard_normal(len(loss)))
    return pd.DataFrame({"params": params, "tokens": tokens, "experts": experts, "loss": loss, "run": np.arange(48)})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit of a user's law of a file, with its runs."""
    folder = tmp_path_factory.mktemp("experts")
    (folder / "laws.py").write_text(FILE)
    runs = table_of(frame(1e-3))
    result = fit(runs, law=f"{folder}/laws.py:MINE", delta=1e-2, grid_size=12, bootstrap={"n": 8})
    result.save(folder / "fit", runs)
    return folder / "fit"


def test_a_law_of_experts_finds_what_made_the_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAWS, "experts", EXPERTS)
    result = fit(frame(), law=EXPERTS, delta=1e-3)
    assert result.parameters == pytest.approx(TRUTH, rel=1e-5)
    np.testing.assert_allclose(result.predict(frame()), frame()["loss"], rtol=1e-8)
    changed = frame().assign(experts=64.0)
    expected = EXPERTS.predict(TRUTH, changed.to_dict("list"))
    np.testing.assert_allclose(result.predict(changed), expected, rtol=1e-6)


def test_a_fit_keeps_its_axes(saved: Path) -> None:
    """They are part of the table's content: other experts are other runs."""
    runs = RunsTable.read(saved / "runs.parquet")
    np.testing.assert_array_equal(runs.kept["axis_experts"], frame()["experts"])
    again = fit(runs, law=load_fit(saved).law or "", delta=1e-2, grid_size=12, bootstrap={"n": 8})
    assert again.parameters == load_fit(saved).parameters
    twice = runs.frame.assign(axis_experts=2 * runs.frame["axis_experts"])
    assert RunsTable(twice).hash != runs.hash


def told(saved: Path, **options: Any) -> Any:
    return prescribe(asked(fit=str(saved), **options))


def test_a_budget_is_answered_at_the_experts_that_are_given(saved: Path) -> None:
    answers = {experts: told(saved, budget=1e20, space="params", axes={"experts": experts}) for experts in (2.0, 8.0)}
    law, vector = get_law(load_fit(saved).law or ""), load_fit(saved).vector
    for experts, answer in answers.items():
        n = np.geomspace(answer.values["params"] / 3, answer.values["params"] * 3, 20_001)
        columns = {"params": n, "tokens": 1e20 / (6 * n), "experts": np.full_like(n, experts)}
        losses = law.log_prediction(vector, columns)
        assert answer.values["params"] == pytest.approx(n[losses.argmin()], rel=2e-3)
        assert answer.values["loss"] == pytest.approx(np.exp(losses.min()), rel=1e-9)
    assert answers[8.0].values["loss"] < answers[2.0].values["loss"]
    assert "holds at experts=8; the fitted runs have 1 to 16" in answers[8.0].notes
    (note,) = [
        note for note in told(saved, budget=1e20, space="params", axes={"experts": 64}).notes if "experts" in note
    ]
    assert note == "holds at experts=64, 4 times outside the fitted 1 to 16: extrapolated"


def test_a_size_is_predicted_at_its_experts(saved: Path) -> None:
    answer = told(saved, params=1e8, tokens=1e10, axes={"experts": 4})
    columns = {"params": [1e8], "tokens": [1e10], "experts": [4.0]}
    assert answer.values["loss"] == pytest.approx(EXPERTS.predict(TRUTH, columns)[0], rel=2e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {},
            r"law=my_experts: reads experts too, 1 to 16 in the fitted runs; give the value for which you want the "
            r"answer, as 'axes=\{experts: NUMBER\}'",
        ),
        ({"axes": {"experts": 0.0}}, r"axes\.experts=0: allowed values are positive numbers"),
        (
            {"axes": {"experts": 4, "heads": 2}},
            r"axes\.heads=2: law=my_experts does not read it; allowed names are experts",
        ),
    ],
)
def test_wrong_axes_are_refused(saved: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        told(saved, budget=1e20, space="params", **options)


def test_axes_are_refused_by_a_law_that_reads_none(tmp_path: Path) -> None:
    runs = table_of(frame(1e-3))
    fit(runs, law="params_tokens", delta=1e-2, bootstrap={"n": 3}).save(tmp_path / "fit", runs)
    with pytest.raises(UserError, match=r"axes\.experts=4: law=params_tokens does not read it; leave axes out"):
        told(tmp_path / "fit", budget=1e20, space="params", axes={"experts": 4})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            frame().drop(columns="experts"),
            r"law=experts: reads experts, which is not a column of the table; it has run, ",
        ),
        (frame().assign(experts=[0.0, *[2.0] * 47]), r"reads experts, and 1 of 48 rows have no positive number"),
        (frame().assign(experts="many"), r"reads experts, and 48 of 48 rows"),
        (frame().assign(experts=4.0), r"column experts has the single value 4"),
    ],
)
def test_tables_without_the_axis_are_refused(table: pd.DataFrame, said: str) -> None:
    with pytest.raises(UserError, match=said):
        fit(table, law=EXPERTS)


def test_rows_without_it_may_be_left_out() -> None:
    table = table_of(frame().assign(experts=lambda rows: rows["experts"].where(rows["run"] > 3)))
    kept = table.select("run != '0' and run != '1' and run != '2' and run != '3'")
    assert fit(kept, law=EXPERTS, delta=1e-3).parameters == pytest.approx(TRUTH, rel=1e-5)


def test_the_doors_fit_and_ask(tmp_path: Path, outputs: Path, door: Door) -> None:
    """A CSV file with a column of experts, a law of a file: from `fit` to `prescribe`."""
    frame(1e-3).to_csv(tmp_path / "runs.csv", index=False)
    (tmp_path / "laws.py").write_text(FILE)
    table = (
        "runs=csv",
        f"runs.path={tmp_path}/runs.csv",
        "tracker=none",
        "delta=1e-2",
        "grid_size=4",
        "bootstrap=none",
        "plots=false",
    )
    code, said = door("fit", f"law={tmp_path}/laws.py:MINE", *table)
    assert code == 0, said
    (folder,) = (outputs / "fits").iterdir()
    assert f"next: shapelaw prescribe fit={folder} budget=FLOPs space=params 'axes={{experts: NUMBER}}'" in said
    assert "share" not in said  # rows of other experts are no repeats
    words = (f"fit={folder}", "budget=1e20", "space=params")
    code, said = door("prescribe", *words)
    assert (code, said.count("\n")) == (2, 1)
    assert "give the value for which you want the answer, as 'axes={experts: NUMBER}'" in said
    code, said = door("prescribe", *words, "axes={experts: 8}")
    assert code == 0, said
    assert "holds at experts=8" in " ".join(said.split())
    (answer,) = outputs.rglob("MINE-*.yaml")  # among the answers, and not beside the law's file
    assert answer.parent.parent == outputs
