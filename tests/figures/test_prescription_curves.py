"""Curves of best sizes: only budgets that are served, each law's params by its own counting."""

from __future__ import annotations

import dataclasses

import pytest

from shapelaw.counting import params
from shapelaw.figures.evidence import CannotDraw
from shapelaw.figures.prescriptions import curve
from shapelaw.prescribe.world import World
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
