"""Runs recorded in wandb, by its own package without a network: what is read back is what was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapelaw import UserError, load_runs
from shapelaw.config import TrackerConfig, WhenUnreachable
from shapelaw.runs.wandb_runs import rows_of, runs_of
from shapelaw.tracking import ROLLBACKS, VAL_LOSS, BothTracker, RunInfo, WandbTracker, check_login, deliver_to_wandb
from shapelaw.tracking.protocol import DEVICE_HOURS
from shapelaw.tracking.wandb_delivery import SENT, TIME, WandbDelivery
from tracked import PARAMS, info, journaled, store_of

wandb = pytest.importorskip("wandb", reason="needs the extra wandb")


@pytest.fixture(autouse=True)
def service() -> Iterator[None]:
    """wandb's own process ends with the test."""
    yield
    wandb.teardown()


def tracker(root: Path, identity: str) -> WandbTracker:
    return WandbTracker(store_of("", root), info(identity), root / identity, 60.0, offline=True)


def written(folder: Path) -> Path:
    """The folder, once wandb's own process, which writes a while longer than a run, has written all."""
    wandb.teardown()
    return folder


def read_back(folder: Path) -> list[tuple[str, int, float]]:
    """Every value of the wandb run in a folder, sorted, as `tracked.journaled` has those of a journal."""
    (run,) = runs_of(written(folder), None, {})
    rows = rows_of(run)
    return sorted(
        (name, int(row["tokens"]), value) for row in rows for name, value in row.items() if name not in ("tokens", TIME)
    )


def test_what_is_read_back_is_what_was_recorded(tmp_path: Path) -> None:
    """Two attempts at a run, with a rollback, values out of line and settings: all rows of the journal, none twice."""
    first = tracker(tmp_path, "abc")
    for tokens in range(128, 1281, 128):
        first.log({VAL_LOSS: 2.0 + 1 / tokens, "train/lr": 0.1}, tokens)
    first.log({"train/loss": float("nan"), "train/grad_norm": float("inf")}, 1280)
    first.tag({"shapelaw.device": "cpu"})
    first.finish("KILLED")
    first.close()
    second = tracker(tmp_path, "abc")
    second.log({VAL_LOSS: 9.0}, 1280)  # recorded before
    second.rewind(1, 640, {ROLLBACKS: 1.0})
    for tokens in range(768, 2561, 128):
        second.log({VAL_LOSS: 1.5 + 1 / tokens}, tokens)
    second.finish("FINISHED")
    second.close()
    np.testing.assert_equal(read_back(tmp_path / "abc"), journaled(tmp_path / "abc"))
    (run,) = runs_of(tmp_path / "abc", None, {})
    assert (run.id, run.name, run.state) == ("abc", "run abc", "finished")
    assert run.config["width"] == 16
    assert run.config["shapelaw"]["tags"]["shapelaw.device"] == "cpu"
    assert len(list((tmp_path / "abc").rglob("run-*.wandb"))) == 2
    runs = load_runs("wandb", path=tmp_path, rolled_back="keep", midway="keep")
    assert runs.exclusions == {"undone by a rollback": 5}
    assert sorted(runs.kept["tokens"]) == list(range(128, 2561, 128))
    assert runs.kept.set_index("tokens").loc[768, "loss"] == pytest.approx(1.5 + 1 / 768)


def test_a_run_in_both_trackers_is_one_table(tmp_path: Path) -> None:
    """The same columns, numbers and reasons, whichever of the two is read."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    params = {**PARAMS, "warmup_tokens": 200.0, "schedule": "wsd", "schedule.decay_fraction": 0.1, "optim.eps": 1e-08}
    params |= {"precision": "fp32", "model.experts": 4, "model.kind": "a text"}
    told = RunInfo("abc", "train", "run abc", params, {"shapelaw.corpus": "c" * 12})
    run = BothTracker(store_of(uri, tmp_path), told, tmp_path / "abc", 60.0, offline=True)
    for tokens in range(128, 2561, 128):
        metrics = {VAL_LOSS: 2.0 + 1 / tokens, DEVICE_HOURS: tokens / 1e6, "val/other/loss": 3.0 + 1 / tokens}
        run.log({**metrics, "speed/seconds_per_step": 0.1}, tokens)
        if tokens == 1280:
            run.rewind(1, 640, {ROLLBACKS: 1.0})
    run.finish("FINISHED")
    run.close()
    ours = load_runs("mlflow", experiment="tiny", uri=uri)
    theirs = load_runs("wandb", path=written(tmp_path))
    left_out = ["mlflow_run_id"]
    pd.testing.assert_frame_equal(theirs.frame.drop(columns=left_out), ours.frame.drop(columns=left_out))
    pd.testing.assert_frame_equal(theirs.further, ours.further)
    assert theirs.suites == ours.suites
    assert theirs.exclusions == ours.exclusions
    assert {"undone by a rollback", "during the warm-up"} <= set(ours.exclusions)
    assert ours.select("experts == 4 and kind == 'a text'").kept["loss"].tolist() == theirs.kept["loss"].tolist()


def test_a_run_that_was_not_delivered_is_delivered_later_and_once(tmp_path: Path) -> None:
    done = tracker(tmp_path, "abc")
    done.log({VAL_LOSS: 2.5}, 128)
    done.finish("FINISHED")
    done.close()
    assert not WandbDelivery(tmp_path / "abc", offline=True).left
    assert deliver_to_wandb(tmp_path / "abc", offline=True) is None
    assert len(list((tmp_path / "abc").rglob("run-*.wandb"))) == 1
    (tmp_path / "abc" / SENT).unlink()  # the note is lost: everything again, at the same steps
    assert deliver_to_wandb(tmp_path / "abc", offline=True) is None
    assert len(list((tmp_path / "abc").rglob("run-*.wandb"))) == 2
    assert read_back(tmp_path / "abc") == journaled(tmp_path / "abc") == [(VAL_LOSS, 128, 2.5)]


def test_without_a_login_a_command_says_so_before_it_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    settings = TrackerConfig(name="wandb")
    with pytest.raises(
        UserError, match=r"tracker=wandb: wandb does not answer .*wandb login`, or give tracker\.offline=true"
    ):
        check_login(settings)
    check_login(TrackerConfig(name="wandb", offline=True))
    check_login(TrackerConfig(name="wandb", when_unreachable=WhenUnreachable.spool))
