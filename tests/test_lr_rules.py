"""The learning-rate rules against the published rates."""

from __future__ import annotations

import math

import pytest

from shapelaw.config import DepthPatch
from shapelaw.errors import UserError
from shapelaw.lr_rules import DEFAULT_PATCH, LR_RULES, NO_PATCH, lr_eff
from shapelaw.shapes import Shape


# Gemstones, appendix F.2: rates at lr_base 5 without and with the patch, to four digits.
@pytest.mark.parametrize(
    ("width", "depth", "plain", "patched"),
    [(2560, 8, 6.905e-4, 3.830e-4), (3072, 12, 4.698e-4, 2.923e-4), (1792, 7, 1.055e-3, 6.577e-4)],
)
def test_published_rates_of_extreme_shapes(width: int, depth: int, plain: float, patched: float) -> None:
    shape = Shape(width, depth)
    assert lr_eff(5.0, shape, patch=NO_PATCH) == pytest.approx(plain, rel=5e-4)
    assert lr_eff(5.0, shape) == pytest.approx(patched, rel=5e-4)
    assert lr_eff(2.5, shape) == pytest.approx(patched / 2, rel=5e-4)


def test_strict_patch_takes_one_shape_alone() -> None:
    strict = DepthPatch(patch_strict=True)
    patched = [(width, depth) for width, depth in [(2560, 8), (3072, 12), (1792, 7)] if strict.applies(width, depth)]
    assert patched == [(2560, 8)]


def test_published_shapes_that_the_patch_takes() -> None:
    others = [(1280, 15), (1792, 18), (512, 11), (256, 80), (2048, 27), (1024, 28), (384, 13), (1536, 50)]
    assert not any(DEFAULT_PATCH.applies(*shape) for shape in others)
    named = [(1792, 7), (2560, 8), (3072, 12)]
    assert all(DEFAULT_PATCH.applies(*shape) for shape in named)
    at_the_ratio = [(768, 3), (1792, 7), (3072, 12)]
    assert all(
        DepthPatch(patch_strict=False).applies(*shape) and not DepthPatch().applies(*shape) for shape in at_the_ratio
    )


def test_a_shape_that_the_paper_does_not_name_goes_by_its_text() -> None:
    """768x3 has a ratio of exactly 256, too, and no place in the paper's list."""
    assert lr_eff(5.0, Shape(768, 3)) == pytest.approx(3.76e-3, rel=1e-3)
    assert lr_eff(5.0, Shape(512, 2)) == pytest.approx(5 / (512 * math.sqrt(2)))
    assert lr_eff(5.0, Shape(1024, 3)) == pytest.approx(5 / (1024 * math.sqrt(11)))


def test_named_shapes_are_patched_whatever_their_ratio() -> None:
    named = DepthPatch(patch_ratio=math.inf, patch_shapes=["512x4"])
    assert (named.depth(512, 4), named.depth(512, 3), named.depth(5120, 4)) == (6.0, 3.0, 4.0)
    assert str(named) == "for 512x4, depth counts as width / 100"
    assert str(DEFAULT_PATCH).startswith("from width / depth > 256 and for 1792x7, 2560x8, 3072x12, depth")
    assert lr_eff(5.0, Shape(64, 4, 16), width_unit=8.0, patch=named) == pytest.approx(5 / (512 * math.sqrt(6)))
    assert hash(named) == hash(DepthPatch(patch_ratio=math.inf, patch_shapes=["512x4"]))
    with pytest.raises(UserError, match="patch_shapes=wide: allowed values are shapes as WIDTHxDEPTH"):
        DepthPatch(patch_shapes=["wide"])


def test_every_rule_by_hand() -> None:
    shape = Shape(512, 16)
    expected = {"width_sqrt_depth": 5 / 2048, "width": 5 / 512, "sqrt_depth": 5 / 4, "none": 5.0}
    assert {rule: lr_eff(5.0, shape, rule) for rule in LR_RULES} == pytest.approx(expected)


def test_widths_count_in_the_units_of_the_suite() -> None:
    nano = Shape(32, 2, head_size=16)
    assert lr_eff(5.0, nano, width_unit=128 / 16) == pytest.approx(5 / (256 * math.sqrt(2)))
    assert lr_eff(5.0, nano, width_unit=128 / 16) == pytest.approx(0.01381, rel=1e-3)
    assert lr_eff(5.0, nano) == pytest.approx(0.1105, rel=1e-3)


def test_the_patch_is_asked_in_the_units_of_the_suite() -> None:
    wide = Shape(128, 2, head_size=16)  # 1024 x 2 in the paper's units: depth' = 11
    assert lr_eff(5.0, wide, width_unit=8.0) == pytest.approx(5 / (1024 * math.sqrt(11)))
    assert lr_eff(5.0, wide, width_unit=8.0, patch=NO_PATCH) == pytest.approx(5 / (1024 * math.sqrt(2)))


def test_bad_input() -> None:
    with pytest.raises(UserError, match="lr_rule=mup: allowed values are width_sqrt_depth, width, sqrt_depth, none"):
        lr_eff(5.0, Shape(256, 2), "mup")
    with pytest.raises(UserError, match=r"lr_base=0\.0"):
        lr_eff(0.0, Shape(256, 2))
    with pytest.raises(UserError, match="width_unit=nan"):
        lr_eff(1.0, Shape(256, 2), width_unit=math.nan)
