"""Runs of an earlier version get the names they have now: `python -m shapelaw migrate [outputs_dir=FOLDER] [precision=fp32]`.

train.py does this by itself when it meets such runs. The command also says why a run could not be taken over, and what to do
about it; its exit code is 1 if there is one. precision, fp32 or bf16, is that of runs which left it open and do not say.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from pathlib import Path

from shapelaw.config import Precision
from shapelaw.errors import UserError
from shapelaw.migration import Migration, migrate, old_runs
from shapelaw.wording import counted

LEFT, BAD_INPUT = 1, 2
KEYS = ("outputs_dir", "precision")
log = logging.getLogger(__name__)


@functools.cache
def take_over(outputs: Path) -> None:
    """Rename the runs of an earlier version, once in a process, with a note of what was done.

    Args:
        outputs: folder of all runs.
    """
    if not old_runs(outputs):
        return
    try:
        done = migrate(outputs)
    except OSError as error:
        log.warning("runs of an earlier version cannot be renamed, and would be trained again: %s", error)
        return
    if done.renamed:
        log.warning(
            "%s of an earlier version renamed to what such runs are called now", counted(len(done.renamed), "run")
        )
    for line in done.undelivered:
        log.warning("%s", line)
    if done.left:
        log.warning(
            "%s of an earlier version cannot be taken over and would be trained again; `python -m shapelaw migrate` says why",
            counted(len(done.left), "run"),
        )


def main(arguments: list[str]) -> int:
    """Migrate, and say what was done; the exit code."""
    try:
        options = _options(arguments)
        outputs = Path(options.get("outputs_dir") or os.environ.get("SHAPELAW_OUTPUTS", "outputs"))
        done = migrate(outputs, _precision(options.get("precision")))
    except (UserError, OSError) as error:
        sys.stderr.write(f"shapelaw: {error}\n")
        return BAD_INPUT
    _say(done)
    return LEFT if done.left or done.undelivered else 0


def _options(arguments: list[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in arguments]
    for key, sign, _ in pairs:
        if key not in KEYS or not sign:
            raise UserError(f"{key}{sign}: allowed are outputs_dir=FOLDER and precision=fp32 or bf16; give one of them")
    return {key: value for key, _, value in pairs}


def _precision(given: str | None) -> Precision | None:
    if given is None:
        return None
    if given not in ("fp32", "bf16"):
        raise UserError(f"precision={given}: allowed are fp32 and bf16; give what the runs were computed in")
    return Precision[given]


def _say(done: Migration) -> None:
    for line in (*done.left, *done.undelivered):
        sys.stderr.write(f"{line}\n")
    sys.stdout.write(
        f"{counted(len(done.renamed), 'run')} renamed, {counted(len(done.left), 'run')} left as they are\n"
    )
