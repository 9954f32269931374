"""Every example in a docstring runs as written."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from support import ROOT

SRC = ROOT / "src"
MODULES = sorted(
    ".".join(path.relative_to(SRC).with_suffix("").parts)
    for path in (SRC / "shapelaw").rglob("*.py")
    if ">>>" in path.read_text()
)
PUBLIC = (
    "shapelaw.fitting.compare",
    "shapelaw.fitting.fit",
    "shapelaw.fitting.result",
    "shapelaw.laws.catalogue",
    "shapelaw.prescribe.ask",
    "shapelaw.runs.load",
)
"""Where users of Python begin: each has an example."""


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert done.attempted > 0
    assert done.failed == 0


def test_what_users_of_python_call_has_an_example() -> None:
    assert set(PUBLIC) <= set(MODULES)
