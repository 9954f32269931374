"""Scripts of the project in processes of their own that are forked from one that has imported their libraries.

Starting train.py takes 6 to 8 CPU-seconds, nearly all of them Lightning's and MLflow's imports. A process forked from one that
has them is as real: its own memory, signals, files, arguments and exit code. Nothing of shapelaw is imported before the fork.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from mlflow_database import make_one

LIBRARIES = (
    "hydra",
    "lightning.pytorch",
    "matplotlib.figure",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "numba",
    "pandas",
    "pyarrow",
    "rich.console",
    "scipy.optimize",
)
READ_AT_IMPORT = ("ATEN_", "KMP_", "MKL_", "MLFLOW_", "MPL", "NUMBA_", "OMP_", "OPENBLAS_", "PYTHON", "TORCH")
"""Variables that libraries read when they are imported: a process that is given others starts from nothing."""
READ_LATER = "MLFLOW_TRACKING_"
"""Addresses and passwords among them, which are read with each request."""


class Prepared:
    """The process that others are forked from; it ends with this one.

    Args:
        environment: in which it imports the libraries.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._here, there = socket.socketpair()
        self._environment = read_at_import(environment)
        command = [sys.executable, __file__, str(there.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[there.fileno()], env=dict(environment))
        there.close()

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether a process with this environment would have imported the same."""
        return read_at_import(environment) == self._environment

    def run(
        self, script: Path, arguments: Sequence[str], environment: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a script to its end, as `python SCRIPT ARGUMENTS` here would.

        Raises:
            subprocess.TimeoutExpired: if it has not ended by then; it is killed.
        """
        started = self.start(script, arguments, environment)
        try:
            out, err = started.communicate(timeout_s)
            return subprocess.CompletedProcess(started.args, started.wait(), out, err)
        finally:
            started.end()

    def start(self, script: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> Started:
        """Start a script, as `python SCRIPT ARGUMENTS &` here would."""
        mask = os.umask(0)
        os.umask(mask)
        asked = {
            "argv": [str(script), *arguments],
            "environment": dict(environment),
            "folder": os.getcwd(),
            "umask": mask,
            "ignores_ctrl_c": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        }
        out, err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115 (Started has them)
        ours, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as letter:
            letter.write(json.dumps(asked).encode())
            letter.flush()
            socket.send_fds(self._here, [b"1"], [file.fileno() for file in (theirs, letter, out, err)])
        return Started(asked["argv"], ours, out, err)

    def end(self) -> None:
        """No more are asked for."""
        self._here.close()
        self._process.wait(60)


class Started:
    """A script under way, with what subprocess.Popen has of one."""

    def __init__(self, args: Sequence[str], report: socket.socket, out: IO[str], err: IO[str]) -> None:
        self.args, self._report, self._out, self._err = args, report, out, err
        self.pid = int(report.recv(32))
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or minus the signal that ended it."""
        if self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = int(self._report.recv(32))
        return self.returncode

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it said, once it has ended."""
        self.wait(timeout)
        said = []
        for file in (self._out, self._err):
            file.seek(0)
            said.append(file.read())
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without a word."""
        self.send_signal(signal.SIGKILL)

    def end(self) -> None:
        """See that it is gone."""
        self.kill()
        self.wait(60)
        for each in (self._report, self._out, self._err):
            each.close()


def read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    """What libraries read when they are imported."""
    return {name: value for name, value in environment.items() if is_read_at_import(name)}


def is_read_at_import(name: str) -> bool:
    """Whether a variable is one of those."""
    return name.startswith(READ_AT_IMPORT) and not name.startswith(READ_LATER)


def serve(connection: socket.socket) -> None:
    """Fork a process for each that is asked for; returns in those, ready to run."""
    gc.set_threshold(20_000)  # as shapelaw.collector, which is not imported here
    for name in LIBRARIES:
        __import__(name)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    make_one(sys.modules["mlflow.store.db.utils"])
    sys.modules["numba"].njit(lambda: None)()  # which sets its compiler up
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that report on the scripts are reaped by the kernel
    while True:
        _, files, _, _ = socket.recv_fds(connection, 1, 4)
        if not files:
            raise SystemExit(0)
        if os.fork() == 0:
            connection.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return report(*files)
        for file in files:
            os.close(file)


def report(connection: int, letter: int, out: int, err: int) -> None:
    """Fork the script's process and tell of its end; returns in the script's process."""
    pid = os.fork()
    if pid:
        os.write(connection, str(pid).encode())
        _, status = os.waitpid(pid, 0)
        os.write(connection, str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    os.close(connection)
    os.dup2(out, 1)
    os.dup2(err, 2)
    with open(letter, "rb") as file:
        file.seek(0)
        asked = json.loads(file.read())
    os.close(out)
    os.close(err)
    os.chdir(asked["folder"])
    os.umask(asked["umask"])
    signal.signal(signal.SIGINT, signal.SIG_IGN if asked["ignores_ctrl_c"] else signal.default_int_handler)
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = asked["argv"]
    sys.path[0] = str(Path(sys.argv[0]).parent)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_path(sys.argv[0], run_name="__main__")
