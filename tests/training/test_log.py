"""What a run says of itself: losses as lines, in its log.txt and where there is no terminal."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from shapelaw.errors import UserError
from shapelaw.run_state import LOG_FILE
from shapelaw.verbs.train import TrainTask
from support import Compose

VALIDATION = re.compile(r"step (\d+)/20, [\d,]+ tokens: (?:loss [\d.]+, )?held out [\d.]+.*")


def steps_of(text: str) -> list[int]:
    """Steps of the validations that a text tells, which has no other line."""
    return [int(found[1]) for line in text.splitlines() if (found := VALIDATION.fullmatch(line))]


def log_of(outputs: Path) -> str:
    (run,) = (outputs / "runs" / "tiny").iterdir()
    return (run / LOG_FILE).read_text()


@pytest.mark.parametrize("progress", ["true", "false"])
def test_a_single_run_has_a_log_of_its_losses(
    composed: Compose, outputs: Path, capsys: pytest.CaptureFixture[str], progress: str
) -> None:
    """Whether it is shown or not; without a terminal the same lines are shown."""
    config = composed("accelerator=cpu", f"progress={progress}")
    TrainTask().single(config)
    assert steps_of(log_of(outputs)) == [4, 8, 12, 16, 20]
    assert len(log_of(outputs).splitlines()) == 5
    shown = capsys.readouterr().err
    assert steps_of(shown) == ([4, 8, 12, 16, 20] if progress == "true" else [])
    TrainTask().single(config)  # which is finished
    assert len(log_of(outputs).splitlines()) == 5


def test_its_log_has_warnings_and_what_ended_it(
    composed: Compose, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*given: object) -> float:
        logging.getLogger("shapelaw.training").warning("the store is away\x1b[31m")
        raise UserError("lr_base=1e30: the run diverged")

    monkeypatch.setattr("shapelaw.training.run.train", trained)
    handlers = [*logging.getLogger().handlers]
    with pytest.raises(UserError):
        TrainTask().single(composed("accelerator=cpu"))
    assert log_of(outputs) == "the store is away\\x1b[31m\nUserError: lr_base=1e30: the run diverged\n"
    assert logging.getLogger().handlers == handlers


def test_a_run_of_a_sweep_prints_its_losses_where_there_is_no_terminal(
    composed: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is its log.txt."""
    TrainTask()(composed("accelerator=cpu", "precision=fp32"))
    assert steps_of(capsys.readouterr().err) == [4, 8, 12, 16, 20]
