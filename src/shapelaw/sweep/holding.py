"""One launcher per sweep: a lock keeps a second one out, and SIGTERM stops it like Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from shapelaw.errors import UserError

FILE = "sweeps.lock"
DIGITS = 12
"""Digits of a sweep's identity that choose its byte of the file."""


@contextlib.contextmanager
def held(outputs: Path, identity: str) -> Iterator[None]:
    """Lock a sweep: one byte of one file, which the system releases however the process ends.

    Raises:
        UserError: if another launcher holds it.
    """
    outputs.mkdir(parents=True, exist_ok=True)
    with (outputs / FILE).open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(identity[:DIGITS], 16))
        except (BlockingIOError, PermissionError):
            raise UserError(
                f"sweep {identity} is running elsewhere: another launcher holds its part of {outputs / FILE}; wait for it or "
                "stop it, then run the same command again to see or finish the rest"
            ) from None
        yield


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Make SIGTERM act like Ctrl-C: jobs checkpoint and stop, and their shared resources are closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second signal would abandon checkpointing jobs
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
