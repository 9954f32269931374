"""What a run says of itself in its folder while it trains."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from shapelaw.run_state import State, Status, read_state, write_state

REPORT_SECONDS = 1.0
Show = Callable[[State], None]


class Report:
    """The state of a run, written to its folder about once a second; of several processes, the first one writes.

    Args:
        folder: of the run.
        writes: whether this process writes.
        show: called with every state that is written while the run trains.
    """

    def __init__(self, folder: Path, writes: bool, show: Show) -> None:
        self.folder, self.writes, self.show = folder, writes, show
        self.state = read_state(folder)
        self.written = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the last state that was written is older than a second."""
        return time.perf_counter() - self.written > REPORT_SECONDS

    def set(self, **values: Any) -> None:
        """Change values of the state; `write` brings them to the disk."""
        self.state = replace(self.state, **values)

    def begin(self, steps: int, run_id: str | None) -> None:
        """This process has taken up the run."""
        place = {"host": socket.gethostname(), "pid": os.getpid()}
        attempts = self.state.attempts + 1
        self.set(status=Status.running, steps=steps, attempts=attempts, reason="", mlflow_run_id=run_id, **place)

    def write(self) -> None:
        """Write the state of a run that goes on, and show it."""
        self.written = time.perf_counter()
        if self.writes:
            write_state(self.folder, self.state)
            self.show(self.state)

    def end(self, status: Status, reason: str = "", diverged_step: int | None = None) -> None:
        """Write how the run ended."""
        self.set(status=status, reason=reason, diverged_step=diverged_step)
        if self.writes:
            write_state(self.folder, self.state)
