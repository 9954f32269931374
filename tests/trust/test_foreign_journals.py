"""A journal is data: replay sends what a run recorded, from its own folder, to the user's own store, and nothing else."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from shapelaw.tracking import client, deliver_left
from shapelaw.tracking.delivery import SENT, Delivery
from shapelaw.tracking.journal import JOURNAL, line_of
from shapelaw.tracking.store import IDENTITY_TAG, find_experiment, find_run
from shapelaw.verbs.main import main
from tracked import store_of, tracker

EVIL = "http://evil.example:5000"


@pytest.fixture
def outgoing(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Addresses that anything tries to connect to; none is reached."""
    tried: list[Any] = []

    def refuse(self: socket.socket, address: Any) -> None:
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_: tried.append(host) or [])
    return tried


def folder_of(root: Path, *records: dict[str, Any], **start: Any) -> Path:
    """A run's folder from elsewhere, whose checksums are right."""
    folder = root / "sent" / "16x1-aaa"
    folder.mkdir(parents=True)
    info = {"identity": "aaa", "kind": "train", "name": "x", "params": {}, "tags": {}, "parent_run_id": None}
    begin = {
        "info": info,
        "uri": EVIL,
        "artifacts": str(root / "loot"),
        "experiment": "x",
        "experiment_id": None,
        **start,
    }
    lines = [{"kind": "start", "time": 1, **begin}, *({"time": 2, **record} for record in records)]
    (folder / JOURNAL).write_bytes(b"".join(map(line_of, lines)))
    return folder


def replayed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *overrides: str) -> tuple[int, str]:
    """Exit code and messages of replay, in this process."""
    monkeypatch.setattr(sys, "argv", ["replay", *overrides])
    with pytest.raises(SystemExit) as ended:
        main("replay")
    return int(ended.value.code or 0), capsys.readouterr().err


def test_no_store_that_a_journal_names_is_connected_to(
    tmp_path: Path,
    outputs: Path,
    outgoing: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "planted-password")
    folder = folder_of(tmp_path, {"kind": "metrics", "tokens": 1, "values": {"val/loss": 2.0}})
    code, said = replayed(monkeypatch, capsys, f"folders=[{folder}]")
    assert (code, outgoing) == (1, [])
    assert f"was recorded for '{EVIL}'" in said
    assert "give its address as tracker.uri" in said


@pytest.mark.parametrize("place", ["absolute", "parents", "link"])
def test_no_file_outside_of_the_folder_is_sent(tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture) -> None:
    secret = tmp_path / "id_rsa"
    secret.write_text("planted-key")
    named = {"absolute": str(secret), "parents": "../../id_rsa", "link": "link.txt"}[place]
    artifact = {"kind": "artifact", "path": named, "folder": None}
    folder = folder_of(tmp_path, artifact, {"kind": "artifact", "path": "own.txt", "folder": None})
    (folder / "link.txt").symlink_to(secret)
    (folder / "own.txt").write_text("of the run")
    own = store_of(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert deliver_left(folder, own.uri, own.artifacts) is None
    kept = [path for path in Path(own.artifacts).rglob("*") if path.is_file()]
    assert [path.name for path in kept] == ["own.txt"]
    assert "is outside its run's folder" in caplog.text
    assert not (tmp_path / "loot").exists(), "artifacts lie where the user's own configuration says"


def test_a_note_that_names_another_run_changes_nothing_of_it(tmp_path: Path) -> None:
    """The note of what was delivered says that the store's run is one that the journal did not make."""
    own = store_of(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    run = tracker(own.uri, tmp_path, "mine", seconds=100)
    run.finish("FINISHED")
    run.close()
    mine = Delivery(tmp_path / "mine").sent
    folder = folder_of(
        tmp_path, {"kind": "tags", "values": {"note": "planted"}}, uri=own.uri, experiment=own.experiment
    )
    first = (folder / JOURNAL).read_bytes().index(b"\n") + 1
    (folder / SENT).write_text(json.dumps({"uri": own.uri, "run_id": mine.run_id, "bytes": first, "files": []}))
    assert deliver_left(folder, artifacts=own.artifacts) is None
    store = client(own.uri)
    assert "note" not in store.get_run(mine.run_id).data.tags
    made = find_run(store, find_experiment(own), "aaa")
    assert made is not None
    assert (made.data.tags[IDENTITY_TAG], made.data.tags["note"]) == ("aaa", "planted")


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "metrics", "tokens": "x", "values": {"a": 1.0}},
        {"kind": "metrics", "tokens": 1, "values": {"a": "x"}},
        {"kind": "metrics", "tokens": 1, "values": []},
        {"kind": "metrics", "tokens": 1, "values": 3},
        {"kind": "tags", "values": 3},
        {"kind": "status", "status": ["x"]},
        {"kind": "status", "status": "x"},
        {"kind": "artifact", "path": 3, "folder": None},
        {"kind": "artifact", "path": "own.txt", "folder": {"a": 1}},
        {"kind": "rewind", "number": "x", "tokens": None, "values": {}},
        {"kind": "start", "info": 3, "uri": EVIL, "artifacts": 3, "experiment": None, "experiment_id": {}},
    ],
    ids=str,
)
def test_a_record_of_other_types_is_a_line(
    tmp_path: Path,
    outputs: Path,
    outgoing: list[Any],
    record: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = folder_of(tmp_path, record, {"kind": "metrics", "tokens": 2, "values": {"val/loss": 2.0}})
    (folder / "own.txt").write_text("of the run")
    code, said = replayed(monkeypatch, capsys, f"folders=[{folder}]", f"uri=sqlite:///{tmp_path}/mlflow.db")
    assert (code in (0, 1), "Traceback" in said, outgoing) == (True, False, []), said
