"""Every input broken at random is refused in one line, or does no harm. docs/guarantees.md holds the table of the long form."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from trust.attacks import GUARD, attacked_places
from trust.fuzz import all_places, run

NAMES = [
    "a manifest's bytes",
    "a manifest edited by hand, without its seal",
    "a shard's bytes (tokens)",
    "fit.json's bytes",
    "fit.json edited by hand, without its seal",
    "a checkpoint's bytes, any of its files",
    "a run's state.json, edited",
    "a runs table's bytes (CSV)",
    "train.py's command line",
    "fit.py's command line",
    "prescribe.py's command line",
    "report.py's command line",
    "a run's state.json, its bytes",
    "a run's rollbacks.json, its bytes",
    "a journal's bytes (tracking.jsonl)",
    "how far a journal is delivered (tracking.sent.json)",
    "a tracking database's pages (mlflow.db)",
    "the records of a submission",
    "the table beside a fit (runs.parquet)",
    "the newest fit's bytes, where no fit is named",
    "the shards of a further held-out corpus",
    "the record of an evaluation",
    "how far an evaluation is",
    "how far wandb has a journal (tracking.wandb.json)",
    "the metrics of a program (metrics.jsonl)",
    "a run's config.yaml",
    "a prediction's file",
    "the table of evaluations (models.csv)",
    "a run's fingerprint.yaml",
    "how often a job was interrupted (interruptions.json)",
    "an interrupted preparation, any of its files",
    "the trials of a search (optuna.db)",
]


@pytest.mark.parametrize("cases", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_nothing_broken_is_taken_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cases: int, recwarn: pytest.WarningsRecorder
) -> None:
    for name in ("SHAPELAW_SUITE", "SHAPELAW_OUTPUTS"):
        monkeypatch.setenv(name, "")  # put back afterwards
    tallies = {place.name: run(place, cases) for place in all_places(tmp_path / "material")}
    assert list(tallies) == NAMES
    assert all(tally.total() >= 10 for tally in tallies.values())
    assert all(tally["refused"] for tally in tallies.values())


@pytest.mark.parametrize("cases", [10, pytest.param(500, marks=pytest.mark.slow)])
def test_no_attack_runs_connects_or_ends_in_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cases: int, recwarn: pytest.WarningsRecorder
) -> None:
    for name in ("SHAPELAW_SUITE", "SHAPELAW_SUITE_DIR", "SHAPELAW_OUTPUTS"):
        monkeypatch.setenv(name, "")  # put back afterwards
    tallies = {place.name: run(place, cases) for place in attacked_places(tmp_path / "material")}
    assert all(tally.total() >= 10 for tally in tallies.values())
    assert [name for name, tally in tallies.items() if tally["refused"]], "nothing was refused"


ATTACKS = {
    "a shell": lambda: os.system("true"),
    "a program": lambda: subprocess.run(["true"], check=True),
    "a connection": lambda: socket.create_connection(("127.0.0.1", 9)),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_the_guard_sees_what_it_is_for(tmp_path: Path, attack: Callable[[], object]) -> None:
    """Each of them is noticed although whoever made it says nothing of it."""

    def attacked(make: Callable[[], object]) -> None:
        with GUARD.watching(tmp_path / "trace"), contextlib.suppress(OSError):
            make()

    with pytest.raises(AssertionError, match=r"it ran|it connected"):
        attacked(attack)
    with pytest.raises(AssertionError, match="left a trace"):
        attacked((tmp_path / "trace").touch)


def test_the_guard_hears_a_thread_of_the_attack_and_no_other(tmp_path: Path) -> None:
    """A program that a thread of before starts is not the attack's; one that a thread of the attack starts is."""
    go, done = threading.Event(), threading.Event()

    def of_before() -> None:
        go.wait(60)
        subprocess.run(["true"], check=True)
        done.set()

    threading.Thread(target=of_before, daemon=True).start()
    with GUARD.watching(tmp_path / "trace"):
        go.set()
        assert done.wait(60), "the guard refused it"

    def attacked() -> None:
        with contextlib.suppress(PermissionError):
            subprocess.run(["true"], check=True)

    def watched() -> None:
        with GUARD.watching(tmp_path / "trace"):
            thread = threading.Thread(target=attacked)
            thread.start()
            thread.join(60)

    with pytest.raises(AssertionError, match="it ran"):
        watched()
