"""The process of a job: forked from a server that has imported the heavy modules once, with its own log.

So it starts in milliseconds, and a crash affects nothing else. When its parent process dies, for any reason, the job gets a
signal to checkpoint and stop.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig

from shapelaw.errors import UserError
from shapelaw.run_state import LOG_FILE
from shapelaw.sweep.task import Task
from shapelaw.terminal import prepare_streams, write_error

PROCESSES: ForkServerContext = multiprocessing.get_context("forkserver")


class JobFailed(RuntimeError):
    """A job of a sweep ended with an error; the message is its reason."""


@dataclass(frozen=True)
class Order:
    """The input of a job's process; it can be sent to another machine.

    Args:
        label: name of the process.
        preload: modules to import.
        environment: its whole environment.
        folder: folder of the job.
        context: Hydra's context.
        task: its work.
        config: the job's configuration.
    """

    label: str
    preload: tuple[str, ...]
    environment: dict[str, str]
    folder: Path
    context: HydraContext
    task: Task
    config: DictConfig


class JobProcess:
    """The process of a job, which starts at once."""

    def __init__(self, order: Order) -> None:
        own = (type(order.task).__module__, "shapelaw.verbs.main", __name__)
        PROCESSES.set_forkserver_preload([*order.preload, *own])  # the first call's are imported
        self.connection, theirs = PROCESSES.Pipe(duplex=False)
        self.process = PROCESSES.Process(target=_work, args=(theirs, order), name=order.label)
        self.process.start()
        theirs.close()

    @property
    def ended(self) -> bool:
        """Whether it has sent its result, or can no longer send one."""
        return self.connection.poll() or not self.process.is_alive()

    def result(self) -> JobReturn:
        """The result of the job; waits for it."""
        try:
            ok, value = self.connection.recv()
        except EOFError:
            self.process.join()
            return failure(f"its process ended with code {self.process.exitcode} and no message")
        self.process.join()
        return success(value) if ok else failure(value)

    def ask(self) -> None:
        """Tell it to checkpoint and stop."""
        self.process.terminate()

    def end(self, seconds: float) -> None:
        """Make sure that it ends within this time."""
        self.process.join(max(seconds, 0.1))
        if self.process.is_alive():
            self.process.kill()


def success(value: object = None) -> JobReturn:
    """The result of a job that ended well."""
    result = JobReturn(status=JobStatus.COMPLETED)
    result.return_value = value
    return result


def failure(reason: str) -> JobReturn:
    """The result of a job that failed."""
    result = JobReturn(status=JobStatus.FAILED)
    result.return_value = JobFailed(reason)
    return result


def _work(connection: Connection, order: Order) -> None:
    """Body of a job's process: it takes the launcher's environment, writes to its own log and sends the launcher its result."""
    os.environ.clear()
    os.environ.update(order.environment)  # the server that it was forked from may be older
    _stop_with_parent()
    try:
        log_to(order.folder)
    except OSError as error:
        connection.send((False, f"its log cannot be written: {error}"))
        return
    prepare_streams()
    setup_globals()
    _run(connection, order)


def _run(connection: Connection, order: Order) -> None:
    """Run the job; an error goes first to the launcher, then to the log, whose disk may be full."""
    try:
        run: Callable[..., JobReturn] = run_job
        result = run(order.task, order.config, "hydra.sweep.dir", None, order.context, configure_logging=False)
        value = result.return_value
    except KeyboardInterrupt:
        connection.send((False, "interrupted"))
    except UserError as error:
        connection.send((False, str(error)))
        write_error(f"{error}\n")  # into the job's log
    except Exception as error:
        import traceback

        connection.send((False, f"{type(error).__name__}: {error}".splitlines()[0]))
        traceback.print_exc()
    else:
        connection.send((True, value))


def _stop_with_parent() -> None:
    """When the launcher's process ends, stop as on request: checkpoint and end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher passes on a Ctrl-C as a request to stop

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def log_to(folder: Path) -> None:
    """Send this process's output, and its children's, to the log of a job."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
