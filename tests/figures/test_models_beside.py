"""Models that were evaluated stand beside one's own runs, as widely used ones stand beside the paper's."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from matplotlib import pyplot

from shapelaw.errors import UserError
from shapelaw.figures import costs, industry, shapes
from shapelaw.figures.evidence import Evidence
from shapelaw.figures.prescriptions import Asked, extended
from worlds import fitted, table

ROWS = {"name": ["a", "b"], "params": [1e9, 2e9], "width": [2048, 2304], "depth": [16, 26], "tokens": [2e12, None]}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A table as `shapelaw evaluate` writes it, with columns that no figure reads."""
    pd.DataFrame({**ROWS, "loss": [2.25, 2.5], "perplexity": 9.0}).to_csv(tmp_path / "models.csv", index=False)
    return tmp_path / "models.csv"


def test_a_table_of_models_is_read_with_what_figures_need(models: Path) -> None:
    frame = industry.read(models)
    assert frame["flops"].iloc[0] == 6 * 1e9 * 2e12
    assert frame[["aspect_ratio", "tokens_per_param"]].iloc[0].tolist() == [128.0, 2000.0]
    assert frame["flops"].isna().tolist() == [False, True]
    beside = industry.beside(Evidence(lambda subset: table(), models=frame))["industry"]
    pd.testing.assert_frame_equal(beside, frame)
    assert industry.beside(Evidence(lambda subset: table())) == {}


def test_they_are_drawn(models: Path) -> None:
    """Their shapes on the plane, and their losses within a panel's limits."""
    frame = industry.read(models)
    tables = shapes.spread_table(Evidence(lambda subset: table(), models=frame))
    figure = shapes.spread(tables)
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == industry.EVALUATED]
    assert list(zip(*line.get_data(), strict=True)) == [(2048, 16), (2304, 26)]
    pyplot.close(figure)
    figure, axes = pyplot.subplots()
    axes.set_ylim(2.0, 2.4)
    costs._reference_losses(axes, frame)
    assert [text.get_text() for text in axes.texts] == ["- a"]
    pyplot.close(figure)


def test_another_table_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.csv: cannot be read"):
        industry.read(tmp_path / "nothing.csv")
    (tmp_path / "other.csv").write_text("name,loss\na,2\n")
    with pytest.raises(
        UserError, match="has no column params; its columns are name, params, width, depth, tokens, loss"
    ):
        industry.read(tmp_path / "other.csv")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("", "holds no models; add a row for each"),
        ("a,1e9,wide,16,2e12,2.25\n", "width of a is wide; allowed is a number above 0, or nothing"),
        ("a,1e9,2048,16,,-2.25\n", "loss of a is -2.25"),
        ("a,1e9,2048,16,1e12,2.25,b,0\n", "cannot be read"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path, rows: str, said: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        ",".join(industry.COLUMNS) + f"\nb,1e9,2048,16,1e12,2.25\n{rows}" if rows else ",".join(industry.COLUMNS)
    )
    with pytest.raises(UserError, match=f"^models={path}: {said}"):
        industry.read(path)


def test_they_stand_beside_the_prescriptions_of_one_s_own_runs(models: Path) -> None:
    """At their FLOPs and sizes, under their own name; one whose tokens nobody states has no place."""
    frame = industry.read(models)
    runs = table(loss=fitted("width_depth_params_tokens").predict(table()))
    tables = Asked(sizes=False).tables(Evidence(lambda subset: runs, models=frame))
    figure = extended(tables)
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == industry.EVALUATED]
    assert next(zip(*line.get_data(), strict=True)) == (6 * 1e9 * 2e12, 1e9)
    pyplot.close(figure)
