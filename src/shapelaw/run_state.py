"""The state of a run on disk, and the lock on its folder, which one process at a time can hold."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path

from shapelaw.errors import UserError
from shapelaw.files import as_record, read_sealed, write_sealed

LOG_FILE = "log.txt"
"""Log of a run's training, in its folder."""
LOCK_SECONDS = 900.0
"""How long a run's former process, on a lost node, may keep the run's lock."""


class Status(Enum):
    """State of a run on disk."""

    new = "new"
    running = "running"
    interrupted = "interrupted"
    failed = "failed"
    pruned = "pruned"
    """Stopped early by a search; training it again continues it."""
    finished = "finished"


@dataclass(frozen=True)
class State:
    """The state in a run's folder (state.json), refreshed about once a second while it runs."""

    status: Status = Status.new
    step: int = 0
    steps: int = 0
    tokens: int = 0
    train_loss: float | None = None
    val_loss: float | None = None
    tokens_per_second: float | None = None
    attempts: int = 0
    reason: str = ""
    host: str = ""
    pid: int = 0
    mlflow_run_id: str | None = None
    updated: float = 0.0
    spikes: int = 0
    rollbacks: int = 0
    diverged_step: int | None = None


def read_state(folder: Path) -> State:
    """The state in a run's folder; a run without one is new, and a running one without a process is interrupted."""
    path = folder / "state.json"
    if not path.exists():
        return State()
    state = as_record(State, read_sealed(path), path)
    if state.status is Status.running and not is_locked(folder):
        return replace(state, status=Status.interrupted, reason="its process ended without a message")
    return state


def write_state(folder: Path, state: State) -> None:
    """Write state.json, sealed, first aside, then rename it."""
    values = asdict(replace(state, updated=time.time()))
    lasting = state.status is not Status.running  # a running state is rewritten every second
    write_sealed(folder / "state.json", {**values, "status": state.status.value}, durable=lasting)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[int]:
    """Lock a run's folder, so that only one process trains the run. Yields the lock's file descriptor; a process that inherits
    it also holds the lock.

    Raises:
        UserError: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder.name} is being trained by another process; wait for it or stop it") from None
        yield file.fileno()


def is_locked(folder: Path) -> bool:
    """Whether a process holds the run's folder."""
    path = folder / "lock"
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDONLY)  # it may be somebody else's
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def await_lock(folder: Path) -> None:
    """Wait until a run's former process is gone; if its node was lost, the file system may notice that late."""
    deadline = time.monotonic() + LOCK_SECONDS
    while is_locked(folder) and time.monotonic() < deadline:
        time.sleep(1.0)
