"""What runs have left in their journals: `python -m shapelaw replay|status [FOLDER ...] [--uri URI]`.

replay delivers to the store what runs that ended while it was away could not; status says what there is to deliver. A
FOLDER is a run's, or any above; the outputs folder where none is given. --uri names another store than the runs did (the
server moved, or lost its database): it gets everything. The exit code is 1 if something is left.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from shapelaw.errors import UserError
from shapelaw.tracking.delivery import Delivery, deliver_left, left_line
from shapelaw.tracking.journal import JOURNAL
from shapelaw.tracking.store import check_uri

LEFT, BAD_INPUT = 1, 2


def main(arguments: list[str]) -> int:
    """Deliver or list; the exit code."""
    parser = argparse.ArgumentParser("python -m shapelaw.verbs.replay", description=__doc__)
    parser.add_argument("verb", choices=("replay", "status"))
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--uri", help="of the store to deliver to, where it is not the one that the runs named")
    asked = parser.parse_args(arguments)
    try:
        if asked.uri:
            check_uri(asked.uri)
        found = journals(asked.folders or [Path(os.environ.get("SHAPELAW_OUTPUTS", "outputs"))])
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_INPUT
    lines = [_left(folder) if asked.verb == "status" else deliver_left(folder, asked.uri) for folder in found]
    left = [line for line in lines if line]
    for line in left:
        sys.stderr.write(f"{line}\n")
    sys.stdout.write(f"{len(found)} runs, {len(left)} with something left to deliver\n")
    return LEFT if left else 0


def journals(folders: list[Path]) -> list[Path]:
    """Folders of the runs under some folders that have a journal.

    Raises:
        UserError: if a folder is missing.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder; give a run's, or one above it such as outputs/runs")
    return sorted({path.parent for folder in folders for path in folder.rglob(JOURNAL)})


def _left(folder: Path) -> str | None:
    delivery = Delivery(folder)
    return left_line(delivery, "not delivered") if delivery.left else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
