"""States where a site keeps no accounting, and what the launcher cannot do without staying. No scheduler is needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shapelaw.errors import UserError
from shapelaw.sweep.accounting import find_array, words_of
from shapelaw.sweep.settings import SlurmSettings
from shapelaw.sweep.slurm import _check


def program(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_without_accounting_the_queue_is_asked(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program(programs, "sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    program(programs, "squeue", 'case "$*" in *-n*) exit 0;; esac; printf "7_0|RUNNING\\n7_2|FAILED\\n8_0|PENDING\\n"')
    assert words_of(["7"]) == {"7_0": "RUNNING", "7_2": "FAILED"}
    words = "no accounting here (Slurm accounting storage is disabled)"
    assert words in " ".join(capsys.readouterr().err.split())
    assert find_array("batch") is None


def test_another_failure_of_sacct_is_an_error(programs: Path) -> None:
    program(programs, "sacct", "echo sacct: error: Problem talking to the database >&2; exit 1")
    with pytest.raises(UserError, match="Problem talking to the database"):
        words_of(["7"])


def test_stopping_on_failure_needs_somebody_who_watches() -> None:
    with pytest.raises(UserError, match=r"stop_on_failure=true: .*hydra.launcher.wait=true"):
        _check(SlurmSettings(stop_on_failure=True))
    _check(SlurmSettings(stop_on_failure=True, wait=True))
