"""Runs that diverge and spike, under each policy, and rollbacks that are interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from planted import ROLLS_BACK, SPIKES, plant
from shapelaw.config import TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.data import load_corpus
from shapelaw.errors import UserError
from shapelaw.planned_run import PlannedRun, checkpoint_path, checkpoint_steps, corpus_folder, plan_run
from shapelaw.run_state import State, Status, read_state
from shapelaw.tracking import read_runs
from shapelaw.training import checkpoint, run, starting
from shapelaw.training.rollback import ROLLBACKS, read_rollbacks
from shapelaw.training.spikes import Verdict
from support import Compose, train_run
from tracked import journaled

NO_NUMBER = ("lr_base=1e30", "optim.clip_norm=0")


@pytest.fixture
def planted(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spikes in the runs of `SPIKES`."""
    plant(composed, monkeypatch)


def prepared(composed: Compose, *overrides: str) -> tuple[TrainConfig, PlannedRun]:
    config: TrainConfig = to_dataclass(composed("accelerator=cpu", *overrides))
    return config, plan_run(config, load_corpus(corpus_folder(config)).manifest.corpus_hash)


def train(composed: Compose, *overrides: str, show: Callable[[State], None] = lambda state: None) -> PlannedRun:
    config, planned = prepared(composed, *overrides)
    train_run(config, planned, show)
    return planned


def tracked(tmp_path: Path) -> tuple[str, ...]:
    return ("tracker=mlflow", f"tracker.uri=sqlite:///{tmp_path}/mlflow.db", "tracker.finish_seconds=120")


def last_weights(planned: PlannedRun) -> dict[str, torch.Tensor]:
    return load_file(checkpoint_path(planned.folder, planned.last_step) / checkpoint.MODEL)


def test_a_run_that_diverges_is_marked_with_its_step(composed: Compose, tmp_path: Path) -> None:
    given = (*NO_NUMBER, *tracked(tmp_path))
    with pytest.raises(
        UserError, match=r"diverged at step \d+: the loss is nan.*smaller lr_base than 1e\+30, or spikes=rollback"
    ):
        train(composed, *given)
    _, planned = prepared(composed, *given)
    state = read_state(planned.folder)
    assert (state.status, state.diverged_step is not None) == (Status.failed, True)
    assert f"diverged at step {state.diverged_step}" in state.reason
    with pytest.raises(UserError, match="no run has a validation"):
        read_runs(f"sqlite:///{tmp_path}/mlflow.db", "tiny")


@pytest.mark.usefixtures("planted")
def test_a_spike_that_lasts_stops_a_run_and_marks_its_rows(composed: Compose, tmp_path: Path) -> None:
    given = (*SPIKES, "spikes.sustain_steps=3", *tracked(tmp_path))
    with pytest.raises(UserError, match=r"diverged at step \d+: a spike of the loss since step \d+"):
        train(composed, *given)
    _, planned = prepared(composed, *given)
    step = read_state(planned.folder).diverged_step
    assert step is not None
    rows = read_runs(f"sqlite:///{tmp_path}/mlflow.db", "tiny")
    assert rows["diverged_step"].tolist() == [step] * len(rows)
    assert set(rows["status"]) == {"FAILED"}
    assert rows["step"].max() <= step


@pytest.mark.usefixtures("planted")
def test_a_run_that_spikes_recovers(composed: Compose, tmp_path: Path) -> None:
    """It ends below where the ignored spike leaves it, and its record says what happened."""
    ignored = train(composed, *SPIKES, "spikes=ignore")
    planned = train(composed, *ROLLS_BACK, *tracked(tmp_path))
    state, events = read_state(planned.folder), read_rollbacks(planned.folder)
    assert state.status is Status.finished
    assert 1 <= state.rollbacks == len(events) <= 3
    assert state.val_loss is not None
    assert state.val_loss < read_state(ignored.folder).val_loss - 1.0  # type: ignore[operator]
    for number, event in enumerate(events, 1):
        assert event.to_step < event.first_step <= event.step
        assert event.to_step in (0, *checkpoint_steps(planned.folder))
        assert (event.number, event.lr_scale) == (number, pytest.approx(0.1**number))
    rows = read_runs(f"sqlite:///{tmp_path}/mlflow.db", "tiny")
    kept = rows[(rows["excluded"] == "") | rows["excluded"].str.startswith("during the warm-up")]
    assert kept["tokens"].tolist() == sorted(set(kept["tokens"])), "one row of a token count holds"
    assert kept["rollbacks"].iloc[-1] == len(events)
    if events[0].step * planned.batch_tokens > events[0].to_step * planned.batch_tokens + 512:
        assert "undone by a rollback" in set(rows["excluded"])
    rates = {t: v for key, t, v in journaled(planned.folder) if key == "train/lr"}
    assert rates[12_800] == pytest.approx(planned.lr_at(99) * events[-1].lr_scale)


def test_rollbacks_end(composed: Compose) -> None:
    given = (*NO_NUMBER, "spikes=rollback", "spikes.max_rollbacks=2")
    with pytest.raises(UserError, match=r"diverged at step \d+ after 2 rollbacks"):
        train(composed, *given)
    _, planned = prepared(composed, *given)
    assert [event.what for event in read_rollbacks(planned.folder)] == ["not a number"] * 2
    assert read_state(planned.folder).diverged_step is not None


@pytest.mark.usefixtures("planted")
def test_a_spike_that_is_ignored_is_recorded(composed: Compose, tmp_path: Path) -> None:
    planned = train(composed, *SPIKES, "spikes=ignore", *tracked(tmp_path))
    state = read_state(planned.folder)
    assert (state.status, state.rollbacks) == (Status.finished, 0)
    counts = [value for key, _, value in journaled(planned.folder) if key == "spike/ignored"]
    assert counts == list(range(1, state.spikes + 1)) != []


class Killed(Exception):
    """Stands for a kill at one place, which in-process cannot be survived."""


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("place", ["before", "decided", "discarded", "told", "loaded"])
def test_a_rollback_that_is_interrupted_is_finished(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Cut at each of its steps and continued, it ends in the weights and metrics of one that was not."""
    whole = train(composed, *ROLLS_BACK, *tracked(tmp_path))
    other = (f"outputs_dir={tmp_path}/other", *tracked(tmp_path / "elsewhere"))
    targets = {
        "before": (run, "roll_back"),
        "decided": (run.Run, "_tell_rollbacks"),
        "told": (run, "module_of"),
        "discarded": (starting, "discard_undone"),
        "loaded": (run, "batch_of"),
    }
    owner, name = targets[place]
    real = getattr(owner, name)

    def cut(*arguments: object, **options: object) -> object:
        decided = any((tmp_path / "other").rglob(ROLLBACKS))
        if place == "before":
            raise Killed
        done = real(*arguments, **options)
        if decided:
            raise Killed
        return done

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, cut)
        with pytest.raises(Killed):
            train(composed, *ROLLS_BACK, *other)
    planned = train(composed, *ROLLS_BACK, *other)
    ours, theirs = last_weights(planned), last_weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    events, expected = (read_rollbacks(each.folder) for each in (planned, whole))
    assert [replace(event, seconds=0) for event in events] == [replace(event, seconds=0) for event in expected]
    measured = [
        [row for row in journaled(each.folder) if row[0].split("/")[0] in ("train", "val", "spike")]
        for each in (planned, whole)
    ]
    assert measured[0] == measured[1]


def test_only_a_rollback_changes_the_identity(composed: Compose) -> None:
    def identity(*overrides: str) -> str:
        return prepared(composed, *overrides)[1].identity

    plain = identity()
    assert identity("spikes=ignore") == identity("spikes.loss_mads=5") == plain
    back = identity("spikes=rollback")
    assert back != plain
    changed = (
        "spikes.loss_mads=5",
        "spikes.lr_factor=0.3",
        "checkpoint.every_tokens=1024",
        "validation.every_tokens=256",
    )
    assert len({back, *(identity("spikes=rollback", change) for change in changed)}) == 5


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("spikes.every_steps=0", "spikes.every_steps=0: allowed values are whole numbers from 1"),
        ("spikes.loss_mads=0", "spikes.loss_mads=0: allowed values are finite numbers above 0"),
        ("spikes.over_best_nats=0", "spikes.over_best_nats=0: allowed values are finite numbers above 0"),
        ("spikes.over_chance_nats=-1", "spikes.over_chance_nats=-1: allowed values are finite numbers above 0"),
        ("spikes.least_steps=500", "spikes.least_steps=500: allowed values are 1 to spikes.window_steps=128"),
        ("spikes.lr_factor=2", "spikes.lr_factor=2: allowed values are numbers above 0 up to 1"),
        ("spikes.max_rollbacks=0.5", "spikes.max_rollbacks"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(composed: Compose, override: str, said: str) -> None:
    from shapelaw.verbs.messages import explain

    with pytest.raises(Exception) as error:
        prepared(composed, "spikes=rollback", override)
    assert said in (explain(error.value) or "")


def test_verdicts_of_the_first_steps_go_back_to_the_start(composed: Compose) -> None:
    from shapelaw.training.rollback import roll_back

    _, planned = prepared(composed, "spikes=rollback")
    planned.folder.mkdir(parents=True)
    for step in (4, 8, 9, 12):
        checkpoint_path(planned.folder, step).mkdir(parents=True)
    for first_step, margin, expected in ((3, 0, 0), (4, 0, 0), (5, 0, 4), (11, 0, 8), (12, 4, 4), (14, 0, 12)):
        event = roll_back(planned, [], Verdict(first_step, first_step + 2, "loss", 9.0, 3.0), 0.5, margin, 1.0)
        assert event.to_step == expected  # 9 is no step of the cadence: only an interruption leaves one there
        assert event.skipped == ((first_step - 1, 3),)
