"""Disks that fill up, turn read only or lose bits; corpora that lost their manifest; two processes at one run."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shapelaw.errors import Interrupted, UserError
from shapelaw.planned_run import checkpoint_steps
from shapelaw.run_state import Status, read_state
from shapelaw.verbs.messages import explain
from support import Compose, Script, SmallDisk, Start, Sweep
from training.test_run import prepared, stop_at, train

MakeDisk = Callable[[int], SmallDisk]


@pytest.mark.parametrize("pages", [0, 12], ids=["nothing fits", "half a checkpoint fits"])
def test_a_full_disk_costs_no_checkpoint(
    composed: Compose, small_disk: MakeDisk, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filled up between two checkpoints: the run says so, those before stay whole, and with space again it goes on."""
    disk = small_disk(4)
    elsewhere = f"outputs_dir={disk.folder}/outputs"
    whole = train(composed)
    with pytest.raises(Interrupted):
        train(composed, elsewhere, show=stop_at(8))
    _, planned = prepared(composed, elsewhere)
    steps = checkpoint_steps(planned.folder)
    filler = disk.fill()
    os.truncate(filler, filler.stat().st_size - pages * 4096)
    monkeypatch.setattr("shapelaw.training.run.check_room", lambda *_: None)  # as if it filled up after that look
    with pytest.raises((UserError, OSError), match="No space left on device") as said:
        train(composed, elsewhere)
    assert explain(said.value), "it is one line for the user"
    assert ("checkpoint after step" in str(said.value)) is bool(pages)
    assert checkpoint_steps(planned.folder) == steps
    filler.unlink()
    train(composed, elsewhere)
    assert read_state(planned.folder).val_loss == read_state(whole.folder).val_loss


@pytest.mark.parametrize("fault", ["full", "read only"])
def test_a_disk_that_takes_nothing_is_said_in_one_line(script: Script, small_disk: MakeDisk, fault: str) -> None:
    disk = small_disk(1)
    if fault == "full":
        disk.fill()
    else:
        disk.set_writable(False)
    ended = script("train.py", "tracker=none", f"outputs_dir={disk.folder}/outputs")
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    assert str(disk.folder) in ended.stderr
    assert ("No space left" if fault == "full" else "Read-only") in ended.stderr


SWEPT = ("-m", "lr_base=3,4")


@pytest.mark.parametrize("words", [("tracker=none",), (*SWEPT, "tracker=none"), SWEPT])
@pytest.mark.parametrize("what", ["a file", "read only"])
def test_outputs_that_cannot_be_written_are_said_before_the_first_run(
    sweep: Sweep, small_disk: MakeDisk, tmp_path: Path, words: tuple[str, ...], what: str
) -> None:
    """Of one run, of a sweep, and of the tracking store in them; as quickly as any other wrong option."""
    place = tmp_path / "a file"
    if what == "a file":
        place.touch()
    else:
        disk = small_disk(1)
        disk.set_writable(False)
        place = disk.folder
    ended = sweep(*words, f"outputs_dir={place}")
    assert ended.returncode == 2, ended.stderr
    assert re.fullmatch(r"shapelaw: .*(Not a directory|Read-only file system).*give another .*\n", ended.stderr), (
        ended.stderr
    )


def test_a_sweep_on_a_full_disk_says_so_of_every_run(sweep: Sweep, small_disk: MakeDisk) -> None:
    disk = small_disk(1)
    disk.fill()
    ended = sweep(*SWEPT, "tracker=none", f"outputs_dir={disk.folder}")
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.count("No space left on device") == 2, ended.stderr
    assert "2 of 2 runs failed" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_flipped_byte_of_a_shard_is_seen_before_the_first_step(
    composed: Compose, corpora: Path, tmp_path: Path, script: Script
) -> None:
    mine = tmp_path / "corpora"
    shutil.copytree(corpora, mine)
    shard = next(mine.glob("text-bytes/train-*.bin"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)
    with pytest.raises(UserError, match=f"{shard.name} was changed after it was written"):
        train(composed, f"data_dir={mine}")
    _, planned = prepared(composed, f"data_dir={mine}")
    assert read_state(planned.folder).step == 0
    train(composed, f"data_dir={mine}", "data.verify=never")


def test_a_corpus_without_its_manifest_is_not_trained_on(composed: Compose, corpora: Path, tmp_path: Path) -> None:
    mine = tmp_path / "corpora"
    shutil.copytree(corpora, mine)
    (mine / "text-bytes" / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"no prepared corpus; run: shapelaw prepare"):
        prepared(composed, f"data_dir={mine}")


def test_a_second_process_at_a_run_is_refused(composed: Compose, script: Script, start: Start) -> None:
    """Two real processes: the second ends at once and says so; the first goes on."""
    longer = ["tokens=1280000", "data.max_epochs=100", "tracker=none", "progress=false"]
    _, planned = prepared(composed, *longer)
    first = start("train.py", *longer)
    _until(lambda: read_state(planned.folder).step > 0 or first.poll() is not None)
    second = script("train.py", *longer)
    assert second.returncode == 2, second.stderr
    assert "is being trained by another process" in second.stderr
    assert first.poll() is None
    assert read_state(planned.folder).status is Status.running


def _until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
