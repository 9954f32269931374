"""The journal of a run: everything it records, one JSON object a line, appended to a file in the run's own folder.

tracking.jsonl       the records; the process that makes the run appends, nothing is ever changed
tracking.sent.json   how far the store has them (`shapelaw.tracking.delivery`)

A line is one write, so that a killed process leaves whole lines, at worst a torn last one, which the next attempt cuts off.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shapelaw.errors import UserError
from shapelaw.files import plain

JOURNAL = "tracking.jsonl"
HELD_BYTES = 2**24
"""Of lines kept in memory while the folder's own disk is full; about 80,000 records."""
Record = dict[str, Any]
log = logging.getLogger(__name__)


class Journal:
    """Appends records. Metrics up to the tokens that are in it already are left out: an earlier attempt measured them.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / JOURNAL
        self.recorded: dict[str, int] = {}
        self.rewinds = self.time = self.size = 0
        for record, end in records(self.path):
            self._take(record)
            self.size = end
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._file, self.size)
        self._held = b""
        self._said = False

    def append(self, kind: str, **fields: Any) -> None:
        """Append a record with the time, which never runs backwards; a full disk leaves it in memory until there is room.

        Raises:
            UserError: when that lasts too long.
        """
        self.time = max(self.time, int(time.time() * 1000))
        record: Record = {"kind": kind, "time": self.time, **fields}
        self._take(record)
        self._held += json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        if self._write() is not None and len(self._held) > HELD_BYTES:
            self.sync()

    def metrics(self, values: Mapping[str, float], tokens: int) -> None:
        """Append the metrics that are not recorded yet."""
        new = {key: plain(value) for key, value in values.items() if tokens > self.recorded.get(key, -1)}
        if new:
            self.append("metrics", tokens=tokens, values=new)

    def rewind(self, number: int, tokens: int, values: Mapping[str, float]) -> None:
        """Append that the run went back, unless this rewind is recorded; its time is later than all before it."""
        if number > self.rewinds:
            self.time += 1
            metrics = {key: plain(value) for key, value in values.items()}
            self.append("rewind", number=number, tokens=tokens, values=metrics)

    def sync(self) -> None:
        """Write what is held, and flush it to the disk.

        Raises:
            UserError: if there is no room for it.
        """
        error = self._write()
        if error is not None:
            raise UserError(
                f"{self.path}: metrics could not be written ({error}); free some space and run the same command again"
            ) from error
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _take(self, record: Record) -> None:
        self.time = max(self.time, record["time"])
        if record["kind"] == "metrics":
            self.recorded.update(dict.fromkeys(record["values"], record["tokens"]))
        elif record["kind"] == "rewind":
            self.rewinds = record["number"]
            self.recorded = {key: min(last, record["tokens"]) for key, last in self.recorded.items()}

    def _write(self) -> OSError | None:
        """Write what is held; half a line is taken back."""
        try:
            if os.write(self._file, self._held) < len(self._held):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(self._file, self.size)
            if not self._said:
                log.warning("%s: cannot be written (%s); metrics are held in memory", self.path, error)
            self._said = True
            return error
        self.size += len(self._held)
        self._held = b""
        return None


def records(path: Path, start: int = 0) -> Iterator[tuple[Record, int]]:
    """The whole records of a journal from a byte on, each with the byte after it; damaged lines are said and passed over."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        end = start
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            record = _parse(line, path)
            if record is not None:
                yield record, end


def _parse(line: bytes, path: Path) -> Record | None:
    try:
        record: Record = json.loads(line)
        if {"kind", "time"} <= record.keys():
            return record
    except (ValueError, AttributeError):
        pass
    log.warning("%s: a line is damaged and passed over: %r", path, line[:60])
    return None
