"""The thread that has a journal delivered while its run goes on, to whatever store that is."""

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
"""Between two looks at the journal."""
RETRY_SECONDS = (0.5, 30.0)
"""First and longest wait for a store that does not answer."""
log = logging.getLogger(__name__)


class Carries(Protocol):
    """What carries a journal to a store, and can be asked how far it is."""

    folder: Path
    lock: str

    @property
    def left(self) -> bool:
        """Whether the journal holds records that the store does not have."""
        ...

    @property
    def store(self) -> str:
        """What the store is called in messages."""
        ...

    def deliver(self) -> None:
        """Send all that is in the journal now; raises StoreAway if the store does not answer."""
        ...

    def line(self, reason: str) -> str:
        """What to tell the user of a journal that the store does not have in whole."""
        ...


def deliver_rest(delivery: Carries) -> str | None:
    """Deliver what an ended run left in its journal; why it could not be done, in a line, or None."""
    try:
        if delivery.left:
            delivery.deliver()
    except StoreAway as error:
        return delivery.line(str(error))
    return None


class Sender(threading.Thread):
    """Delivers a journal while its run goes on; it never raises, and nobody waits for it but `finish`.

    Args:
        delivery: of the journal.
    """

    def __init__(self, delivery: Carries) -> None:
        super().__init__(name="tracking", daemon=True)
        self.delivery = delivery
        self._wake, self._ending, self._over = threading.Event(), False, False
        self._reason = ""
        self.start()

    def run(self) -> None:
        """Until the run has ended and all is delivered."""
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
        """Deliver what is left, for so long; what is left then stays in the journal, and that is said."""
        self._ending = True
        self._wake.set()
        self.join(seconds)
        self._over = True
        if self.is_alive():
            log.warning("%s", self.delivery.line(self._reason))

    def _try(self) -> bool:
        """Deliver once; whether the store was away."""
        try:
            self.delivery.deliver()
        except Exception as error:  # whatever it is, training goes on and the journal keeps everything
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
    """Be the one who delivers a journal; wait for another until `hurried()`, and then go on beside it. Whether it is so."""
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
