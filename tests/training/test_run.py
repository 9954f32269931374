"""A run of the tiny suite, in this process: its record, its resumption, its branches, its failures."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from shapelaw.data import corpus
from shapelaw.errors import Interrupted, UserError
from shapelaw.parallel.layout import layout_of
from shapelaw.parallel.placement import place
from shapelaw.planned_run import checkpoint_path, checkpoint_steps
from shapelaw.run_state import State, Status, read_state
from shapelaw.sweep.local import on_gpus, with_values
from shapelaw.sweep.resources import has_gpus
from shapelaw.sweep.settings import SlurmSettings
from shapelaw.training import checkpoint, corpora, reporting
from shapelaw.training.starting import module_of
from shapelaw.verbs.train import TrainTask
from support import Compose, prepared, train


def stop_at(step: int, number: int = signal.SIGTERM) -> Callable[[State], None]:
    def show(state: State) -> None:
        if state.step == step and state.status is Status.running:
            os.kill(os.getpid(), number)

    return show


def test_a_run_learns_and_leaves_its_record(composed: Compose) -> None:
    planned = train(composed)
    state = read_state(planned.folder)
    assert (state.status, state.step, state.tokens, state.attempts) == (Status.finished, 20, 2560, 1)
    assert state.val_loss is not None
    assert 1.0 < state.val_loss < 3.0  # log(256) = 5.5 at the start
    assert checkpoint_steps(planned.folder) == [4, 8, 12, 16, 20]
    assert (planned.folder / "config.yaml").exists()


def test_a_finished_run_is_left_alone(composed: Compose) -> None:
    planned = train(composed)
    before = {
        path: path.stat().st_mtime_ns for path in planned.folder.rglob("*") if path.is_file() and path.name != "lock"
    }
    train(composed)
    after = {
        path: path.stat().st_mtime_ns for path in planned.folder.rglob("*") if path.is_file() and path.name != "lock"
    }
    assert before == after


def test_what_is_continued_lies_where_the_run_computes(composed: Compose) -> None:
    """Weights, moments and step numbers, where the optimizer's kernel looks for them; torch's meta device stands for a GPU."""
    config, _ = prepared(composed)
    planned = train(composed)
    module = module_of(config, planned, place(layout_of(config.parallel, 1), 0, torch.device("meta")))
    held = [value for state in module.optimizer.state.values() for value in state.values()]
    weights = list(module.model.parameters())
    assert module.progress.step == 20
    assert len(held) == 3 * len(weights)
    assert all(tensor.is_meta for tensor in (*weights, *held))


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_stopped_run_keeps_a_checkpoint(composed: Compose, number: int) -> None:
    with pytest.raises(Interrupted, match=f"{signal.Signals(number).name} after step"):
        train(composed, show=stop_at(8, number))
    _, planned = prepared(composed)
    assert read_state(planned.folder).status is Status.interrupted
    assert checkpoint_steps(planned.folder)[:2] == [4, 8]


@pytest.mark.parametrize("stop", [1, 5, 8, 14])
def test_resuming_is_exact(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    """Stopped after any step and continued: weights, optimizer and losses equal an uninterrupted run's to the last bit."""
    monkeypatch.setattr(reporting, "REPORT_SECONDS", 0.0)  # so that every step is shown
    whole = train(composed)
    other = (f"outputs_dir={tmp_path}/other",)
    with pytest.raises(Interrupted):
        train(composed, *other, show=stop_at(stop))
    planned = train(composed, *other)
    assert read_state(planned.folder).attempts == 2
    for file in (checkpoint.MODEL, checkpoint.OPTIMIZER):
        ours, theirs = (load_file(checkpoint_path(c.folder, 20) / file) for c in (planned, whole))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert read_state(planned.folder).val_loss == read_state(whole.folder).val_loss
    assert checkpoint_steps(planned.folder) == [4, 8, 12, 16, 20]  # what was for continuing only is gone


def test_micro_batches_change_the_summation_order_only(composed: Compose, tmp_path: Path) -> None:
    """Float32 sums in another order: the losses agree to 1e-5, where one update moves them by 1e-1."""
    losses = []
    for micro in ("auto", 0, 4, 1):
        planned = train(composed, f"micro_batch_sequences={micro}", f"outputs_dir={tmp_path}/{micro}")
        losses.append(read_state(planned.folder).val_loss)
    assert losses[1:] == pytest.approx([losses[0]] * 3, abs=1e-5)


def test_a_branch_starts_where_its_parent_was(composed: Compose) -> None:
    longer = "tokens=12800"  # 100 steps; the branch is the last tenth
    hot = train(composed, longer)
    seen: list[State] = []
    branch = train(composed, longer, "cooldown=linear10", show=seen.append)
    assert (branch.first_step, branch.last_step) == (100, 109)
    assert seen[0].val_loss == pytest.approx(read_state(hot.folder).val_loss, rel=1e-6)
    assert read_state(branch.folder).val_loss < read_state(hot.folder).val_loss  # type: ignore[operator]


def test_a_branch_without_its_parent_says_what_is_there(composed: Compose) -> None:
    with pytest.raises(UserError, match=r"it has: none.*cooldown=none"):
        train(composed, "tokens=12800", "cooldown=linear10")


@pytest.mark.parametrize("damage", ["", "[]", '{"version": 1}', "other step"])
def test_a_damaged_state_of_a_checkpoint_is_passed_over(
    composed: Compose, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    with pytest.raises(Interrupted):
        train(composed, show=stop_at(12))
    _, planned = prepared(composed)
    state = checkpoint_path(planned.folder, checkpoint_steps(planned.folder)[-1]) / "state.json"
    step = json.loads(state.read_text())["step"]
    state.write_text(
        state.read_text().replace(f'"step": {step}', f'"step": {step + 1}') if damage == "other step" else damage
    )
    train(composed)
    assert "damaged" in caplog.text


def test_a_checkpoint_of_another_format_is_refused_and_stays(composed: Compose) -> None:
    with pytest.raises(Interrupted):
        train(composed, show=stop_at(12))
    _, planned = prepared(composed)
    steps = checkpoint_steps(planned.folder)
    for step in steps:
        state = checkpoint_path(planned.folder, step) / "state.json"
        state.write_text(state.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(UserError, match="of format 3; this version reads 1 and 2"):
        train(composed)
    assert checkpoint_steps(planned.folder) == steps


def test_a_diverged_run_fails_with_its_step(composed: Compose) -> None:
    with pytest.raises(UserError, match="diverged"):
        train(composed, "lr_base=1e30", "optim.clip_norm=0")
    _, planned = prepared(composed, "lr_base=1e30", "optim.clip_norm=0")
    assert read_state(planned.folder).status is Status.failed
    assert "step" in read_state(planned.folder).reason


def test_a_full_disk_leaves_the_older_checkpoints(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0
    real = checkpoint.write_tensors

    def full(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        nonlocal writes
        writes += 1
        if writes > 3:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(UserError, match="No space left"):
        train(composed)
    _, planned = prepared(composed)
    assert checkpoint_steps(planned.folder) == [4]
    assert not list((planned.folder / "checkpoints").glob(".*"))
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("gpus", "options", "words"),
    [
        (0, ("accelerator=gpu",), "accelerator=gpu: this machine has no usable GPU"),
        (1, ("accelerator=auto", "devices=2"), "devices=2: this machine has 1 GPU; give at most that many"),
        (0, ("accelerator=auto", "devices=2"), None),
        (1, ("accelerator=cpu", "devices=2"), None),
        (2, ("accelerator=gpu", "devices=2"), None),
    ],
)
def test_devices_that_are_not_here_are_refused(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, gpus: int, options: tuple[str, ...], words: str | None
) -> None:
    """Before anything is made, and again where the run starts; who only plans or submits is not asked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr("shapelaw.verbs.train.gpu_names", lambda: "01"[:gpus])
    config, task = composed(*options), TrainTask()
    (job,) = task.plan([config])
    if words is None:
        task.check_machine([config])
        return
    for start in (lambda: task.check_machine([config]), lambda: task(config)):
        with pytest.raises(UserError, match=words):
            start()
    assert not job.folder.exists()


def test_a_corpus_is_opened_and_read_through_once_in_a_command(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    hashed: list[Path] = []
    load, check = corpora.load_corpus, corpus._check_hash
    monkeypatch.setattr(corpora, "load_corpus", lambda *given, **how: opened.append(given) or load(*given, **how))
    monkeypatch.setattr(corpus, "_check_hash", lambda path, shard: hashed.append(path) or check(path, shard))
    TrainTask().single(composed("data.verify=always", "accelerator=cpu", "progress=false"))
    assert len(opened) == 1
    shards = [*load(hashed[0].parent).train.files, *load(hashed[0].parent).val.files]
    assert sorted(hashed) == sorted(shards)
    assert len(shards) == 3


def test_a_job_computes_in_the_precision_of_its_plan(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the machine that trains it would choose another: the plan was made where there was a GPU."""
    monkeypatch.setattr("shapelaw.fingerprint.gpu_names", lambda: ("0",))
    config = composed("accelerator=auto")
    (job,) = TrainTask().plan([config])
    assert job.settings == {"precision": "bf16"}
    with_values(config, job.settings)
    monkeypatch.setattr("shapelaw.fingerprint.gpu_names", lambda: ())
    TrainTask()(config)
    assert read_state(job.folder).status is Status.finished
    assert yaml.safe_load((job.folder / "config.yaml").read_text())["precision"] == "bf16"


@pytest.mark.parametrize(
    ("options", "site_gpus", "device", "precision"),
    [
        ((), 4, "gpu", "bf16"),
        ((), 0, "auto", "fp32"),
        (("resources.gpus_per_node=0",), 4, "auto", "fp32"),
        (("resources.gpus_per_node=1",), 0, "gpu", "bf16"),
        (("accelerator=cpu",), 4, "cpu", "fp32"),
    ],
)
def test_a_plan_for_a_cluster_knows_what_its_jobs_compute_in(
    composed: Compose,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    site_gpus: int,
    device: str,
    precision: str,
) -> None:
    """By the GPUs that they ask for, not by those of the machine that submits them."""
    monkeypatch.setattr("shapelaw.fingerprint.gpu_names", lambda: ())
    config = composed(*options)
    config = with_values(config, on_gpus(config, has_gpus(config, SlurmSettings(gpus_per_node=site_gpus))))
    assert config.accelerator == device
    assert TrainTask().plan([config])[0].settings == {"precision": precision}
