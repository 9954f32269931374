"""The jobs of a sweep in order, wherever they run: the most expensive first, each after the one that it continues."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

from shapelaw.sweep.job_process import Order, failure, success
from shapelaw.sweep.task import Job, Task
from shapelaw.sweep.view import View

Started = TypeVar("Started")
"""A pool's handle of a started job."""


class Pool(Generic[Started]):
    """Runs jobs, the most expensive first, each after the one that it continues."""

    def __init__(
        self,
        context: HydraContext,
        task: Task,
        config_of: Callable[[int], DictConfig],
        jobs: Sequence[Job],
        room: int,
        stop_on_failure: bool,
    ) -> None:
        """`config_of` composes the configuration of a job from its index when the job starts; `room` is the number of jobs
        to start before one of them has ended."""
        self.context, self.task, self.config_of, self.jobs = context, task, config_of, list(jobs)
        self.room, self.stop_on_failure = room, stop_on_failure
        self.first = {job.identity: index for index, job in reversed(list(enumerate(jobs)))}
        self.results: dict[int, JobReturn] = {}
        self.running: dict[int, Started] = {}

    def run(self, view: View) -> list[JobReturn]:
        """Carry out the jobs and show their progress; returns one result per job, in order."""
        order = sorted(self.first.values(), key=lambda index: -self.jobs[index].cost)
        waiting = [index for index in order if not self.jobs[index].done]
        try:
            while waiting or self.running:
                for index in self._ready(waiting):
                    waiting.remove(index)
                    self._start(index)
                    self._handed_over(index, view)
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
            if len(self.running) >= self.room:
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
            self.results[index] = failure(f"the run it continues ({self.jobs[index].after}) failed")
        return orphans

    def _predecessor(self, index: int) -> int | None:
        """The job of this sweep that a job continues, if it is still to be run."""
        after = self.first.get(self.jobs[index].after or "")
        return None if after is None or self.jobs[after].done else after

    @abstractmethod
    def _start(self, index: int) -> None:
        """Start a job, which then runs or is queued."""

    def _handed_over(self, index: int, view: View) -> None:
        """Show that a job was started."""
        view.started(self.jobs[index])

    @abstractmethod
    def _finished(self) -> list[int]:
        """Jobs that ended and now have results; waits a little for the first."""

    @abstractmethod
    def stop(self) -> None:
        """Tell all running jobs to checkpoint and stop."""

    def _order(self, index: int, environment: Mapping[str, str]) -> Order:
        """The order for a job's process, whose environment is that of this process plus the given variables."""
        job, modules = self.jobs[index], {module: None for job in self.jobs for module in job.preload}
        preload = (*self.task.preload, *modules)
        whole = {**os.environ, **environment}
        return Order(job.label, preload, whole, job.folder, self.context, self.task, self.config_of(index))

    def _reason(self, index: int) -> str:
        result = self.results[index]
        return str(result._return_value) if result.status is JobStatus.FAILED else ""

    def _result(self, index: int) -> JobReturn:
        """A job's result; duplicates share one, and a job that was done before is a success, with its result on disk."""
        first = self.first[self.jobs[index].identity]
        if first in self.results:
            return self.results[first]
        if self.jobs[first].done:
            return success()
        return failure("the sweep stopped before this run started")
