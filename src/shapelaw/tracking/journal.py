"""The journal of a run: everything it records, one JSON object per line, appended to a file in the run's own folder.

tracking.jsonl       the records; the process of the run appends to it, and nothing ever changes
tracking.sent.json   how far they were delivered to the store (`shapelaw.tracking.delivery`)

A line is one write, so a killed process leaves whole lines, or at worst a torn last one, which the next attempt cuts off.
Each line ends with the CRC-32 of the rest of it. Lines of earlier versions have no CRC and are read unverified.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from shapelaw.errors import UserError
from shapelaw.files import plain

JOURNAL = "tracking.jsonl"
HELD_BYTES = 2**24
"""Size of the lines kept in memory while the folder's disk is full; about 80,000 records."""
LINE_BYTES = 2**20
"""Greatest length of a line."""
Record = dict[str, Any]
FIELDS = {
    "start": {"info", "uri", "artifacts", "experiment", "experiment_id"},
    "metrics": {"tokens", "values"},
    "rewind": {"number", "tokens", "values"},
    "tags": {"values"},
    "artifact": {"path", "folder"},
    "status": {"status"},
}
"""Kind of a record -> its fields, beside kind and time."""
TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("kind", "uri", "artifacts", "experiment", "path", "status"), (str,)),
    **dict.fromkeys(("experiment_id", "folder"), (str, type(None))),
    **dict.fromkeys(("time", "tokens", "number"), (int,)),
    **dict.fromkeys(("info", "values"), (dict,)),
}
"""Field -> types of its content."""
STATUSES = ("FINISHED", "FAILED", "KILLED", "RUNNING", "SCHEDULED")
"""Statuses that the store knows."""
CHECKSUM = re.compile(rb',"crc":"([0-9a-f]{8})"}\n')
log = logging.getLogger(__name__)


class Journal:
    """Appends records. It skips metrics up to the tokens that it already holds, because an earlier attempt measured them.

    Args:
        folder: folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / JOURNAL
        self.recorded: dict[str, int] = {}
        self.rewinds = self.time = self.size = 0
        for record, end in records(self.path):
            self._take(record)
            self.size = end
        if rest := torn(self.path):
            log.warning("%s: its last line is incomplete and was cut off: %r", self.path, rest[:60])
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._file, self.size)
        self._held = b""
        self._said = False

    def append(self, kind: str, **fields: Any) -> None:
        """Append a record with the time, which never runs backwards; if the disk is full, it waits in memory.

        Raises:
            UserError: if the disk stays full for too long.
        """
        self.time = max(self.time, int(time.time() * 1000))
        record: Record = {"kind": kind, "time": self.time, **fields}
        self._take(record)
        self._held += line_of(record)
        if self._write() is not None and len(self._held) > HELD_BYTES:
            self.sync()

    def metrics(self, values: Mapping[str, float], tokens: int) -> None:
        """Append the metrics that are not recorded yet."""
        new = {key: plain(value) for key, value in values.items() if tokens > self.recorded.get(key, -1)}
        if new:
            self.append("metrics", tokens=tokens, values=new)

    def rewind(self, number: int, tokens: int, values: Mapping[str, float]) -> None:
        """Append a rewind of the run, unless it is recorded already; its time is later than all before it."""
        if number > self.rewinds:
            self.time += 1
            metrics = {key: plain(value) for key, value in values.items()}
            self.append("rewind", number=number, tokens=tokens, values=metrics)

    def sync(self) -> None:
        """Write the lines held in memory, and flush them to the disk.

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
        """Write the lines held in memory; half a line is removed again."""
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


def line_of(record: Record) -> bytes:
    """A record as a line, with its checksum."""
    content = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    return content[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(content)


def records(path: Path, start: int = 0) -> Iterator[tuple[Record, int]]:
    """The complete records of a journal from a byte on, each with the byte after it; damaged lines are reported and skipped."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        end = start
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            record = _parse(line)
            if record is not None:
                yield record, end
            else:
                _say_damaged(path, line)


def damaged_lines(path: Path, start: int, end: int) -> int:
    """Number of damaged lines of a journal between two bytes."""
    with path.open("rb") as file:
        file.seek(start)
        return sum(_parse(line) is None for line in file.read(end - start).splitlines(keepends=True))


def last_of(path: Path, kind: str) -> Record | None:
    """The last record of a kind."""
    last = None
    for record, _ in records(path):
        last = record if record["kind"] == kind else last
    return last


def torn(path: Path) -> bytes:
    """The bytes after a journal's last complete line: half a record, or a whole one whose end was damaged."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LINE_BYTES))
        return file.read().rpartition(b"\n")[2]


def _parse(line: bytes) -> Record | None:
    """The record of a line; None if it is damaged."""
    checksum = CHECKSUM.fullmatch(line, max(0, line.rfind(b',"crc":')))
    content = line[: checksum.start()] + b"}" if checksum else line
    if checksum and zlib.crc32(content) != int(checksum[1], 16):
        return None
    try:
        record: Record = json.loads(content)
        return record if is_record(record) else None
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None


def is_record(record: Record) -> bool:
    """Whether it has the fields of its kind, each with valid content."""
    named = record.keys() == {"kind", "time", *FIELDS[record["kind"]]}
    typed = all(isinstance(value, TYPES[key]) for key, value in record.items())
    return named and typed and record.get("status", STATUSES[0]) in STATUSES


@cache
def _say_damaged(path: Path, line: bytes) -> None:
    """Report a damaged line once per command, however often the journal is read."""
    log.warning("%s: a line is damaged and was skipped: %r", path, line[:60])
