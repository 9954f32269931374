"""What is read back: files of earlier versions, without seals, are read; those that were changed are refused in a line."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from shapelaw.config.schema import to_dataclass
from shapelaw.errors import Damaged, UserError
from shapelaw.files import (
    check_sealed_table,
    check_sealed_text,
    read_json,
    read_sealed,
    write_sealed,
    write_sealed_table,
    write_sealed_text,
)
from shapelaw.fitting.fit import fit
from shapelaw.run_state import State, Status, read_state, write_state
from shapelaw.runs import RunsTable, load_runs
from shapelaw.sweep import records
from shapelaw.sweep.task import Job
from shapelaw.training.rollback import ROLLBACKS, Rollback, read_rollbacks
from shapelaw.verbs.report_links import check_fits
from shapelaw.verbs.saved_fits import newest_fit
from support import ROOT, Compose
from trust.sealed import runs_of_shapes


def flipped(path: Path, word: bytes) -> None:
    """Change one bit of the first byte of a word."""
    data = path.read_bytes()
    at = data.index(word)
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_a_state_is_sealed_and_one_of_before_is_read(tmp_path: Path) -> None:
    write_state(tmp_path, State(Status.finished, 4, 4, 512, val_loss=2.5))
    state, path = read_state(tmp_path), tmp_path / "state.json"
    flipped(path, b"2.5")
    with pytest.raises(Damaged, match=r"state\.json was changed after it was written"):
        read_state(tmp_path)
    flipped(path, b"3.5")
    path.write_text(json.dumps({key: value for key, value in read_json(path).items() if key != "seal"}))
    assert read_state(tmp_path) == state


def test_rollbacks_of_before_are_read(tmp_path: Path) -> None:
    event = Rollback("a1b2c3d4e5f6", 1, 40, 60, 62, "loss", ((59, 3),), 0.5, 7.25)
    (tmp_path / ROLLBACKS).write_text(json.dumps([vars(event)]))
    assert read_rollbacks(tmp_path) == [event]
    (tmp_path / ROLLBACKS).write_text(json.dumps([{**vars(event), "to_step": "40"}]))
    with pytest.raises(Damaged, match=r"rollbacks\.json is damaged \(rollbacks\.0\.to_step"):
        read_rollbacks(tmp_path)


@pytest.fixture(scope="module")
def runs() -> RunsTable:
    return runs_of_shapes()


def test_a_table_is_sealed_wherever_it_is_read(runs: RunsTable, tmp_path: Path) -> None:
    path = runs.to_parquet(tmp_path / "runs.parquet")
    assert RunsTable.read(path) == runs
    assert load_runs("csv", path=path).kept.equals(runs.kept)
    flipped(path, b"PAR1\x15")  # the first page's header follows
    for read in (RunsTable.read, lambda path: load_runs("csv", path=path)):
        with pytest.raises(
            UserError, match=r"runs\.parquet was changed after it was written: it does not match its seal"
        ):
            read(path)


def test_a_table_of_before_is_read_and_said(runs: RunsTable, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs.frame.to_parquet(tmp_path / "runs.parquet", index=False)
    assert RunsTable.read(tmp_path / "runs.parquet") == runs
    assert "was written by a version without seals, so later changes to it cannot be detected" in caplog.text


def test_no_older_fit_is_taken_for_a_damaged_newer_one(runs: RunsTable, tmp_path: Path, composed: Compose) -> None:
    for age, law in enumerate(("width_depth_tokens", "interaction")):
        path = fit(runs, law=law).save(tmp_path / law, runs)
        os.utime(path, ns=(10**18 + age, 10**18 + age))
    composed()  # which makes the schemas known
    with initialize_config_dir(str(ROOT / "conf")):
        options = to_dataclass(compose("prescribe", ["budget=1e21"]))
    assert newest_fit(tmp_path, options)[0] == tmp_path / "interaction"
    check_fits(tmp_path)
    flipped(tmp_path / "interaction" / "fit.json", b"parametric")
    with pytest.raises(
        UserError, match=r"interaction/fit\.json was changed .*; every other usable fit is older.* or give fit="
    ):
        newest_fit(tmp_path, options)
    with pytest.raises(
        Damaged, match=rf"interaction/fit\.json was changed .*; or remove {tmp_path}/interaction, or give page"
    ):
        check_fits(tmp_path)


def test_submissions_of_before_are_read_and_changed_ones_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batch = records.new_batch(tmp_path, "batch")
    job = Job("a1b2c3d4e5f6", "a", tmp_path / "run")
    config = OmegaConf.create({"lr_base": 5.0})
    work = records.Work(None, config, job.folder)  # type: ignore[arg-type]
    records.fill_batch(batch, {3: [job]}, lambda job: work)
    records.write_job_id(batch, "4711")
    assert (records.job_id_of(batch), records.read_work(batch, job.identity)) == ("4711", work)
    path = batch / "runs" / f"{job.identity}.pkl"
    flipped(path, b"lr_base")
    with pytest.raises(Damaged, match="cancel this job and run the sweep's command again"):
        records.read_work(batch, job.identity)
    flipped(batch / "job_id", b"4711")
    assert records.job_id_of(batch) is None
    assert "SLURM is asked for the array by its name" in caplog.text
    (batch / "job_id.sha256").unlink()
    (batch / "job_id").write_text("4711")
    assert records.job_id_of(batch) == "4711"


def test_frames_keep_what_is_said_of_them(tmp_path: Path) -> None:
    """Facts of the table and records of suites are under the seal, too."""
    frame = pd.DataFrame({"run": ["a", "b"], "params": [1e6, 2e6], "tokens": [1e8, 2e8], "loss": [3.0, 2.5]})
    path = RunsTable(frame, {"source": "here"}).to_parquet(tmp_path / "runs.parquet")
    assert RunsTable.read(path).about == {"source": "here"}
    flipped(path, b'here"')
    with pytest.raises(Damaged):
        RunsTable.read(path)


SEALED = {
    "json": (lambda path: write_sealed(path, {"run": "a", "loss": 2.5}), read_sealed),
    "text": (lambda path: write_sealed_text(path, "run: a\nloss: 2.5\n"), check_sealed_text),
    "table": (
        lambda path: write_sealed_table(path, [{"run": "a", "loss": 2.5}]),
        lambda path: check_sealed_table(path, "make it again"),
    ),
}


@pytest.mark.parametrize("kind", SEALED)
def test_no_changed_byte_of_a_seal_makes_a_file_one_without_a_seal(kind: str, tmp_path: Path) -> None:
    """Every bit of the mark and of the hash, one at a time."""
    write, check = SEALED[kind]
    path = tmp_path / "file"
    write(path)
    whole = path.read_bytes()
    check(path)
    mark, digest = whole.index(b"seal"), re.search(rb"[0-9a-f]{64}", whole)
    assert digest
    for at in [*range(mark, mark + 4), *range(*digest.span())]:
        for bit in range(8):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            with pytest.raises(Damaged):
                check(path)


def test_a_table_without_its_column_of_seals_is_its_user_s(tmp_path: Path) -> None:
    path = tmp_path / "models.csv"
    write_sealed_table(path, [{"name": 'a "b", c\nd', "loss": 2.5}, {"name": "b", "loss": 2.25}])
    check_sealed_table(path, "make it again")
    frame = pd.read_csv(path)
    assert frame["name"].tolist() == ['a "b", c\nd', "b"]
    frame.assign(loss=2.0).to_csv(path, index=False)
    with pytest.raises(Damaged, match=r"models\.csv was changed after .*; make it again, or remove its column 'seal'"):
        check_sealed_table(path, "make it again")
    frame.drop(columns="seal").assign(loss=2.0).to_csv(path, index=False)
    check_sealed_table(path, "make it again")
