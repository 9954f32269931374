"""The thread that delivers a journal to any store while its run goes on."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from shapelaw.errors import UserError
from shapelaw.tracking.journal import JOURNAL
from shapelaw.tracking.store import StoreAway

POLL_SECONDS = 10.0
"""Time between two checks of the journal."""
RETRY_SECONDS = (0.5, 30.0)
"""First and longest wait for a store that does not answer."""
log = logging.getLogger(__name__)


class Carries(Protocol):
    """A delivery of a journal to a store, which can report its progress."""

    folder: Path
    lock: str

    @property
    def left(self) -> bool:
        """Whether the journal holds records that the store lacks."""
        ...

    @property
    def store(self) -> str:
        """Name of the store in messages."""
        ...

    def deliver(self) -> None:
        """Send the whole present content of the journal; raises StoreAway if the store does not answer."""
        ...

    def line(self, reason: str) -> str:
        """Message to the user about a journal that the store has only in part."""
        ...


def deliver_rest(delivery: Carries) -> str | None:
    """Deliver the remaining journal of an ended run; returns the reason for a failure, in one line, or None."""
    try:
        if delivery.left:
            delivery.deliver()
    except StoreAway as error:
        return delivery.line(str(error))
    return None


class Sender(threading.Thread):
    """Delivers a journal while its run goes on; it never raises, and only `finish` waits for it.

    Args:
        delivery: the delivery of the journal.
    """

    def __init__(self, delivery: Carries) -> None:
        super().__init__(name="tracking", daemon=True)
        self.delivery = delivery
        self._wake, self._ending, self._over = threading.Event(), False, False
        self._reason = ""
        self.start()

    def run(self) -> None:
        """Deliver until the run has ended and everything is delivered."""
        with delivering(self.delivery.folder, lambda: self._ending, self.delivery.lock):
            wait = RETRY_SECONDS[0]
            while True:
                away = self._try()
                if self._over or (self._ending and not away and not self.delivery.left):
                    return
                pause = wait * random.uniform(0.5, 1.0) if away else POLL_SECONDS
                wait = min(2 * wait, RETRY_SECONDS[1]) if away else RETRY_SECONDS[0]
                self._wake.wait(RETRY_SECONDS[0] if self._ending else pause)
                self._wake.clear()

    def finish(self, seconds: float) -> None:
        """Deliver the remaining records within this time; any left after it stay in the journal, with a message."""
        self._ending = True
        self._wake.set()
        self.join(seconds)
        self._over = True
        if self.is_alive():
            log.warning("%s", self.delivery.line(self._reason))

    def _try(self) -> bool:
        """Deliver once; returns whether the store was away."""
        try:
            self.delivery.deliver()
        except Exception as error:  # after any error, training goes on and the journal keeps everything
            self._say(str(error) if isinstance(error, (StoreAway, UserError)) else f"{type(error).__name__}: {error}")
            return True
        if self._reason:
            log.warning("tracking: %s answers again and has all records of %s", self.delivery.store, self._label)
        self._reason = ""
        return False

    def _say(self, reason: str) -> None:
        if not self._reason and not self._ending:
            log.warning(
                "tracking: %s does not answer (%s); %s goes on and keeps its records in its folder until the store answers",
                self.delivery.store,
                reason,
                self._label,
            )
        self._reason = reason

    @property
    def _label(self) -> str:
        return self.delivery.folder.name


@contextlib.contextmanager
def delivering(folder: Path, hurried: Callable[[], bool], lock: str = JOURNAL) -> Iterator[bool]:
    """Lock a journal's delivery; wait for another holder until `hurried()`, then go on without. Yields whether it is locked."""
    descriptor = os.open(folder / lock, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        alone = _locked(descriptor)
        while not alone and not hurried():
            time.sleep(0.1)
            alone = _locked(descriptor)
        yield alone
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
