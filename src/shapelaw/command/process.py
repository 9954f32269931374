"""The process of a program: it has its own session, stops as a whole, and ends when its parent ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from shapelaw.command.metrics import ProgramFailed
from shapelaw.template import KEY
from shapelaw.training.processes import signals_to

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
SETTLE_SECONDS = 2.0
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Program:
    """A started program.

    Args:
        words: words of its command line; no shell reads them.
        environment: its environment.
        log: file to which its output is appended.
        held: descriptor of the run's lock, which it holds as long as it lives.
        stop_seconds: how long it may take to end on request.

    Raises:
        ProgramFailed: if it cannot be started.
    """

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], log: Path, held: int, stop_seconds: float
    ) -> None:
        self.stop_seconds, self.asked, self.deadline = stop_seconds, 0, float("inf")
        try:
            with log.open("ab") as output:
                self.process = subprocess.Popen(
                    words,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # so that all its processes can be stopped
                    pass_fds=(held,),
                    preexec_fn=_ends_with(os.getpid()),
                )
        except (OSError, ValueError) as error:  # it is missing, not a program, or a word holds an invalid character
            raise ProgramFailed(f"{KEY}: {words[0]} cannot be started ({error}); correct the command") from error
        self._end = _end_of(self.process.pid)

    def ended(self, seconds: float) -> bool:
        """Whether it has ended; waits this long for it. If it ignores SIGTERM, it is killed after `stop_seconds`."""
        if time.monotonic() > self.deadline:
            self._signal(signal.SIGKILL)
        if self._end is not None:  # wakes at once, whereas `wait` polls
            select.select([self._end], [], [], seconds)
            seconds = 0.0
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def ask(self, number: int) -> None:
        """Ask all of its processes to end, because a signal was received."""
        if not self.asked:
            self.asked, self.deadline = number, time.monotonic() + self.stop_seconds
        self._signal(signal.SIGTERM)

    def settle(self) -> None:
        """Wait a little for the signal to this process, if a signal ended the program: a cluster sends it to both."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while not self.asked and -self.process.returncode in SIGNALS and time.monotonic() < deadline:
            time.sleep(0.05)

    def stop(self) -> None:
        """Make sure that none of its processes remains."""
        if self.process.poll() is None:
            self.ask(signal.SIGTERM)
            while not self.ended(0.1):
                pass
        self._signal(signal.SIGKILL)
        if self._end is not None:
            os.close(self._end)
            self._end = None

    @property
    def outcome(self) -> str:
        """How it ended, in words; empty if it ended well."""
        code = self.process.returncode
        if code < 0:
            return f"the program was killed by {signal.Signals(-code).name}"
        return f"the program ended with code {code}" if code else ""

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS raises the latter for a group that ended
            os.killpg(self.process.pid, number)


def _end_of(pid: int) -> int | None:
    """A descriptor that can be read once a process has ended; None if the kernel has none (before Linux 5.3, and macOS)."""
    with contextlib.suppress(AttributeError, OSError):
        return os.pidfd_open(pid)
    return None


def _ends_with(parent: int) -> Callable[[], None]:
    """Setup of a new process before it becomes the program: it asks the kernel to stop it when this process dies (Linux).

    It also ignores USR2, which SLURM sends to every process of a job: the program should end by the SIGTERM that follows.
    """

    def ask() -> None:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        if hasattr(LIBC, "prctl"):
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

    return ask


def passed_on(program: Program) -> AbstractContextManager[None]:
    """Pass on signals that ask this process to stop to the program's processes; ignored signals stay ignored."""
    return signals_to(program.ask, [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN])
