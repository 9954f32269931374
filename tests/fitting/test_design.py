"""Designs that cannot answer are refused or flagged before the first start, with the measure and what would mend it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shapelaw.errors import UserError
from shapelaw.fitting.design import CONDITION_HIGH, CONDITION_MOST, Design, flags, refuse
from shapelaw.fitting.fit import fit
from shapelaw.fitting.result import FitResult
from shapelaw.fitting.spec import FitSpec
from shapelaw.laws import get_law
from shapelaw.runs import RunsTable, load_runs
from shapelaw.verbs.fit_summary import show
from test_laws import NATURAL
from worlds import fitted
from worlds import table as shapes

SPEC = FitSpec.of("params_tokens", delta=1e-3)
SIZES = np.geomspace(2e7, 2e9, 12)


def table(params: Any, tokens: Any, **columns: Any) -> RunsTable:
    """Rows of one law without noise, each a run of its own."""
    sizes = {"params": np.asarray(params, dtype=float), "tokens": np.asarray(tokens, dtype=float)}
    loss = get_law("params_tokens").predict(NATURAL["params_tokens"], sizes)
    return RunsTable(pd.DataFrame({"run": [f"r{i}" for i in range(len(loss))], **sizes, "loss": loss, **columns}))


def codes(result: FitResult) -> set[str]:
    return {flag.partition(":")[0] for flag in result.flags}


@pytest.mark.parametrize("method", ["parametric", "hull", "binning", "isoflop"])
@pytest.mark.parametrize("exponent", [1.0, 0.5, -1.0])
def test_sizes_and_tokens_on_one_line_are_refused(method: str, exponent: float) -> None:
    """20 tokens per parameter, or any other line: beta was -3.25, and the next step a prescription."""
    with pytest.raises(
        UserError, match=r"params and tokens vary together over the 12 rows \(condition number"
    ) as refused:
        fit(table(SIZES, 4e8 * (SIZES / 2e7) ** exponent), method=method, delta=1e-3)
    assert "train a run off that line, such as params=" in str(refused.value)


def test_what_is_suggested_mends_it() -> None:
    runs = table(SIZES, 20 * SIZES)
    with pytest.raises(UserError) as refused:
        fit(runs, delta=1e-3)
    said = re.findall(r"params=(\S+) tokens=([^\s,]+)", str(refused.value))
    more = np.array(said, dtype=float)
    mended = table([*SIZES, *more[:, 0]], [*20 * SIZES, *more[:, 1]])
    assert Design.of(mended, SPEC).condition <= CONDITION_HIGH
    result = fit(mended, delta=1e-3)
    assert result.parameters["beta"] == pytest.approx(NATURAL["params_tokens"]["beta"], rel=0.02)
    assert "collinear_design" not in codes(result)


@pytest.mark.parametrize(
    ("scatter", "refused", "flagged"), [(0.001, True, True), (0.1, False, True), (0.8, False, False)]
)
def test_the_measure_decides_between_refusal_and_flag(scatter: float, refused: bool, flagged: bool) -> None:
    tokens = 20 * SIZES * np.exp(scatter * np.random.default_rng(0).standard_normal(12))
    design = Design.of(table(SIZES, tokens), SPEC)
    correlation = np.corrcoef(np.log(SIZES), np.log(tokens))[0, 1]
    assert design.condition == pytest.approx(np.sqrt((1 + correlation) / (1 - correlation)), rel=1e-9)
    assert (design.condition > CONDITION_MOST) == refused
    assert any(flag.startswith("collinear_design:") for flag in flags(design)) == flagged


@pytest.mark.parametrize("subset", ["hot", "hot_100b+", "lr_ablation_hot", "cool_end", "slim_chinchilla"])
def test_published_designs_answer(data_dir: Path, subset: str) -> None:
    assert flags(Design.of(load_runs("gemstones", subset=subset), SPEC)) == ()


def test_short_ranges_are_flagged_with_what_would_lengthen_them(data_dir: Path) -> None:
    late = flags(Design.of(load_runs("gemstones", subset="hot_120b+_only"), SPEC))
    assert len(late) == 1
    assert late[0].startswith("short_range: tokens spans 0.46 decades, below 0.5")
    assert "a run at tokens=3.8e+11 or beyond" in late[0]
    narrow = flags(Design.of(load_runs("gemstones", subset="512x"), SPEC))
    assert [flag.partition(" spans")[0] for flag in narrow] == ["short_range: params"]


def test_one_ratio_of_shapes_is_flagged_by_a_law_of_shapes() -> None:
    grid = [(w, w // 16, t) for w in (128, 256, 512, 1024) for t in (1e9, 4e9, 1.6e10)]
    width, depth, tokens = np.array(grid).T
    runs = table(12 * width**2 * depth, tokens, width=width.astype(int), depth=depth.astype(int))
    said = [
        flag for flag in fit(runs, law="width_depth_tokens", delta=1e-3).flags if flag.startswith("collinear_design:")
    ]
    assert len(said) == 1
    assert re.search(r"width and depth vary together .*such as width=128 depth=64", said[0])
    assert "collinear_design" not in codes(fit(runs, law="params_tokens", delta=1e-3))


def test_one_size_has_no_line() -> None:
    with pytest.raises(UserError, match=r"method=hull: all 6 rows have params=1e\+08.*train other values"):
        fit(table([1e8] * 6, np.geomspace(1e9, 1e11, 6)), method="hull")


def test_two_values_of_an_axis_are_flagged() -> None:
    params, tokens = np.meshgrid(SIZES[::4], [1e9, 1e10])
    assert "few_levels" in codes(fit(table(params.ravel(), tokens.ravel()), delta=1e-3))


def test_few_rows_are_refused_for_their_number() -> None:
    with pytest.raises(UserError, match="3 points for the 5 parameters"):
        fit(table(SIZES[:3], 20 * SIZES[:3]))


@given(
    st.lists(st.tuples(st.floats(6, 10), st.floats(8, 12)), min_size=5, max_size=20), st.floats(-2, 2), st.floats(0, 1)
)
@settings(max_examples=25, deadline=None)
def test_any_design_is_judged_without_a_warning(points: list[tuple[float, float]], slope: float, spread: float) -> None:
    """Whatever the rows, there is a verdict; what passes unflagged has axes of their own."""
    logs = np.array(points)
    logs[:, 1] = 10 + slope * (logs[:, 0] - 8) + spread * (logs[:, 1] - 10)
    design = Design(("params", "tokens"), logs)
    try:
        refuse(design, SPEC)
    except UserError:
        assert design.condition > CONDITION_MOST
    else:
        assert design.condition <= CONDITION_MOST
    if not flags(design):
        assert abs(np.corrcoef(logs.T)[0, 1]) < 0.981


def budgets(k: Any) -> RunsTable:
    """Four budgets of nine sizes that record both FLOPs and tokens: a token costs k(size) FLOPs a parameter."""
    rows = []
    for cost in (1e17, 1e18, 1e19, 1e20):
        centre = 0.1 * np.sqrt(cost)
        for size in centre * np.geomspace(0.25, 4, 9):
            loss = 2.0 + 0.05 * np.log(size / centre) ** 2 + 1e3 * cost**-0.2
            rows.append({"params": size, "tokens": cost / (k(size) * size), "flops": cost, "loss": loss})
    frame = pd.DataFrame(rows)
    return RunsTable(frame.assign(run=[f"r{i}" for i in range(len(frame))]))


@pytest.mark.parametrize(
    ("k", "exponent", "said"),
    [
        (lambda size: 6.0, 0.5, ""),
        (lambda size: 6.78 + 0 * size, 0.5, "11.5% fewer than FLOPs / (6 params)"),
        (lambda size: 6.0 * (size / 3e7) ** -0.1, 0.55, "more than FLOPs / (6 params)"),
    ],
)
def test_tokens_of_isoflops_are_those_of_the_table(k: Any, exponent: float, said: str) -> None:
    """The best size is 0.1 C^0.5; its tokens are C / (k N)."""
    result = fit(budgets(k), method="isoflop")
    assert result.parameters["params_exponent"] == pytest.approx(0.5, abs=1e-9)
    assert result.parameters["tokens_exponent"] == pytest.approx(exponent, abs=1e-6)
    best = np.exp(result.parameters["tokens_log_coefficient"]) * 1e18 ** result.parameters["tokens_exponent"]
    assert best == pytest.approx(1e18 / (k(1e8) * 1e8), rel=1e-6)
    noted = [flag for flag in result.flags if flag.startswith("isoflop_tokens:")]
    assert len(noted) == bool(said)
    assert all(said in flag for flag in noted)


@pytest.mark.parametrize(
    ("law", "changed", "columns", "said"),
    [
        ("params_tokens", {}, {}, "; next: shapelaw prescribe fit="),
        (
            "params_tokens",
            {"beta": -3.25, "B": 1e-60},
            {},
            "it cannot prescribe a size: by its parameters the best size",
        ),
        ("interaction", {}, {}, "; next: shapelaw prescribe fit="),
        (
            "interaction",
            {},
            {"vocab_size": np.nan},
            "it cannot prescribe a size: vocab_size: the runs do",
        ),
    ],
)
def test_the_next_step_is_one_that_prescribe_takes(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    law: str,
    changed: dict[str, float],
    columns: dict[str, Any],
    said: str,
) -> None:
    fitted(law, **changed).save(tmp_path, unrecorded(**columns))
    show({(law,): tmp_path})
    assert said in capsys.readouterr().out


def unrecorded(**columns: Any) -> RunsTable:
    """Six shapes at three token counts, whose suite only the columns tell."""
    return RunsTable(shapes().frame.assign(suite="", **columns))
