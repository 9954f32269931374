"""Gives folders of runs today's names, with one rename each.

The identities in a run's files change before its folder is renamed, and its fingerprint is written afterwards. Every step can
be repeated: the next migration finishes one that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shapelaw.config import Precision
from shapelaw.errors import UserError
from shapelaw.files import read_json, unsealed, write_sealed, write_text
from shapelaw.fingerprint import FILE, former_identity, write_fingerprint
from shapelaw.migration.planning import OldRun, old_folders, planned
from shapelaw.migration.tracked import note_names, rename_tracked
from shapelaw.run_state import lock
from shapelaw.tracking.addresses import database_file
from shapelaw.tracking.journal import JOURNAL
from shapelaw.training.rollback import ROLLBACKS


@dataclass(frozen=True)
class Migration:
    """The result of a migration.

    Args:
        renamed: the renamed folders.
        left: a line for every run that could not be taken over, and stays unchanged.
        undelivered: a line for every tracked run whose new name the store lacks.
    """

    renamed: Sequence[Path] = ()
    left: Sequence[str] = ()
    undelivered: Sequence[str] = ()


def old_runs(outputs: Path) -> bool:
    """Whether there are runs of an earlier version."""
    return bool(old_folders(outputs))


def migrate(outputs: Path, precision: Precision | None = None, uri: str = "") -> Migration:
    """Give all runs of an earlier version today's names. It may be called again, or by several processes at once.

    Args:
        outputs: folder of all runs (outputs/).
        precision: precision of runs with precision=auto that do not record it.
        uri: URI of the tracking store, which gets the new names of its runs, as a database in `outputs` does.

    Raises:
        OSError: if the folder cannot be written to.
    """
    if not old_runs(outputs):
        return Migration()
    with _alone(outputs / "runs"):
        runs, left = _plans(outputs, precision)
        renamed: list[Path] = []
        for run in runs:
            try:
                renamed += _renamed(run)
            except UserError as error:
                left.append(str(error))
        return Migration(
            renamed,
            left,
            rename_tracked(renamed, _former(outputs), lambda named: named == uri or _is_inside(outputs, named)),
        )


def _plans(outputs: Path, precision: Precision | None) -> tuple[list[OldRun], list[str]]:
    """The runs to rename, and a line for each that cannot be."""
    runs: list[OldRun] = []
    left: list[str] = []
    for folder in old_folders(outputs):
        try:
            runs.append(planned(folder, outputs, precision))
        except UserError as error:
            left.append(str(error))
    by_former = {run.former: run for run in runs}
    chosen: dict[Path, OldRun] = {}
    for run in sorted(runs, key=lambda run: run.progress, reverse=True):
        why = _obstacle(run, by_former.get(run.continued or ""), chosen.get(run.new_folder))
        if why:
            left.append(f"{run.folder}: {why}")
        else:
            chosen[run.new_folder] = run
    return list(chosen.values()), left


def _obstacle(run: OldRun, main: OldRun | None, double: OldRun | None) -> str:
    """Why a run cannot have its new name: because of the run that it continues, or another with the same fingerprint."""
    if double:
        return f"is now the same run as {double.folder.name}, which came as far; remove it if you do not need it"
    if main and main.identity != run.continues:
        return (
            f"is a cooldown in {run.fingerprint['precision']} of the run {main.folder.name} in "
            f"{main.fingerprint['precision']}, which no configuration describes any more; its tracked run stays unchanged"
        )
    return ""


def _is_inside(outputs: Path, uri: str) -> bool:
    """Whether a store is a database in the folder of all runs; one elsewhere is only written to if the user names it."""
    file = database_file(uri)
    return file is not None and file.resolve().is_relative_to(outputs.resolve())


@contextlib.contextmanager
def _alone(runs: Path) -> Iterator[None]:
    """One migration at a time; the next one waits."""
    with (runs / ".migration.lock").open("a") as file:
        with contextlib.suppress(OSError):  # file systems without locks: renames are atomic all the same
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _renamed(run: OldRun) -> list[Path]:
    """Rename a run; returns its new folder, or nothing if another process has renamed it meanwhile.

    Raises:
        UserError: if it is in training, or its new name is taken.
    """
    if not run.folder.is_dir():
        return []
    with lock(run.folder):
        if run.folder != run.new_folder:
            _change_files(run)
            _rename(run)
        write_fingerprint(run.new_folder, run.fingerprint, run.former)
    return [run.new_folder]


def _change_files(run: OldRun) -> None:
    """Replace the identities in a run's files by the new ones."""
    for path in (run.folder / JOURNAL, run.folder / ROLLBACKS):
        if path.exists():
            _replace(path, run.names)  # all identities have one length, so byte positions stay valid
    for path in run.folder.glob("checkpoints/step-*/state.json"):
        _change_checkpoint(path, run.names)
    note_names(run)


def _replace(path: Path, names: Mapping[str, str]) -> None:
    text = before = path.read_text(encoding="utf-8")
    for old, new in names.items():
        text = text.replace(old, new)
    if text != before:
        write_text(path, text)


def _change_checkpoint(path: Path, names: Mapping[str, str]) -> None:
    """Change the identities of rollbacks in a checkpoint; a damaged one stays, and its loader reports it."""
    with contextlib.suppress(UserError):
        state = unsealed(path, read_json(path))
        events = [{**event, "cell": names.get(event["cell"], event["cell"])} for event in state.get("rollbacks", [])]
        if events != state.get("rollbacks", []):
            write_sealed(path, {**state, "rollbacks": events})


def _rename(run: OldRun) -> None:
    try:
        os.rename(run.folder, run.new_folder)
    except OSError as error:
        if not run.new_folder.exists():
            raise
        raise UserError(
            f"{run.folder}: {run.new_folder.name}, which is its name now, exists already; remove one of the two"
        ) from error


def _former(outputs: Path) -> dict[str, str]:
    """Former identities -> present ones, for all runs that were ever renamed."""
    names = {}
    for path in outputs.glob(f"runs/*/*/{FILE}"):
        if former := former_identity(path.parent):
            names[former] = path.parent.name.rpartition("-")[2]
    return names
