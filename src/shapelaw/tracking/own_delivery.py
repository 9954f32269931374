"""A user's own tracker behind a run's journal: a thread passes it the run's records.

So no step waits for it, and an exception in it ends no run: the records that it did not take are passed to it again.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from shapelaw.errors import UserError
from shapelaw.files import as_record, read_sealed, write_sealed
from shapelaw.plugins import part_of
from shapelaw.tracking.delivery import MISTAKEN, size_of
from shapelaw.tracking.journal import JOURNAL, Record, last_of, records
from shapelaw.tracking.protocol import RunInfo
from shapelaw.tracking.sender import deliver_rest
from shapelaw.tracking.store import StoreAway

SENT = "tracking.own.json"
NEEDED = ("log", "finish")
"""Methods that a tracker must have; it may also have `tag`, `rewind` and `artifact`."""
SHORT = 200
"""Characters of an error that a message shows."""


class OwnTracker(Protocol):
    """The tracker of `tracker=path/to/file.py:NAME`: NAME(info, folder, **options) returns an object for one attempt at a run.

    `info` (a `RunInfo`) holds the run's identity, kind, name, parameters and tags; `folder` is the run's folder. A continued
    run creates another object with the same identity. All calls come from one thread, in the order of recording.
    """

    def log(self, metrics: Mapping[str, float], tokens: int) -> None:
        """Take metrics after a number of tokens; after an error, the same call is repeated."""
        ...

    def finish(self, status: str) -> None:
        """Take the outcome: FINISHED, FAILED or KILLED."""
        ...


@dataclass
class _Sent:
    """The number of bytes of a journal that the tracker has taken."""

    bytes: int = 0


def check_tracker(reference: str, options: Mapping[str, Any]) -> Callable[..., OwnTracker]:
    """The user's tracker, after a check of its interface.

    Raises:
        UserError: if it cannot be called with (info, folder, **options), or is a class without `log` and `finish`.
    """
    part = part_of("tracker", reference)
    fault = _fault(part, options) or (_lacks(part) if isinstance(part, type) else "")
    if fault:
        raise UserError(
            f"tracker={reference}: {fault}; it is called as NAME(info, folder, **options) (docs/your_model.md)"
        )
    return part  # type: ignore[no-any-return]


def _fault(part: Any, options: Mapping[str, Any]) -> str:
    if not callable(part):
        return f"is a {type(part).__name__}, which cannot be called"
    try:
        inspect.signature(part).bind("info", "folder", **options)
    except TypeError as error:
        return f"does not take ({', '.join(['info', 'folder', *options])}): {error}"
    return ""


def _lacks(tracker: Any) -> str:
    missing = [name for name in NEEDED if not callable(getattr(tracker, name, None))]
    return f"has no method {' and none '.join(missing)}" if missing else ""


class OwnDelivery:
    """Delivers one journal to the user's own tracker.

    Args:
        folder: folder of the run.
        reference: `path/to/file.py:NAME` or `package.module:NAME` of the tracker.
        options: options of the call to it.
    """

    lock = "tracking.own.lock"
    """File in the run's folder that is locked during delivery to the tracker."""

    def __init__(self, folder: Path, reference: str, options: Mapping[str, Any]) -> None:
        self.folder, self.path, self.store = folder, folder / JOURNAL, reference
        self.options, self._tracker = options, cast(Any, None)
        self.sent = _read_sent(folder)
        if self.sent.bytes > size_of(self.path):  # a power cut removed lines of the journal
            self.sent = _Sent()

    @property
    def left(self) -> bool:
        """Whether the journal holds records that the tracker has not taken."""
        return next(records(self.path, self.sent.bytes), None) is not None

    def line(self, reason: str) -> str:
        """Message to the user about a journal that the tracker has taken only in part."""
        return (
            f"tracking: tracker={self.store} has not taken all of {self.folder} ({reason or 'it is slow'}); the same "
            "command again delivers the rest"
        )

    def deliver(self) -> None:
        """Pass on the whole present content of the journal.

        Raises:
            StoreAway: if the tracker raises.
        """
        start = self.sent.bytes
        try:
            for record, end in records(self.path, start):
                self._take(record)
                self.sent.bytes = end
        finally:
            if self.sent.bytes != start:
                write_sealed(self.folder / SENT, vars(self.sent), durable=False)

    def _take(self, record: Record) -> None:
        if record["kind"] == "start":
            self._tracker = None
            self._call(lambda: self._opened(record))
            return
        calls: dict[str, Callable[[], tuple[Any, ...]]] = {
            "metrics": lambda: ("log", _numbers(record["values"]), record["tokens"]),
            "rewind": lambda: ("rewind", record["number"], record["tokens"], _numbers(record["values"])),
            "tags": lambda: ("tag", record["values"]),
            "artifact": lambda: ("artifact", self._inside(record["path"])),
            "status": lambda: ("finish", record["status"]),
        }
        with contextlib.suppress(*MISTAKEN):  # from a record that was tampered with
            name, *arguments = calls[record["kind"]]()
            self._call(lambda: getattr(self._opened(), name, _nothing)(*arguments))

    def _opened(self, record: Record | None = None) -> Any:
        """The tracker of this attempt, created on first use."""
        if self._tracker is None:
            start = record or last_of(self.path, "start")
            assert start is not None
            made = check_tracker(self.store, self.options)(RunInfo(**start["info"]), self.folder, **self.options)
            if fault := _lacks(made):
                raise TypeError(f"the object that {self.store} returns {fault}")
            self._tracker = made
        return self._tracker

    def _inside(self, path: str) -> Path:
        """A file in the run's folder; a journal may come from anybody, so it may name no other file."""
        file = (self.folder / path).resolve()
        if not file.is_relative_to(self.folder.resolve()):
            raise ValueError(path)
        return file

    def _call(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0][:SHORT]
            raise StoreAway(f"{type(error).__name__}: {reason}") from error


def deliver_to_own(folder: Path, reference: str, options: Mapping[str, Any]) -> str | None:
    """Pass on the remaining journal of an ended run; returns the reason for a failure, in one line, or None."""
    return deliver_rest(OwnDelivery(folder, reference, options))


def _nothing(*arguments: Any) -> None:
    """Stand-in for a method that the tracker lacks."""


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _read_sent(folder: Path) -> _Sent:
    """The recorded progress; empty if it cannot be read, so that everything is passed on again."""
    path = folder / SENT
    with contextlib.suppress(UserError):
        return as_record(_Sent, read_sealed(path), path) if path.exists() else _Sent()
    return _Sent()
