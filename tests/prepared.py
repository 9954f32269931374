"""Scripts of the project in processes of their own that are forked from one that has imported their libraries.

Starting train.py takes 6 to 8 CPU-seconds, nearly all of them Lightning's and MLflow's imports. A process forked from one that
has them is as real: its own memory, signals, files, arguments and exit code. Nothing of shapelaw is imported before the fork.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

LIBRARIES = (
    "hydra",
    "lightning.pytorch",
    "matplotlib.figure",
    "mlflow",
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
        mask = os.umask(0)
        os.umask(mask)
        asked = {
            "argv": [str(script), *arguments],
            "environment": dict(environment),
            "folder": os.getcwd(),
            "umask": mask,
        }
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            ours, theirs = socket.socketpair()
            with ours:
                with theirs, tempfile.TemporaryFile() as letter:
                    letter.write(json.dumps(asked).encode())
                    letter.flush()
                    socket.send_fds(self._here, [b"1"], [file.fileno() for file in (theirs, letter, out, err)])
                pid = int(ours.recv(32))
                ours.settimeout(timeout_s)
                try:
                    code = int(ours.recv(32))
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired([str(script), *arguments], timeout_s) from None
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(asked["argv"], code, out.read(), err.read())

    def end(self) -> None:
        """No more are asked for."""
        self._here.close()
        self._process.wait(60)


def read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    """What libraries read when they are imported."""
    names = {name for name in environment if name.startswith(READ_AT_IMPORT) and not name.startswith(READ_LATER)}
    return {name: environment[name] for name in names}


def serve(connection: socket.socket) -> None:
    """Fork a process for each that is asked for; returns in those, ready to run."""
    gc.set_threshold(20_000)  # as shapelaw.collector, which is not imported here
    for name in LIBRARIES:
        __import__(name)
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
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = asked["argv"]
    sys.path[0] = str(Path(sys.argv[0]).parent)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_path(sys.argv[0], run_name="__main__")
