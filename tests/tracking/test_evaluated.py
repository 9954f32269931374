"""Losses that are measured after a run has ended are a column of its runs table."""

from __future__ import annotations

from pathlib import Path

import pytest

from shapelaw.run_state import read_state
from shapelaw.tracking import VAL_LOSS, deliver_left, further_loss, read_runs
from support import Compose, Door, train
from tracked import tracker


def test_losses_of_a_run_s_checkpoints_become_a_column_of_its_runs_table(
    door: Door, composed: Compose, corpora: Path, uri: str, outputs: Path
) -> None:
    store = ("tracker=mlflow", f"tracker.uri={uri}")
    folder = train(composed, *store, "tokens=1024", "validation.every_tokens=512").folder
    asked = (f"model={outputs}/runs/tiny/*", f"data_dir={corpora}", "corpus=text-bytes", "name=again", *store)
    code, said = door("evaluate", *asked, "tokens=1024")
    assert (code, "recorded as val/again/loss; to fit it, give runs.loss=again\n" in said) == (0, True), said
    assert read_runs(uri, "tiny")["loss_again"].isna().tolist() == [True, False]

    code, said = door("evaluate", *asked, "tokens=1024", "checkpoints=all")
    assert code == 0, said
    rows = read_runs(uri, "tiny")
    assert rows["loss_again"].to_numpy() == pytest.approx(rows["loss"].to_numpy(), abs=1e-6)
    assert read_state(folder).attempts == 1  # nothing was trained again

    journal = (folder / "tracking.jsonl").read_bytes()
    assert door("evaluate", *asked, "tokens=1024", "checkpoints=all")[0] == 0
    assert (folder / "tracking.jsonl").read_bytes() == journal  # the same losses once
    code, said = door("evaluate", *asked, "tokens=128")
    assert (code, f"name=again: {folder.name} has another loss with that name at 1,024 tokens" in said) == (2, True)


def test_a_run_that_was_rolled_back_has_them_at_every_validation_that_stands(uri: str, tmp_path: Path) -> None:
    """Also at those from before the rollback; what the rollback undid has none."""
    run = tracker(uri, tmp_path, "rolled")
    for tokens in (128, 256):
        run.log({VAL_LOSS: 3.0}, tokens)
    run.rewind(1, 128, {"spike/rollbacks": 1})
    run.log({VAL_LOSS: 2.5}, 256)
    run.finish("FINISHED")
    for tokens in (128, 256):
        run.log({further_loss("late"): tokens / 100}, tokens)
    run.close()
    assert deliver_left(tmp_path / "rolled") is None
    rows = read_runs(uri, "tiny")
    assert list(zip(rows["tokens"], rows["loss"], rows["loss_late"].fillna(0.0), strict=True)) == [
        (128, 3.0, 1.28),
        (256, 3.0, 0.0),
        (256, 2.5, 2.56),
    ]
