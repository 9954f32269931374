"""What is the same on every processor and what is not: this one against those that have fewer instructions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import processors
from processors import APPLIES, LAWS, Answers
from support import ROOT, TINY

pytestmark = pytest.mark.skipif(not APPLIES, reason="the settings are of x86-64")


@pytest.fixture(scope="module")
def pair(corpora: Path, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Answers, Answers]:
    """This processor's answers beside those of the lowest, each from a process of its own. In `make test-processors` this
    processor is each of the settings."""
    here, lowest = [
        _answers(corpora, tmp_path_factory.mktemp("processor"), {**environment, "SHAPELAW_DATA_DIR": str(data_dir)})
        for environment in ({}, processors.settings()["x86-64"])
    ]
    return here, lowest


def _answers(corpora: Path, folder: Path, environment: dict[str, str]) -> Answers:
    command = [
        sys.executable,
        str(ROOT / "tests" / "processors.py"),
        "answers",
        corpora,
        folder,
        folder / "answers.json",
    ]
    whole = {**os.environ, "SHAPELAW_ROOT": str(ROOT), "SHAPELAW_SUITE": str(TINY), **environment}
    done = subprocess.run(command, env=whole, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: Answers = json.loads((folder / "answers.json").read_text())
    return found


@pytest.mark.parametrize("what", ["identities", "order", "shapes"])
def test_what_whole_numbers_decide_is_equal(pair: tuple[Answers, Answers], what: str) -> None:
    here, other = pair
    assert len(here[what]) > 1
    assert other[what] == here[what]


@pytest.mark.parametrize("law", LAWS)
def test_fits_agree_to_a_billionth(pair: tuple[Answers, Answers], law: str) -> None:
    """The lowest objective to its last digits, and the losses of the fit. A minimum is flat: its place, the parameters, is
    known to the root of the precision."""
    here, other = pair
    ours, theirs = here["fits"][law], other["fits"][law]
    assert theirs["objective"] == pytest.approx(ours["objective"], rel=1e-12)
    assert theirs["losses"] == pytest.approx(ours["losses"], rel=1e-9)
    assert theirs["parameters"] == pytest.approx(ours["parameters"], rel=1e-6)


def test_prescriptions_are_printed_alike(pair: tuple[Answers, Answers]) -> None:
    here, other = pair
    assert {"width", "depth", "tokens", "loss", "train"} <= set(here["prescription"])
    assert other["prescription"] == here["prescription"]


def test_weights_agree_to_float32_s_rounding(pair: tuple[Answers, Answers]) -> None:
    """And no further: initial weights to their last bit or two, the losses of the first 20 steps to what that makes of them."""
    here, other = pair
    assert other["weights"] == pytest.approx(here["weights"], abs=1e-6)
    assert len(here["losses"]) == 20
    assert other["losses"][0] == pytest.approx(here["losses"][0], rel=1e-6)
    assert other["losses"] == pytest.approx(here["losses"], abs=1e-4)
    assert other["held_out"] == pytest.approx(here["held_out"], abs=1e-4)
