"""A search on this machine: trials of one or several studies, several at once, each a job like any other.

A free worker goes to the study with the fewest running trials, so that parallel studies rarely try values blindly.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

from shapelaw.errors import UserError
from shapelaw.files import write_json
from shapelaw.run_state import Status, lock, read_state
from shapelaw.sweep.compose import Composer
from shapelaw.sweep.holding import stopped_by_sigterm
from shapelaw.sweep.local import LocalPool, SweepFailed, with_values
from shapelaw.sweep.settings import SearchSettings
from shapelaw.sweep.slots import Slots, slots_of
from shapelaw.sweep.spaces import Space, lines
from shapelaw.sweep.studies import Study, Ticket, digest, make
from shapelaw.sweep.task import ChecksMachine, Job, Searches, Stops, Task, Trials
from shapelaw.sweep.view import View
from shapelaw.terminal import terminal


@dataclass(frozen=True)
class Machine:
    """The means to run trials: Hydra's context, the task, the composer of configurations, the workers."""

    context: HydraContext
    task: Task
    composer: Composer
    workers: int


@dataclass(frozen=True)
class _Question:
    """The question of a study: its name, its hash, the overrides that its trials share, and a probe's configuration."""

    name: str
    asks: str
    fixed: list[str]
    config: DictConfig

    @property
    def folder(self) -> Path:
        """Folder of the study's lock and result."""
        return Path(self.config.outputs_dir) / "searches" / self.name


@dataclass
class _Line:
    """A running study: the information for its trials, and the remaining work."""

    question: _Question
    study: Study
    shared: Mapping[str, Any]
    waiting: list[Ticket]
    to_ask: int
    failed: int
    running: int = 0

    def fail(self, ticket: Ticket, reason: str) -> None:
        """Record a failed trial: it counts, and the study goes on."""
        self.study.failed(ticket, reason)
        self.failed += 1


def search(machine: Machine, blocks: Sequence[list[str]], space: Space, settings: SearchSettings) -> dict[str, Any]:
    """Run every study to its number of trials; returns the best values of each by its name.

    Args:
        machine: the means to run the trials.
        blocks: overrides of each study.
        space: the space that they all search.
        settings: settings of the search.

    Raises:
        UserError: before the first trial, for any error.
        SweepFailed: if a study failed too often, or a trial was interrupted.
    """
    task = machine.task
    if not isinstance(task, Searches):
        raise UserError(f"hydra/sweeper=optuna: a {task.noun} cannot be searched; give lists of values instead")
    make("sampler", settings.sampler)
    make("pruner", settings.pruner)
    questions = [_question(machine, block, space, settings, len(blocks) > 1) for block in blocks]
    if isinstance(task, ChecksMachine):
        task.check_machine([asked.config for asked in questions for _ in range(settings.n_trials)])
    slots = slots_of(task, [asked.config for asked in questions], machine.workers)
    trials = [Trials(asked.name, settings.storage, dict(settings.pruner)) for asked in questions]
    shared = [task.begin_search(asked.config, told) for asked, told in zip(questions, trials, strict=True)]
    with contextlib.ExitStack() as held:
        for asked in questions:
            held.enter_context(lock(asked.folder))
        lined = [_line(asked, values, space, settings) for asked, values in zip(questions, shared, strict=True)]
        try:
            with stopped_by_sigterm():
                _Search(machine, slots, lined, settings).run()
        except KeyboardInterrupt:
            if isinstance(task, Stops):
                for asked in questions:
                    task.stopped(asked.config, asked.name)
            raise
        return _end(task, lined, settings)


def _question(machine: Machine, block: list[str], space: Space, settings: SearchSettings, several: bool) -> _Question:
    """A study's question, checked at the ends and the middle of its space, and at every value of its lists."""
    places = [*space.probes(), *space.further_probes()]
    probes = [machine.composer.task([*block, *lines(values)]) for values in places]
    jobs = machine.task.plan(probes)[: len(space.probes())]
    asks = digest([job.identity for job in jobs], space)
    stem = jobs[0].folder.name.rpartition("-")[0]
    name = f"{jobs[0].folder.parent.name}-{stem}-{asks}"
    if settings.study_name:
        name = f"{settings.study_name}-{stem}-{asks[:6]}" if several else settings.study_name
    return _Question(name, asks, block, probes[0])


def _line(asked: _Question, shared: Mapping[str, Any], space: Space, settings: SearchSettings) -> _Line:
    study = Study(asked.name, asked.asks, space, settings.storage, settings.sampler)
    counts = study.summary().counts
    to_ask = max(settings.n_trials - sum(counts.values()), 0)
    return _Line(asked, study, shared, study.started(), to_ask, counts.get("fail", 0))


class _Trials(LocalPool):
    """A pool whose jobs are not known in advance."""

    def __init__(self, machine: Machine, slots: Slots) -> None:
        self.configs: list[DictConfig] = []
        super().__init__(machine.context, machine.task, self.configs.__getitem__, [], slots, stop_on_failure=False)

    def put(self, config: DictConfig, job: Job) -> None:
        """Start a job for which a worker is free."""
        self.configs.append(config)
        self.jobs.append(job)
        self.first[job.identity] = len(self.jobs) - 1
        self._start(len(self.jobs) - 1)

    def ended(self) -> list[tuple[Job, JobReturn]]:
        """Jobs that ended since the last call; waits a little for the first."""
        return [(self.jobs[index], self.results[index]) for index in self._finished()]


class _Search:
    """Asks for trials, runs them and reports their results, until every study has its trials."""

    def __init__(self, machine: Machine, slots: Slots, lined: list[_Line], settings: SearchSettings) -> None:
        self.machine, self.lined, self.settings = machine, lined, settings
        self.pool = _Trials(machine, slots)
        self.asked: dict[str, list[tuple[_Line, Ticket]]] = {}  # by identity of the running job; duplicates share it
        self.number = 0

    def run(self) -> None:
        todo = sum(len(line.waiting) + line.to_ask for line in self.lined)
        done = sum(sum(line.study.summary().counts.values()) - len(line.waiting) for line in self.lined)
        with View("trial", [], todo, done) as view:
            try:
                while self._fill(view) or self.pool.running:
                    for job, result in self.pool.ended():
                        self._tell(view, job, result)
                    view.refresh()
            finally:
                self.pool.stop()

    def _fill(self, view: View) -> bool:
        """Start trials while there are free workers; returns whether any started."""
        begun = False
        while len(self.pool.running) < self.pool.room and (line := self._next()):
            self._begin(view, line)
            begun = True
        return begun

    def _next(self) -> _Line | None:
        """The study to serve next: of those that have trials left, the one with the fewest running."""
        allowed = self.settings.max_failure_rate * self.settings.n_trials
        open_ = [line for line in self.lined if (line.waiting or line.to_ask) and line.failed <= allowed]
        return min(open_, key=lambda line: line.running, default=None)

    def _begin(self, view: View, line: _Line) -> None:
        if line.waiting:
            ticket = line.waiting.pop(0)
        else:
            ticket = line.study.ask()
            line.to_ask -= 1
        overrides, values = (
            [*line.question.fixed, *lines(ticket.values)],
            {**line.shared, "search.trial": ticket.number},
        )
        composer, number = self.machine.composer, self.number
        self.number += 1
        try:
            job = self.machine.task.plan([with_values(composer.task(overrides), values)])[0]
        except UserError as error:  # each value is valid, but not together with the others
            view.refused(" ".join(lines(ticket.values)), str(error))
            line.fail(ticket, str(error))
            return
        line.running += 1
        double = job.identity in self.asked
        self.asked.setdefault(job.identity, []).append((line, ticket))
        if not double:
            self.pool.put(with_values(composer.job(number, overrides), {**values, **job.settings}), job)
            view.started(job)

    def _tell(self, view: View, job: Job, result: JobReturn) -> None:
        """Report a job's result to every trial that it belongs to."""
        state, value = read_state(job.folder), result._return_value
        whole_run = result.status is JobStatus.COMPLETED and value is not None and math.isfinite(value)
        view.ended(job, "" if result.status is JobStatus.COMPLETED else str(value))
        for line, ticket in self.asked.pop(job.identity):
            line.running -= 1
            if state.status is Status.pruned:
                line.study.pruned(ticket)
            elif whole_run:
                line.study.finished(ticket, value)
            elif state.status is not Status.interrupted:  # the next start continues an interrupted one
                line.fail(ticket, str(value))


def _end(task: Searches, lined: list[_Line], settings: SearchSettings) -> dict[str, Any]:
    """Record and print the result of every study."""
    console, best, wrong = terminal(), {}, []
    for line in lined:
        summary = line.study.summary()
        counts = ", ".join(f"{count} {_WORDS[name]}" for name, count in sorted(summary.counts.items()))
        found = "no trial finished"
        if summary.best is not None:
            found = f"best loss {summary.loss:.4f} at {' '.join(lines(summary.best))} (trial {summary.number})"
        console.print(f"{line.study.name}: {found}; trials: {counts}")
        record = {"best": summary.best, "loss": summary.loss, "trial": summary.number, "trials": dict(summary.counts)}
        write_json(
            line.question.folder / "result.json", {"study": line.study.name, "storage": settings.storage, **record}
        )
        task.end_search(line.question.config, line.study.name, record)
        best[line.study.name] = summary.best
        if line.failed > settings.max_failure_rate * settings.n_trials:
            wrong.append(
                f"{line.study.name}: {line.failed} trials failed, of {settings.n_trials} at most "
                f"{settings.max_failure_rate:.0%} may; narrow the interval, or give a larger hydra.sweeper.max_failure_rate"
            )
        elif summary.counts.get("running"):
            wrong.append(f"{line.study.name}: a trial was interrupted; run the same command again to continue it")
    if wrong:
        raise SweepFailed("; ".join(wrong))
    return best


_WORDS = {"complete": "finished", "pruned": "pruned", "fail": "failed", "running": "interrupted", "waiting": "waiting"}
