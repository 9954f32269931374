"""Runs of an earlier version: renamed to what such runs are called now. train.py does this by itself when it meets them."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from omegaconf import DictConfig

from shapelaw.config import MigrateConfig, Precision
from shapelaw.config.schema import to_dataclass
from shapelaw.errors import UserError, WorkFailed
from shapelaw.migration import migrate, old_runs
from shapelaw.terminal import write, write_error
from shapelaw.wording import counted

log = logging.getLogger(__name__)


@functools.cache
def take_over(outputs: Path, uri: str) -> None:
    """Rename the runs of an earlier version, once per process, and print a note about it.

    Args:
        outputs: folder of all runs.
        uri: URI of the tracking store, which gets the new names of its runs.
    """
    if not old_runs(outputs):
        return
    try:
        done = migrate(outputs, uri=uri)
    except OSError as error:
        log.warning("runs of an earlier version cannot be renamed, and would be trained again: %s", error)
        return
    if done.renamed:
        log.warning("%s of an earlier version renamed as this version names them", counted(len(done.renamed), "run"))
    for line in done.undelivered:
        log.warning("%s", line)
    if done.left:
        log.warning(
            "%s of an earlier version cannot be taken over and would be trained again; `shapelaw migrate` explains why",
            counted(len(done.left), "run"),
        )


def take_over_all(config: DictConfig) -> None:
    """Rename the runs of an earlier version, and report why some could not be renamed.

    Raises:
        UserError: if the outputs folder is missing.
        WorkFailed: if a run was not renamed, or its record could not be delivered.
    """
    options: MigrateConfig = to_dataclass(config)
    outputs = Path(options.outputs_dir)
    if not outputs.is_dir():
        raise UserError(f"outputs_dir={outputs}: there is no such folder; give the one that holds runs/")
    done = migrate(outputs, None if options.precision is Precision.auto else options.precision, options.tracker.uri)
    for line in (*done.left, *done.undelivered):
        write_error(f"{line}\n")
    words = f"{counted(len(done.renamed), 'run')} renamed, {counted(len(done.left), 'run')} left unchanged"
    if done.left or done.undelivered:
        raise WorkFailed(f"{words}; the lines above say what to do")
    write(f"{words}\n")


DOOR = take_over_all
