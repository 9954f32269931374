"""Curves of best sizes: only budgets that are served, each law's params by its own counting."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from shapelaw.counting import params
from shapelaw.figures.evidence import MAIN, CannotDraw, of_the_paper
from shapelaw.figures.prescriptions import EQ2
from shapelaw.figures.sizes import WHOLE_BLOCKS, WHOLE_BUDGETS, WHOLE_HEADS, curve, whole_curve
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.world import World
from shapelaw.shapes import Shape, check_heads
from worlds import fitted, table


def test_a_law_without_shapes_is_compared_by_its_own_counting() -> None:
    fit = fitted("params_tokens")
    world = dataclasses.replace(World.of(fit, table()), counting="no_embedding_and_head")
    found = curve("ours", fit, world, [3.9e20])
    largest = [params(2048, 27, 50_304, counting) for counting in ("no_embedding_and_head", "total")]
    assert largest[0] < found["params"][0] < largest[1]
    assert found["inside"].all()


def test_budgets_whose_best_shape_is_an_end_are_left_out() -> None:
    fit = fitted("interaction")
    world = World.of(fit, table())
    assert curve("ours", fit, world, [1e12, 1e21, 1e30])["budget"].tolist() == [1e21]
    with pytest.raises(CannotDraw, match=r"no answer for any budget: .*the largest of all"):
        curve("ours", fit, world, [1e30])


def test_budgets_too_far_from_the_runs_are_left_out() -> None:
    """Those beyond which a law says nothing: one of them does not cost the others their picture."""
    fit = fitted("params_tokens", counting="no_embedding_and_head")
    world = World.of(fit, table())
    found = curve("ours", fit, world, [1e21, 1e22, 1e27])
    assert found["budget"].tolist() == [1e21, 1e22]
    with pytest.raises(CannotDraw, match=r"no answer for any budget: .*ask nearer to the fitted runs"):
        curve("ours", fit, world, [1e27])


@pytest.mark.parametrize("law", [EQ2, "interaction"])
def test_whole_shapes_are_those_that_prescribe_names(data_dir: Path, law: str) -> None:
    """Of the published runs, at budgets for which the best width is one of the suite's."""
    evidence = of_the_paper()
    fit, runs = evidence.fit(law), evidence.runs(MAIN)
    budgets = [budget for budget in WHOLE_BUDGETS if 5e18 < budget < 6e22][::18]
    found = whole_curve(fit, World.of(fit, runs), budgets)
    assert found["budget"].tolist() == budgets
    asked = Problem(fit, World.of(fit, runs), intervals=False)
    for row in found.to_dict("records"):
        answer = asked.best(row["budget"]).values
        names = ("width", "depth", "params", "tokens", "tokens_per_param", "aspect_ratio")
        assert [row[name] for name in names] == pytest.approx([answer[name] for name in names], rel=1e-12)
        shape = Shape(int(row["width"]), int(row["depth"]), 128)
        check_heads(shape)
        assert shape.n_head % 2 == 0


def test_whole_shapes_end_where_the_best_is_the_largest() -> None:
    fit = fitted("interaction")
    world = World.of(fit, table())
    found = whole_curve(fit, world, [1e21, 1e24, 1e32])
    assert found["budget"].tolist() == [1e21, 1e24]
    assert found["width"].max() < WHOLE_HEADS * world.rules.head_size
    assert found["depth"].max() < WHOLE_BLOCKS
    assert np.isfinite(found["tokens"]).all()
