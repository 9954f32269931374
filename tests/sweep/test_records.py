"""What jobs run is read from folders that nobody else can write to."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from shapelaw.errors import UserError
from shapelaw.sweep import records
from shapelaw.sweep.records import Submission, Work, fill_batch, new_batch, read_work, submission_of
from shapelaw.sweep.task import Job
from shapelaw.verbs.train import TrainTask


class Spy:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.trace,)


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    job = Job("run", "run", tmp_path / "run")
    folder = new_batch(tmp_path / "slurm", "sweep")
    fill_batch(folder, {0: [job]}, lambda job: Work(TrainTask(), OmegaConf.create({"a": 1}), job.folder))
    return folder


def test_a_damaged_record_of_a_submission_is_said_in_a_line(batch: Path) -> None:
    folder = batch.parents[1] / "run"
    assert submission_of(folder) == Submission(str(batch), 0, 1)
    (folder / "job.json").write_text('{"batch": "b", "task": 0}')
    with pytest.raises(UserError, match=r"job\.json is damaged \(attempt: Field required\)"):
        submission_of(folder)


def test_a_launcher_that_others_keep_waiting_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LOCK_SECONDS", 0.0)
    with (
        records.launcher_lock(tmp_path),
        pytest.raises(UserError, match=r"another launcher has locked .*lock for 0 s; wait for it"),
        records.launcher_lock(tmp_path),
    ):
        pass


def test_our_own_work_is_read(batch: Path) -> None:
    assert read_work(batch, "run").config == {"a": 1}
    assert [folder.stat().st_mode & 0o7777 for folder in (batch, batch / "runs")] == [0o700] * 2


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o755, 0o1700])
@pytest.mark.parametrize("inner", [False, True])
def test_work_that_others_could_have_written_is_not_unpickled(batch: Path, mode: int, inner: bool) -> None:
    trace = batch.parent / "trace"
    (batch / "runs" / "run.pkl").write_bytes(pickle.dumps(Spy(trace)))
    (batch / "runs" if inner else batch).chmod(mode)
    with pytest.raises(
        UserError, match=rf"own with mode 0700; this one belongs to user \d+ with mode {mode:04o}; remove it"
    ):
        read_work(batch, "run")
    assert not trace.exists()


def test_a_link_in_place_of_the_folder_is_refused(batch: Path) -> None:
    (batch / "runs").rename(batch.parent / "elsewhere")
    (batch / "runs").symlink_to(batch.parent / "elsewhere")
    with pytest.raises(UserError, match="a folder of your own"):
        read_work(batch, "run")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_work_of_another_user_is_not_unpickled(batch: Path) -> None:
    os.chown(batch, 12345, -1)
    with pytest.raises(UserError, match="belongs to user 12345"):
        read_work(batch, "run")


@pytest.mark.parametrize("written", [b"", b"-M evil", b"1 2", b"\xff", b"12\n", b"$(id)"])
def test_an_array_s_id_that_is_no_number_is_not_taken(batch: Path, written: bytes) -> None:
    """It becomes a word of squeue's and scancel's command lines."""
    (batch / "job_id").write_bytes(written)
    assert records.job_id_of(batch) is None
    records.write_job_id(batch, "4711")
    assert records.job_id_of(batch) == "4711"


@pytest.mark.parametrize("content", ["{}", '{"0": 3}', '{"0": [1]}', '{"0": ["../../x"]}', "[]", "[" * 100_000])
def test_runs_of_an_array_are_names(batch: Path, content: str) -> None:
    (batch / "tasks.json").write_text(content)
    with pytest.raises(UserError, match=r"tasks\.json"):
        records.identities_of(batch, 0)
