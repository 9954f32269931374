"""What runs have left in their journals: delivered to the store that was away when they ended, or only listed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from shapelaw.config import ReplayConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.errors import UserError, WorkFailed
from shapelaw.terminal import write, write_error
from shapelaw.tracking.addresses import check_uri
from shapelaw.tracking.delivery import Delivery, deliver_left
from shapelaw.tracking.journal import JOURNAL


def replay(config: DictConfig) -> None:
    """Deliver the remaining records, or list them.

    Raises:
        UserError: for a missing folder or store.
        WorkFailed: if records remain.
    """
    asked: ReplayConfig = to_dataclass(config)
    if asked.uri is not None:
        check_uri(asked.uri)
    check_uri(asked.tracker.uri)
    found = journals([Path(folder) for folder in asked.folders])
    lines = [_foreign(folder, asked) or _delivered(folder, asked) for folder in found]
    left = [line for line in lines if line]
    for line in left:
        write_error(f"{line}\n")
    write(f"{len(found)} runs, {len(left)} with undelivered records\n")
    if left:
        remedy = "start their store, then run the same command again" if asked.deliver else "give deliver=true"
        raise WorkFailed(f"{len(left)} of {len(found)} runs are not fully delivered: {remedy}")


def journals(folders: Sequence[Path]) -> list[Path]:
    """Folders of runs with a journal under the given folders.

    Raises:
        UserError: if a folder is missing.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"folders={folder}: there is no such folder; give the folder of a run, or one above it, such as "
                "folders=[outputs/runs]"
            )
    return sorted({path.parent for folder in folders for path in folder.rglob(JOURNAL)})


def _foreign(folder: Path, asked: ReplayConfig) -> str | None:
    """Why a run is not sent to the store that its journal names: the user has not named that store. A journal may come from
    anybody, and requests to a store carry the user's own password."""
    delivery = Delivery(folder)
    if asked.uri is not None or not delivery.left or delivery.named == asked.tracker.uri:
        return None
    return (
        f"tracking: {folder} was recorded for {delivery.named!r}, which is not tracker.uri={asked.tracker.uri}: none of "
        "its records were sent; if that store is yours, give its address as tracker.uri"
    )


def _delivered(folder: Path, asked: ReplayConfig) -> str | None:
    """Deliver a run, or only check it; returns a line about the remaining records."""
    if asked.deliver:
        return deliver_left(folder, asked.uri, asked.tracker.artifacts)
    delivery = Delivery(folder)
    return delivery.line("not delivered") if delivery.left else None


DOOR = replay
