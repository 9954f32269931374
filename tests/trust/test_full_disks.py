"""Full disks: what will not fit is said before the work, and what fails while it is written names its file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from shapelaw.figures.style import canvas, look, save
from shapelaw.files import check_room, write_text
from shapelaw.planned_run import checkpoint_steps
from shapelaw.runs import RunsTable
from shapelaw.training.run import disk_bytes
from shapelaw.verbs import coordinates, fit, report
from shapelaw.verbs import prescribe as prescribing
from shapelaw.verbs.messages import explain
from support import Compose, Door, SmallDisk, prepared, train

MakeDisk = Callable[[int], SmallDisk]
ROWS = [f"{n}x{k},{n}e6,{k}e8,{1 + 3 / n**0.3 + 4 / k**0.3:.5f}" for n in (1, 2, 4, 8) for k in (1, 2, 4)]


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(["run,params,tokens,loss", *ROWS]))
    return f"runs.path={path}"


def worked(*_: object, **__: object) -> None:
    raise AssertionError("it worked before it looked at the disk")


@pytest.mark.parametrize("verb", ["fit", "fit -m", "prescribe", "report", "coordinates"])
def test_a_verb_looks_at_the_disk_before_it_works(
    door: Door,
    small_disk: MakeDisk,
    table: str,
    corpora: Path,
    outputs: Path,
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = small_disk(1)
    disk.fill()
    monkeypatch.setattr(fit, "make_fit", worked)
    monkeypatch.setattr(prescribing, "prescribe", worked)
    monkeypatch.setattr(report, "answer_of", worked)
    monkeypatch.setattr(coordinates, "_measured", worked)
    usual = ("runs=csv", table)
    words = {
        "fit": (*usual, "tracker=none"),
        "fit -m": ("-m", *usual, "tracker=none", "delta=1e-3"),
        "prescribe": ("budget=1e18",),
        "report": usual,
        "coordinates": (f"data_dir={corpora}",),
    }
    code, said = door(verb.split()[0], f"outputs_dir={disk.folder}", *words[verb])
    assert (code, len(said.splitlines())) == (2, 1), said
    assert str(disk.folder) in said
    assert "No space left on device: about" in said
    assert "0 MB are free" in said


def test_a_run_looks_for_room_for_its_checkpoints(composed: Compose, small_disk: MakeDisk) -> None:
    """Half of what it needs is free: it does not begin."""
    disk = small_disk(1)
    config, planned = prepared(composed, f"outputs_dir={disk.folder}/outputs")
    needed = disk_bytes(config, planned)
    filler = disk.fill()
    os.truncate(filler, filler.stat().st_size - int(needed) // 2)
    with pytest.raises(OSError, match=r"No space left on device: about .* for a run of 16x1") as said:
        train(composed, f"outputs_dir={disk.folder}/outputs")
    assert explain(said.value)
    assert checkpoint_steps(planned.folder) == []
    filler.unlink()
    train(composed, f"outputs_dir={disk.folder}/outputs")
    written = sum(path.stat().st_size for path in planned.folder.rglob("*.safetensors"))
    assert written / 1.05 <= needed <= 2.1 * written
    assert disk_bytes(config, planned) < needed, "one that continues needs room for one more"


def test_all_checkpoints_that_stay_are_counted(composed: Compose) -> None:
    few, planned = prepared(composed, "checkpoint.every_tokens=128", "checkpoint.keep=newest", "checkpoint.newest=2")
    every, _ = prepared(composed, "checkpoint.every_tokens=128", "checkpoint.keep=all")
    assert disk_bytes(few, planned) * len(planned.checkpoints) == pytest.approx(disk_bytes(every, planned) * 3)


@pytest.mark.parametrize("kind", ["figure", "text", "table"])
def test_what_fails_while_it_is_written_names_its_file(small_disk: MakeDisk, kind: str) -> None:
    disk = small_disk(1)
    disk.fill()
    rows = pd.DataFrame({"run": ["a", "b"], "params": [1e6, 2e6], "tokens": [1e8, 2e8], "loss": [3.0, 2.9]})
    with look():
        figure, _ = canvas(2.0, 2.0)
    write = {
        "figure": lambda: save(figure, disk.folder, "x"),
        "text": lambda: write_text(disk.folder / "x.txt", "x" * 5000),
        "table": lambda: RunsTable(rows).to_parquet(disk.folder / "x.parquet"),
    }[kind]
    with pytest.raises(OSError, match="No space left") as said:
        write()
    assert f"{disk.folder}/x." in str(explain(said.value))
    assert not [path for path in disk.folder.iterdir() if path.name not in ("filler", "x.png")]


def test_room_that_is_there_is_enough(tmp_path: Path) -> None:
    check_room(tmp_path / "new" / "folder", 1.0, "it")
    assert not (tmp_path / "new").exists()
    with pytest.raises(OSError, match=r"about 1,000,000,000\.0 GB for it"):
        check_room(tmp_path / "new", 1e18, "it")
