"""The rainbow's lines: their number, published slopes, and intervals that hold them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shapelaw.config import BootstrapOptions
from shapelaw.fitting.rainbow import LINES, RainbowLine, rainbow


def test_lines_are_the_papers() -> None:
    parametric = [line for line in LINES if line.method == "parametric"]
    assert (len(parametric), len(LINES)) == (14, 24)
    assert len(set(LINES)) == 24


def test_a_row_per_line(data_dir: Path) -> None:
    lines = [RainbowLine("hot", "parametric", "no_embedding"), RainbowLine("cool_end", "hull")]
    table = rainbow(lines, BootstrapOptions(n=40))
    assert list(table["subset"]) == ["hot", "cool_end"]
    assert ((table["low"] < table["exponent"]) & (table["exponent"] < table["high"])).all()
    folder = data_dir / "gemstones/published/approach_1"
    published = json.loads((folder / "approach_1_linear_regression_params_cooldown.json").read_text())
    assert table["exponent"].iloc[1] == pytest.approx(published["coef"][0], abs=1e-9)
