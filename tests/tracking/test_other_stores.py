"""Runs that reach a store other than the one they were recorded in: none at first, one that moved, one that is made again."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import pytest

from shapelaw.errors import Damaged
from shapelaw.tracking import VAL_LOSS, FolderTracker, client, database, deliver_left, deliver_to, read_runs
from shapelaw.tracking.journal import JOURNAL
from shapelaw.tracking.store import find_experiment, open_parent
from tracked import PROCESSES, info, store_of, stored, tracker


def test_a_run_without_a_tracker_is_delivered_when_it_is_asked_for_with_one(uri: str, tmp_path: Path) -> None:
    run = FolderTracker(store_of("", tmp_path), info("aaa"), tmp_path / "aaa")
    run.log({VAL_LOSS: 2.5}, 128)
    run.finish("FINISHED")
    run.close()
    assert deliver_left(tmp_path / "aaa") is None, "nobody asked for a store yet"
    for _ in range(2):
        assert deliver_to(tmp_path / "aaa", store_of(uri, tmp_path)) is None
    assert stored(uri, "aaa") == [(VAL_LOSS, 128, 2.5)]
    assert read_runs(uri, "tiny")["status"].tolist() == ["FINISHED"]


def test_a_run_that_kept_no_records_is_said(uri: str, tmp_path: Path) -> None:
    (tmp_path / "aaa").mkdir()
    assert "kept no records without a tracker" in str(deliver_to(tmp_path / "aaa", store_of(uri, tmp_path)))


def _train(root: Path) -> None:
    """What a command did before the outputs were moved; MLflow remembers in a process where a run's artifacts are."""
    run = tracker(f"sqlite:///{root}/mlflow.db", root, "aaa")
    run.log({VAL_LOSS: 2.5}, 128)
    (root / "aaa" / "config.yaml").write_text("a: 1\n")
    run.artifact(root / "aaa" / "config.yaml")
    run.finish("FINISHED")
    run.close()


def test_outputs_that_were_moved_are_found(uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Database, artifacts and runs, all moved: the run is there once, with its artifacts, and nothing goes to the old place."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    shutil.move(Path(urlparse(uri).path), here / "mlflow.db")
    trained = PROCESSES.Process(target=_train, args=(here,))
    trained.start()
    trained.join()
    here.rename(there)
    second = f"sqlite:///{there}/mlflow.db"
    assert deliver_to(there / "aaa", store_of(second, there)) is None
    assert f"are now in {(there / 'artifacts' / 'tiny').as_uri()}" in caplog.text
    assert stored(second, "aaa") == [(VAL_LOSS, 128, 2.5)]
    (found,) = client(second).search_runs([find_experiment(store_of(second, there))])
    kept = Path(urlparse(str(found.info.artifact_uri)).path)
    assert there in kept.parents
    assert (kept / "config.yaml").read_text() == "a: 1\n"
    assert found.data.tags["shapelaw.folder"] == str(there / "aaa")
    assert deliver_left(there / "aaa", f"sqlite:///{tmp_path}/again.db") is None  # made again from the journal
    assert not here.exists()


def test_a_database_is_made_again_from_journals(uri: str, tmp_path: Path) -> None:
    """Without the sweep that the run belonged to, which no journal holds."""
    parent = open_parent(uri, find_experiment(store_of(uri, tmp_path)), "sweep", {"aaa": "a", "bbb": "b"})
    run = FolderTracker(store_of("", tmp_path), replace(info("aaa"), parent_run_id=parent), tmp_path / "aaa")
    run.log({VAL_LOSS: 2.5}, 128)
    run.finish("FINISHED")
    run.close()
    for again in (uri, uri, f"sqlite:///{tmp_path}/again.db"):
        assert deliver_left(tmp_path / "aaa", again) is None
        assert stored(again, "aaa") == [(VAL_LOSS, 128, 2.5)]


def database_of_one_run(uri: str, root: Path) -> Path:
    run = tracker(uri, root, "aaa")
    run.log({VAL_LOSS: 2.5}, 128)
    run.finish("FINISHED")
    run.close()
    return Path(urlparse(uri).path)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE params SET value = '17' WHERE key = 'width'", "table params: "),
        ("UPDATE tags SET value = 'x' WHERE key = 'shapelaw.kind'", "table tags: "),
        ("UPDATE runs SET status = 'FAILED'", "table runs: "),
        ("UPDATE metrics SET value = 2.25", "table metrics: 2 rows differ"),
        ("DELETE FROM metrics", "malformed"),
    ],
)
def test_a_page_that_says_something_else_than_its_copy_is_refused(
    uri: str, tmp_path: Path, statement: str, said: str
) -> None:
    """Rows as damaged pages hold them: changed in a table, and not in its indices."""
    path = database_of_one_run(uri, tmp_path)
    assert len(read_runs(uri, "tiny")) == 1
    _without_indices(path, statement)
    with pytest.raises(Damaged, match=said) as caught:
        read_runs(uri, "tiny")
    assert "\n" not in str(caught.value)
    assert "shapelaw replay uri=sqlite:///" in str(caught.value)


def test_an_old_database_without_copies_is_read_and_said(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = database_of_one_run(uri, tmp_path)
    assert database.check(path)
    with closing(sqlite3.connect(path)) as old:
        for table in database.COPIES:
            old.execute(f"DROP INDEX shapelaw_{table}")
    assert read_runs(uri, "tiny")["loss"].tolist() == [2.5]
    assert "they are not verified" in caplog.text
    find_experiment(store_of(uri, tmp_path))
    assert database.check(path)


def _without_indices(path: Path, statement: str) -> None:
    """Change a table's own pages: those of the indices are put back as they were."""
    page = 4096
    before = path.read_bytes()
    with closing(sqlite3.connect(path)) as made:
        table = statement.split()[1 if statement.startswith("UPDATE") else 2]
        indices = [
            root
            for (root,) in made.execute(
                "SELECT rootpage FROM sqlite_master WHERE type = 'index' AND tbl_name = ?", (table,)
            )
        ]
        made.execute(statement)
        made.commit()
    data = bytearray(path.read_bytes())
    for root in indices:
        data[(root - 1) * page : root * page] = before[(root - 1) * page : root * page]
    path.write_bytes(data)


def test_journals_of_earlier_versions_are_read(uri: str, tmp_path: Path) -> None:
    """Lines without a checksum, followed by lines with one."""
    run = FolderTracker(store_of("", tmp_path), info("aaa"), tmp_path / "aaa")
    run.log({VAL_LOSS: 2.5}, 128)
    run.close()
    path = tmp_path / "aaa" / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    old = [line[: line.rindex(b',"crc":')] + b"}\n" for line in lines]
    path.write_bytes(b"".join(old))
    later = FolderTracker(store_of("", tmp_path), info("aaa"), tmp_path / "aaa")
    later.log({VAL_LOSS: 2.5}, 128)
    later.log({VAL_LOSS: 2.25}, 256)
    later.finish("FINISHED")
    later.close()
    assert deliver_to(tmp_path / "aaa", store_of(uri, tmp_path)) is None
    assert stored(uri, "aaa") == [(VAL_LOSS, 128, 2.5), (VAL_LOSS, 256, 2.25)]


def test_a_run_whose_journal_was_damaged_before_it_was_delivered_is_said_by_every_table(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a rollback that is gone, nothing else would tell that what it undid does not count."""
    run = FolderTracker(store_of("", tmp_path), info("aaa"), tmp_path / "aaa")
    for tokens in (512, 1024):
        run.log({VAL_LOSS: 4.0}, tokens)
    run.rewind(1, 512, {"spike/rollbacks": 1})
    run.finish("FINISHED")
    run.close()
    path = tmp_path / "aaa" / JOURNAL
    path.write_bytes(path.read_bytes().replace(b"rewind", b"sewind"))
    assert deliver_to(tmp_path / "aaa", store_of(uri, tmp_path)) is None
    caplog.clear()
    assert read_runs(uri, "tiny")["tokens"].tolist() == [512, 1024]
    assert (
        "note: run aaa lacks records: 1 lines of its journal were damaged before they reached the store" in caplog.text
    )
