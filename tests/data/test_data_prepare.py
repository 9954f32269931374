from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from list_source import ListSource, random_texts

from shapelaw.data import BpeChoice, BytesChoice, PrepareStatus, StdlibSource, TextSource, load_corpus, prepare
from shapelaw.data import prepare as prepare_function
from shapelaw.data import shards as shards_module
from shapelaw.data.documents import Document, digest, is_val
from shapelaw.errors import UserError

prepare_module = sys.modules[prepare_function.__module__]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a prepared folder but the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def documents_in(folder: Path, split: str) -> list[str]:
    """Texts of one side, read back from the raw shards at the separators."""
    data = b"".join(
        np.fromfile(path, dtype="<u2").astype(np.uint8).tobytes() for path in sorted(folder.glob(f"{split}-*.bin"))
    )
    return [piece.decode() for piece in data.split(b"\0")[:-1]]


def test_shards_hold_the_documents_in_order(tmp_path: Path, small_source: ListSource) -> None:
    manifest = prepare(small_source, BytesChoice(), tmp_path, val_fraction=0.3, shard_tokens=999, workers=1)
    texts = [text for text in small_source.texts if text]
    for split, wanted in (("train", False), ("val", True)):
        expected = [text for text in texts if is_val(digest(text.encode()), 0.3) == wanted]
        assert documents_in(tmp_path, split) == expected
        found = manifest.splits[split]
        assert found.documents == len(expected)
        assert found.tokens == sum(len(text.encode()) + 1 for text in expected)
        assert all(shard.tokens == 999 for shard in found.shards[:-1])
    assert manifest.documents == len(texts)
    assert manifest.text_bytes == sum(len(text.encode()) for text in texts)
    names = {shard.file for split in manifest.splits.values() for shard in split.shards}
    assert set(contents(tmp_path)) == names | {"manifest.json"}


def test_no_text_on_both_sides(tmp_path: Path, small_source: ListSource) -> None:
    assert len(set(small_source.texts)) < len(small_source.texts)
    prepare(small_source, BytesChoice(), tmp_path, val_fraction=0.5, workers=1)
    train, val = (set(documents_in(tmp_path, split)) for split in ("train", "val"))
    assert train
    assert val
    assert not train & val


def test_val_fraction_is_met() -> None:
    held_out = sum(is_val(digest(str(i).encode()), 0.1) for i in range(20_000))
    assert abs(held_out - 2000) < 4 * np.sqrt(20_000 * 0.1 * 0.9)


@pytest.mark.parametrize("choice", [BytesChoice(), BpeChoice(280)], ids=["bytes", "bpe"])
def test_result_does_not_depend_on_workers_or_batches(tmp_path: Path, small_source: ListSource, choice: Any) -> None:
    for name, workers, batch_bytes in (("a", 1, 2**20), ("b", 3, 500), ("c", 2, 7000)):
        prepare(
            small_source,
            choice,
            tmp_path / name,
            shard_tokens=5000,
            val_fraction=0.1,
            workers=workers,
            batch_bytes=batch_bytes,
            checkpoint_seconds=0.0,
        )
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")


def test_hash_knows_content_order_tokenizer_and_split_but_not_shards(tmp_path: Path) -> None:
    texts = random_texts(40)
    swapped = (texts[1], texts[0], *texts[2:])
    variants = [
        (texts, BytesChoice(), 0.2, 1000),
        (texts, BytesChoice(), 0.2, 77),
        (swapped, BytesChoice(), 0.2, 1000),
        (texts, BpeChoice(280), 0.2, 1000),
        (texts, BytesChoice(), 0.3, 1000),
    ]
    hashes = [
        prepare(ListSource(texts), choice, tmp_path / str(i), val_fraction=fraction, shard_tokens=size, workers=1)
        for i, (texts, choice, fraction, size) in enumerate(variants)
    ]
    found = [manifest.corpus_hash for manifest in hashes]
    assert found[0] == found[1]
    assert len(set(found)) == 4


# One call that is killed: the source stops for good after some documents, so that the kill always comes in the middle.
KILLED = """
import sys, time
from pathlib import Path
from shapelaw.data import BpeChoice, prepare
from list_source import ListSource, random_texts

class Stalling(ListSource):
    def documents(self):
        for number, document in enumerate(super().documents()):
            if number == 200:
                time.sleep(600)
            yield document

if __name__ == "__main__":
    folder, workers = Path(sys.argv[1]), int(sys.argv[2])
    prepare(Stalling(random_texts(300)), BpeChoice(280, sample_bytes=5000), folder, val_fraction=0.2,
            shard_tokens=2000, workers=workers, batch_bytes=1500, checkpoint_seconds=0.0)
"""


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(one) for one in listed.stdout.split()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not state.strip().startswith("Z") and bool(state.strip())


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_continued(tmp_path: Path, workers: int) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, str(script), str(folder), str(workers)], env=environment)
    wait_until(lambda: len(list(folder.glob("train-*.bin"))) >= 3)
    workers_pids = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(map(alive, workers_pids)))  # no orphans
    assert not (folder / "manifest.json").exists()
    finished = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.bin")}
    with pytest.raises(UserError, match="interrupted"):
        load_corpus(folder)

    source, choice = ListSource(random_texts(300)), BpeChoice(280, sample_bytes=5000)
    for out in (folder, whole):
        prepare(source, choice, out, val_fraction=0.2, shard_tokens=2000, workers=workers)
    assert contents(folder) == contents(whole)
    for name, stamp in finished.items():
        assert (folder / name).stat().st_ino == stamp[0], f"{name} was written again"
        assert (folder / name).stat().st_mtime_ns == stamp[1], f"{name} was written again"


class Stop(BaseException):
    """Stands for a kill at a place of our choice."""


def test_stopped_at_every_step_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop before each rename, note and write onto the disk in turn, then continue: the result never differs."""
    source = ListSource(random_texts(40))

    def run(folder: Path) -> None:
        prepare(
            source,
            BytesChoice(),
            folder,
            val_fraction=0.3,
            shard_tokens=2500,
            workers=1,
            batch_bytes=1000,
            checkpoint_seconds=0.0,
        )

    run(tmp_path / "whole")
    steps = {"left": 0}

    def counted(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            steps["left"] -= 1
            if steps["left"] == 0:
                raise Stop
            return function(*args, **kwargs)

        return call

    for place in ("replace", "fsync"):
        monkeypatch.setattr(shards_module.os, place, counted(getattr(os, place)))
    monkeypatch.setattr(prepare_module, "write_sealed", counted(prepare_module.write_sealed))
    for step in range(1, 200):
        folder = tmp_path / str(step)
        steps["left"] = step
        try:
            run(folder)
        except Stop:
            steps["left"] = 0
            run(folder)
            assert contents(folder) == contents(tmp_path / "whole")
        else:
            break
    assert 10 < step < 199


def test_done_is_returned_at_once(tmp_path: Path, small_source: ListSource, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(small_source, BytesChoice(), tmp_path, val_fraction=0.2, workers=1)
    before = contents(tmp_path)
    monkeypatch.setattr(ListSource, "documents", None)  # must not be read again
    assert prepare(small_source, BytesChoice(), tmp_path, val_fraction=0.2, workers=1) == first
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("source", "choice", "fraction", "message"),
    [
        (ListSource(random_texts(31)), BytesChoice(), 0.2, r"source.texts=31 \(there: 30\)"),
        (ListSource(random_texts(30)), BpeChoice(280), 0.2, r"tokenizer.kind=bpe \(there: bytes\)"),
        (ListSource(random_texts(30)), BytesChoice(), 0.3, r"val_fraction=0.3 \(there: 0.2\)"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_another_request_is_refused(
    tmp_path: Path, source: ListSource, choice: Any, fraction: float, message: str, whole: bool
) -> None:
    texts = random_texts(30)
    if whole:
        prepare(ListSource(texts), BytesChoice(), tmp_path, val_fraction=0.2, workers=1)
    else:
        interrupt(ListSource(texts), tmp_path, 0.2)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=message):
        prepare(source, choice, tmp_path, val_fraction=fraction, workers=1)
    assert contents(tmp_path) == before


def interrupt(source: ListSource, folder: Path, val_fraction: float) -> None:
    """Leave a preparation in its middle."""

    def stop(status: PrepareStatus) -> None:
        if status.documents > 10:
            raise Stop

    with pytest.raises(Stop):
        prepare(
            source,
            BytesChoice(),
            folder,
            val_fraction=val_fraction,
            workers=1,
            progress=stop,
            batch_bytes=10,
            checkpoint_seconds=0.0,
        )


def test_source_that_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    texts = random_texts(30)
    interrupt(ListSource(texts), tmp_path, 0.2)
    with pytest.raises(UserError, match="no longer those of the interrupted call"):
        prepare(ListSource(("other", *texts[1:])), BytesChoice(), tmp_path, val_fraction=0.2, workers=1)
    with pytest.raises(UserError, match="no longer those of the interrupted call"):
        prepare(ListSource(("",) * 30), BytesChoice(), tmp_path, val_fraction=0.2, workers=1)


def test_foreign_folder_file_and_lock_are_refused(tmp_path: Path) -> None:
    source = ListSource(random_texts(30))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not a corpus"):
        prepare(source, BytesChoice(), tmp_path, val_fraction=0.2)
    with pytest.raises(UserError, match="this is a file"):
        prepare(source, BytesChoice(), tmp_path / "thesis.txt", val_fraction=0.2)
    with pytest.raises(UserError, match="no folder can be written"):
        prepare(source, BytesChoice(), tmp_path / "thesis.txt" / "below", val_fraction=0.2)
    folder = tmp_path / "held"
    folder.mkdir()
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process"):
            prepare(source, BytesChoice(), folder, val_fraction=0.2)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_fraction": 0.0}, "val_fraction=0: allowed values are numbers above 0 and below 1"),
        ({"val_fraction": 1.5}, "val_fraction=1.5"),
        ({"shard_tokens": 0}, "shard_tokens=0"),
        ({"workers": 0}, "workers=0"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(ListSource(("a",)), BytesChoice(), tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_empty_side_says_so_and_can_be_tried_again(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("word\n" * 2000)
    source = TextSource((str(tmp_path / "one.txt"),))
    with pytest.raises(UserError, match=r"none of the 1 documents are in the split val; raise it.*document_chars"):
        prepare(source, BytesChoice(), tmp_path / "out", val_fraction=0.001, workers=1)
    with pytest.raises(UserError, match="none of the 0 documents"):
        prepare(ListSource(("",)), BytesChoice(), tmp_path / "out", workers=1)
    (tmp_path / "one.txt").write_text("".join(letter * 50 + "\n" for letter in "abcdefghijklmnopqrstuvwxyz"))
    smaller = TextSource((str(tmp_path / "one.txt"),), document_chars=97)
    assert prepare(smaller, BytesChoice(), tmp_path / "out", val_fraction=0.3, workers=1).splits["val"].tokens


@pytest.mark.parametrize("place", ["write", "note"])
def test_full_disk_keeps_what_is_finished_and_can_be_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    source = ListSource(random_texts(60))
    settings: dict[str, Any] = {"val_fraction": 0.3, "shard_tokens": 1000, "workers": 1, "batch_bytes": 900}
    full = OSError(errno.ENOSPC, "No space left on device")
    calls = {"left": 8}

    def failing(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls["left"] -= 1
            if calls["left"] < 0:
                raise full
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        if place == "write":
            patched.setattr(shards_module.ShardWriter, "append", failing(shards_module.ShardWriter.append))
        else:
            patched.setattr(prepare_module, "write_sealed", failing(prepare_module.write_sealed))
        with pytest.raises(UserError, match="the disk is full"):
            prepare(source, BytesChoice(), tmp_path / "out", **settings, checkpoint_seconds=0.0)
    assert not (tmp_path / "out" / "manifest.json").exists()
    finished = list((tmp_path / "out").glob("*.bin"))
    assert finished
    assert all(path.stat().st_size == 2000 for path in finished)
    prepare(source, BytesChoice(), tmp_path / "out", **settings)
    prepare(source, BytesChoice(), tmp_path / "whole", **settings)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_really_full_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The open shard is /dev/full, where every write ends as on a full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")

    def open_full(writer: Any) -> Any:
        return open("/dev/full", "wb")

    monkeypatch.setattr(shards_module.ShardWriter, "_reopen", open_full)
    with pytest.raises(UserError, match=r"the disk is full \(No space left on device\)"):
        prepare(ListSource(random_texts(60)), BytesChoice(), tmp_path / "out", val_fraction=0.3, workers=1)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name != ".lock"] == ["progress.json"]


def test_too_little_space_is_seen_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StdlibSource, "text_bytes", lambda self: 10**18)
    with pytest.raises(UserError, match="GB are free"):
        prepare(StdlibSource(), BytesChoice(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


class DyingTokenizer(BytesChoice):
    """Its workers die."""

    def build(self, texts: Any) -> Any:
        return Dying()


class Dying:
    vocab_size, separator, identity = 256, 0, "dying"

    def encode_batch(self, texts: Any) -> Any:
        os._exit(9)

    def save(self, folder: Path) -> None:
        pass


def test_dead_worker_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "load_tokenizer", lambda folder, spec: Dying())
    with pytest.raises(UserError, match="workers=2: a worker process died"):
        prepare(ListSource(random_texts(60)), BytesChoice(), tmp_path, val_fraction=0.3, workers=2, batch_bytes=100)


@dataclass(frozen=True)
class EndlessSource:
    """Many distinct documents that are made as they are read."""

    count: int

    def spec(self) -> dict[str, Any]:
        return {"kind": "endless", "count": self.count}

    def documents(self) -> Iterator[Document]:
        for number in range(self.count):
            yield Document(str(number), f"{number} " * 1000)

    def text_bytes(self) -> int | None:
        return None


def peak_bytes(documents: int, folder: Path) -> int:
    """Of a preparation into few shards: each has its line in the manifest, which is the one thing that grows."""
    tracemalloc.start()
    prepare(
        EndlessSource(documents),
        BytesChoice(),
        folder,
        val_fraction=0.1,
        workers=1,
        batch_bytes=2**17,
        shard_tokens=2**20,
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    peak_bytes(50, tmp_path / "warm")
    small, large = peak_bytes(500, tmp_path / "small"), peak_bytes(4000, tmp_path / "large")
    assert large < 1.2 * small
    size = sum(path.stat().st_size for path in (tmp_path / "large").glob("*.bin"))
    assert large < size / 5


def test_progress_is_reported(tmp_path: Path, small_source: ListSource) -> None:
    seen: list[PrepareStatus] = []
    manifest = prepare(
        small_source, BpeChoice(280), tmp_path, val_fraction=0.2, workers=1, progress=seen.append, batch_bytes=5000
    )
    assert seen[0].phase == "training the tokenizer"
    assert [status.documents for status in seen] == sorted(status.documents for status in seen)
    assert seen[-1].documents == manifest.documents
    assert seen[-1].tokens == sum(split.tokens for split in manifest.splits.values())
    assert seen[-1].text_bytes == manifest.text_bytes


def test_default_corpus(tmp_path: Path) -> None:
    """This Python's library, with all cores: every document on one side, and the tokens add up."""
    manifest = prepare(StdlibSource(), BytesChoice(), tmp_path)
    sizes = [(len(text), is_val(digest(text), 0.02)) for text in map(read_utf8, StdlibSource().documents()) if text]
    assert manifest.splits["val"].tokens == sum(size + 1 for size, held_out in sizes if held_out)
    assert manifest.splits["train"].tokens == sum(size + 1 for size, held_out in sizes if not held_out)
    assert json.loads((tmp_path / "manifest.json").read_text())["corpus_hash"] == manifest.corpus_hash


def read_utf8(document: Document) -> bytes:
    return document.text.encode()
