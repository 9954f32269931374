"""Finds runs of an earlier version, and their names of today."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shapelaw.config import Precision
from shapelaw.data.manifest import MANIFEST_FILE
from shapelaw.devices import gpu_names
from shapelaw.errors import UserError
from shapelaw.files import read_json, read_sealed
from shapelaw.fingerprint import FILE, Fingerprint, identity_of
from shapelaw.migration.identity_1 import fingerprint_1, fingerprint_2, identity_1
from shapelaw.planned_run import checkpoint_steps
from shapelaw.run_state import State, Status, read_state
from shapelaw.tracking.journal import JOURNAL, records

RECORDED = {"bf16-mixed": Precision.bf16, "32-true": Precision.fp32}
"""Values of the tag shapelaw.precision."""
LIVE_SECONDS = 900.0
"""A run on another machine with a younger state counts as running, because not every network file system passes on locks."""


@dataclass(frozen=True)
class OldRun:
    """A run of an earlier version.

    Args:
        folder: its folder.
        fingerprint: its present fingerprint.
        names: identities in its files -> present ones: its own first, then that of the run that it continues.
        progress: whether it finished, and its last step; of two runs with one fingerprint, the longer one is kept.
    """

    folder: Path
    fingerprint: Fingerprint
    names: Mapping[str, str]
    progress: tuple[bool, int]

    @property
    def former(self) -> str:
        """Its former identity."""
        return next(iter(self.names))

    @property
    def identity(self) -> str:
        """Its present identity."""
        return self.names[self.former]

    @property
    def new_folder(self) -> Path:
        """Its new folder."""
        return self.folder.with_name(f"{self.folder.name.rpartition('-')[0]}-{self.identity}")

    @property
    def continues(self) -> str | None:
        """Present identity of the run that it continues."""
        cooldown = self.fingerprint["cooldown"]
        return None if cooldown is None else str(cooldown["parent"])

    @property
    def continued(self) -> str | None:
        """Former identity of the run that it continues."""
        return next((old for old, new in self.names.items() if new == self.continues), None)


def old_folders(outputs: Path) -> list[Path]:
    """Folders of runs from an earlier version: they record what was trained, but have no fingerprint."""
    return sorted(path.parent for path in outputs.glob("runs/*/*/config.yaml") if not (path.parent / FILE).exists())


def planned(folder: Path, outputs: Path, precision: Precision | None) -> OldRun:
    """The present names of a run.

    Args:
        folder: folder of the run.
        outputs: the folder of all runs, for corpora that were moved with it.
        precision: precision of the run, if it does not record it.

    Raises:
        UserError: if the names cannot be determined, or the run is still in training.
    """
    state = read_state(folder)
    _check_still(folder, state)
    values = _values(folder / "config.yaml")
    try:
        old, new = _fingerprints(values, folder, outputs, _precision(values, folder, state, precision))
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(
            f"{folder}: its config.yaml is not that of a run ({type(error).__name__}: {error}); restore the original file"
        ) from error
    progress = state.status is Status.finished, max([state.step, *checkpoint_steps(folder)])
    return OldRun(folder, new, _names(old, new), progress)


def _fingerprints(
    values: Mapping[str, Any], folder: Path, outputs: Path, precision: Precision
) -> tuple[Fingerprint, Fingerprint]:
    """The old fingerprint of a run, which its folder's name proves, and the new one."""
    identity, further = folder.name.rpartition("-")[2], _further_hashes(values, folder, outputs)
    for corpus_hash in dict.fromkeys(_corpus_hashes(values, outputs)):
        old = fingerprint_1(values, corpus_hash)
        new = fingerprint_2(old, precision.value, further)
        if identity in (identity_1(old), identity_of(new)):  # the second if a migration was killed after renaming
            return old, new
    raise UserError(
        f"{folder}: its name is not the identity of its config.yaml on any corpus in {values.get('data_dir')}; restore "
        "the corpus that it was trained on, and run migrate again"
    )


def _names(old: Fingerprint, new: Fingerprint) -> dict[str, str]:
    own = {identity_1(old): identity_of(new)}
    return own if old["cooldown"] is None else own | {old["cooldown"]["parent"]: new["cooldown"]["parent"]}


def _values(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); restore the original file"
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: contains no options; restore the original file")
    return found


def _corpus_hashes(values: Mapping[str, Any], outputs: Path) -> Iterator[str]:
    """Hash of the corpus that the run names, then those of all corpora where it may have been moved to."""
    named = f"{values.get('data', {}).get('name')}-{values.get('tokenizer', {}).get('name')}"
    roots = [Path(str(values.get("data_dir"))), outputs / "corpora"]
    manifests = [root / named / MANIFEST_FILE for root in roots]
    manifests += [path for root in roots for path in sorted(root.glob(f"*/{MANIFEST_FILE}"))]
    for path in manifests:
        if path.exists():
            yield str(read_json(path).get("corpus_hash"))


def _further_hashes(values: Mapping[str, Any], folder: Path, outputs: Path) -> dict[str, str]:
    """Hashes of the further held-out corpora, by the names of their losses.

    Raises:
        UserError: if one no longer exists.
    """
    hashes = {}
    for name, corpus in values.get("validation", {}).get("further", {}).items():
        places = [root / corpus / MANIFEST_FILE for root in (Path(str(values.get("data_dir"))), outputs / "corpora")]
        found = next((path for path in places if path.exists()), None)
        if found is None:
            raise UserError(
                f"{folder}: its further held-out corpus {corpus} is not in {places[0].parent.parent}; restore it, and "
                "run migrate again"
            )
        hashes[name] = str(read_sealed(found)["corpus_hash"])
    return hashes


def _precision(values: Mapping[str, Any], folder: Path, state: State, given: Precision | None) -> Precision:
    """The number format of a run: the requested one, the recorded one, or this machine's."""
    if values.get("precision") in ("bf16", "fp32"):
        return Precision[values["precision"]]
    recorded = [record["values"].get("shapelaw.precision") for record in _tags(folder)]
    known = [RECORDED[value] for value in recorded if value in RECORDED]
    if known:
        return known[-1]
    if values.get("accelerator") == "cpu":
        return Precision.fp32
    if given is not None:
        return given
    if state.host == socket.gethostname():
        return Precision.bf16 if gpu_names() else Precision.fp32
    raise UserError(
        f"{folder}: precision=auto, and no record says whether it was computed on a GPU; run migrate with precision=bf16 if it "
        "was, or precision=fp32 if it was not"
    )


def _tags(folder: Path) -> Sequence[Mapping[str, Any]]:
    return [record for record, _ in records(folder / JOURNAL) if record["kind"] == "tags"]


def _check_still(folder: Path, state: State) -> None:
    """Refuse a run that another machine may be training, whose lock is invisible here, so that it looks interrupted."""
    path = folder / "state.json"
    running = path.exists() and read_sealed(path)["status"] == Status.running.value
    if running and state.host != socket.gethostname() and time.time() - state.updated < LIVE_SECONDS:
        raise UserError(f"{folder}: is being trained on {state.host}; run migrate again when it has ended")
