"""Jobs on this machine: several at once, each in a process of its own, with one progress view.

Processes are forked from a server that has imported the heavy modules once, so a job starts in milliseconds and one that
crashes takes nothing with it. When the launcher dies, however it dies, its jobs are told to checkpoint and stop.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from shapelaw.errors import UserError, WorkFailed
from shapelaw.files import check_writable
from shapelaw.run_state import LOG_FILE
from shapelaw.sweep.compose import Configs, SweepConfigs
from shapelaw.sweep.holding import held, stopped_by_sigterm
from shapelaw.sweep.slots import Slots, slots_of
from shapelaw.sweep.task import ChecksMachine, Job, Stops, Task, sweep_identity
from shapelaw.sweep.view import View
from shapelaw.terminal import prepare_streams, write_error
from shapelaw.wording import counted

POLL_SECONDS = 0.5
STOP_SECONDS = 20.0


class JobFailed(RuntimeError):
    """A job of a sweep ended with an error; the message is its reason."""


class SweepFailed(WorkFailed):
    """Some jobs of a sweep failed; the others are finished."""


@dataclass(frozen=True)
class _Running:
    index: int
    process: ForkServerProcess
    connection: Connection
    gpus: dict[str, str]
    """Environment that gives it its own."""


def launch(
    context: HydraContext, task: Task, runs: SweepConfigs, workers: int, stop_on_failure: bool
) -> list[JobReturn]:
    """Check every run, then carry out those that are not done; returns one result per run, in their order.

    Raises:
        UserError: before the first job, for the first configuration that is wrong.
        OSError: before the first job, for the first folder that cannot be written to.
        SweepFailed: after the last job, if some failed.
    """
    if isinstance(task, ChecksMachine):
        task.check_machine(runs)
    slots = slots_of(task, runs, workers)
    jobs = task.plan(runs)
    for job in jobs:
        if not job.done:
            check_writable(job.folder)
    if all(job.done for job in jobs):
        return _carried_out(context, task, runs, jobs, slots, stop_on_failure)
    with held(Path(runs[0].outputs_dir), sweep_identity(jobs)):
        try:
            with stopped_by_sigterm():
                return _carried_out(context, task, runs, jobs, slots, stop_on_failure)
        except KeyboardInterrupt:
            if isinstance(task, Stops) and len(jobs) > 1:
                task.stopped(runs[0], sweep_identity(jobs))
            raise


def _carried_out(
    context: HydraContext, task: Task, runs: SweepConfigs, jobs: list[Job], slots: Slots, stop_on_failure: bool
) -> list[JobReturn]:
    """Carry out the jobs of a sweep that this process holds."""
    shared = task.begin(runs, jobs)
    pool = Pool(
        context,
        task,
        lambda index: with_values(runs.job(index), {**shared, **jobs[index].settings}),
        jobs,
        slots,
        stop_on_failure,
    )
    with View(task.noun, jobs, task=task) as view:
        results = pool.run(view)
    failed = [job.identity for job, result in zip(jobs, results, strict=True) if result.status is JobStatus.FAILED]
    task.end(runs, jobs, failed)
    if failed:
        raise SweepFailed(
            f"{len(failed)} of {counted(len(jobs), task.noun)} failed; run the same command again to retry them"
        )
    return results


def with_values(config: DictConfig, values: Mapping[str, Any]) -> DictConfig:
    """The configuration, in which these values are set by their dotted keys."""
    for key, value in values.items():
        OmegaConf.update(config, key, value)
    return config


@dataclass(frozen=True)
class Adjusted(Configs):
    """Configurations in which some values are set.

    Args:
        configs: of the runs.
        values_of: the values of a configuration, by their dotted keys.
    """

    configs: Sequence[DictConfig]
    values_of: Callable[[DictConfig], Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.configs)

    def at(self, index: int) -> DictConfig:
        config = self.configs[index]
        return with_values(config, self.values_of(config))


def on_gpus(config: DictConfig, has_gpus: bool) -> dict[str, str]:
    """What makes a run that is given GPUs train on them: its plan must not depend on the machine where it is made."""
    return {"accelerator": "gpu"} if has_gpus and config.get("accelerator") == "auto" else {}


class Pool:
    """Runs jobs, dearest first, each after the one it continues."""

    def __init__(
        self,
        context: HydraContext,
        task: Task,
        config_of: Callable[[int], DictConfig],
        jobs: Sequence[Job],
        slots: Slots,
        stop_on_failure: bool,
    ) -> None:
        """`config_of` composes the configuration of a job, given its place among the jobs, when the job starts."""
        self.context, self.task, self.config_of, self.jobs = context, task, config_of, list(jobs)
        self.slots, self.stop_on_failure = slots, stop_on_failure
        self.first = {job.identity: index for index, job in reversed(list(enumerate(jobs)))}
        self.results: dict[int, JobReturn] = {}
        self.running: list[_Running] = []
        self.processes: ForkServerContext = multiprocessing.get_context("forkserver")

    def run(self, view: View) -> list[JobReturn]:
        order = sorted(self.first.values(), key=lambda index: -self.jobs[index].cost)
        waiting = [index for index in order if not self.jobs[index].done]
        try:
            while waiting or self.running:
                for index in self._ready(waiting):
                    waiting.remove(index)
                    self._start(index)
                    view.started(self.jobs[index])
                for index in [*self._orphans(waiting), *self._finished()]:
                    view.ended(self.jobs[index], self._reason(index))
                    if self.stop_on_failure and self._reason(index):
                        waiting.clear()
                view.refresh()
        finally:
            self.stop()
        return [self._result(index) for index in range(len(self.jobs))]

    def _ready(self, waiting: list[int]) -> Iterator[int]:
        """Jobs to start now, one by one: those whose predecessor, if it is in this sweep, has ended well."""
        for index in list(waiting):
            if len(self.running) >= self.slots.workers:
                return
            after = self._predecessor(index)
            if after is None or (after in self.results and not self._reason(after)):
                yield index

    def _orphans(self, waiting: list[int]) -> list[int]:
        """Jobs that cannot run because the one they continue failed; they fail with it."""
        failed = {index for index, result in self.results.items() if result.status is JobStatus.FAILED}
        orphans = [index for index in waiting if self._predecessor(index) in failed]
        for index in orphans:
            waiting.remove(index)
            self.results[index] = _failure(f"the run it continues ({self.jobs[index].after}) failed")
        return orphans

    def _predecessor(self, index: int) -> int | None:
        """The job of this sweep that a job continues, if it is still to be run."""
        after = self.first.get(self.jobs[index].after or "")
        return None if after is None or self.jobs[after].done else after

    def _start(self, index: int) -> None:
        modules = {module: None for job in self.jobs for module in job.preload}
        own = (type(self.task).__module__, "shapelaw.verbs.main", __name__)
        self.processes.set_forkserver_preload([*self.task.preload, *modules, *own])  # the first call's are imported
        ours, theirs = self.processes.Pipe(duplex=False)
        gpus = self.slots.take()
        arguments = (
            theirs,
            {**os.environ, **gpus},
            self.jobs[index].folder,
            self.context,
            self.task,
            self.config_of(index),
        )
        process = self.processes.Process(target=_work, args=arguments, name=self.jobs[index].label)
        process.start()
        theirs.close()
        self.running.append(_Running(index, process, ours, gpus))

    def _finished(self) -> list[int]:
        """Jobs that ended; waits a little for the first."""
        wait([running.connection for running in self.running], timeout=POLL_SECONDS)
        ended = [running for running in self.running if running.connection.poll() or not running.process.is_alive()]
        for running in ended:
            self.results[running.index] = _receive(running)
            self.running.remove(running)
            self.slots.give_back(running.gpus)
        return [running.index for running in ended]

    def _reason(self, index: int) -> str:
        result = self.results[index]
        return str(result._return_value) if result.status is JobStatus.FAILED else ""

    def _result(self, index: int) -> JobReturn:
        """A job's result; those done before, and doubles, share what is on disk."""
        first = self.first[self.jobs[index].identity]
        if first in self.results:
            return self.results[first]
        if self.jobs[first].done:
            return JobReturn(status=JobStatus.COMPLETED)
        return _failure("the sweep was stopped before it")

    def stop(self) -> None:
        """Tell what still runs to checkpoint and stop."""
        for running in self.running:
            running.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for running in self.running:
            running.process.join(max(deadline - time.monotonic(), 0.1))
            if running.process.is_alive():
                running.process.kill()
        self.running.clear()


def _failure(reason: str) -> JobReturn:
    result = JobReturn(status=JobStatus.FAILED)
    result.return_value = JobFailed(reason)
    return result


def _receive(running: _Running) -> JobReturn:
    try:
        ok, value = running.connection.recv()
    except EOFError:
        running.process.join()
        return _failure(f"its process ended with code {running.process.exitcode} and no word")
    running.process.join()
    if not ok:
        return _failure(value)
    result = JobReturn(status=JobStatus.COMPLETED)
    result.return_value = value
    return result


def _work(
    connection: Connection,
    environment: dict[str, str],
    folder: Path,
    context: HydraContext,
    task: Task,
    config: DictConfig,
) -> None:
    """Body of a job's process: the launcher's environment, its output to its own log, its result to the launcher."""
    os.environ.clear()
    os.environ.update(environment)  # the server it was forked from may be older
    _stop_with_parent()
    try:
        log_to(folder)
    except OSError as error:
        connection.send((False, f"its log cannot be written: {error}"))
        return
    prepare_streams()
    setup_globals()
    _run(connection, context, task, config)


def _run(connection: Connection, context: HydraContext, task: Task, config: DictConfig) -> None:
    """Run the job; first the launcher is told of an error, then the log, as its disk may be full."""
    try:
        run: Callable[..., JobReturn] = run_job
        result = run(task, config, "hydra.sweep.dir", None, context, configure_logging=False)
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
    """When the launcher's process goes away, stop as if asked to: checkpoint and end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher passes a Ctrl-C on as a request to stop

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
