"""Jobs on this machine: several at once, each in its own process, with one progress view."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from shapelaw.errors import WorkFailed
from shapelaw.files import check_writable
from shapelaw.sweep.compose import Configs, SweepConfigs
from shapelaw.sweep.holding import held, stopped_by_sigterm
from shapelaw.sweep.job_process import JobProcess
from shapelaw.sweep.pool import Pool
from shapelaw.sweep.slots import Slots, slots_of
from shapelaw.sweep.task import ChecksMachine, Job, Stops, Task, sweep_identity
from shapelaw.sweep.view import View
from shapelaw.wording import counted

POLL_SECONDS = 0.5
STOP_SECONDS = 20.0


class SweepFailed(WorkFailed):
    """Some jobs of a sweep failed; the others are finished."""


def launch(
    context: HydraContext, task: Task, runs: SweepConfigs, workers: int, stop_on_failure: bool
) -> list[JobReturn]:
    """Check every run, then carry out the unfinished ones; returns one result per run, in order.

    Raises:
        UserError: before the first job, for the first invalid configuration.
        OSError: before the first job, for the first folder that cannot be written to.
        SweepFailed: after the last job, if some failed.
    """
    if isinstance(task, ChecksMachine):
        task.check_machine(runs)
    slots = slots_of(task, runs, workers)
    jobs = task.plan(runs)

    def pool_of(shared: Mapping[str, Any]) -> LocalPool:
        return LocalPool(
            context, task, lambda index: job_config(runs, jobs, index, shared), jobs, slots, stop_on_failure
        )

    return carried_out(task, runs, jobs, pool_of)


def carried_out(
    task: Task,
    configs: Sequence[DictConfig],
    jobs: Sequence[Job],
    pool_of: Callable[[Mapping[str, Any]], Pool[Any]],
    place: AbstractContextManager[None] | None = None,
) -> list[JobReturn]:
    """Carry out the unfinished jobs of a sweep, and lock the sweep meanwhile; returns one result per job.

    Args:
        task: the work of the jobs.
        configs: their configurations.
        jobs: all jobs of the sweep.
        pool_of: creates the pool that carries them out, from the values that they share.
        place: context that is entered while they run.

    Raises:
        OSError: before the first job, for the first folder that cannot be written to.
        SweepFailed: after the last job, if some failed.
    """
    for job in jobs:
        if not job.done:
            check_writable(job.folder)
    if all(job.done for job in jobs):
        return _all(task, configs, jobs, pool_of)
    with held(Path(str(configs[0].outputs_dir)), sweep_identity(jobs)), place or nullcontext():
        try:
            with stopped_by_sigterm():
                return _all(task, configs, jobs, pool_of)
        except KeyboardInterrupt:
            if isinstance(task, Stops) and len(jobs) > 1:
                task.stopped(configs[0], sweep_identity(jobs))
            raise


def _all(
    task: Task, configs: Sequence[DictConfig], jobs: Sequence[Job], pool_of: Callable[[Mapping[str, Any]], Pool[Any]]
) -> list[JobReturn]:
    """Carry out the jobs of a sweep that this process has locked."""
    pool = pool_of(task.begin(configs, jobs))
    with View(task.noun, jobs, task=task) as view:
        results = pool.run(view)
    failed = [job.identity for job, result in zip(jobs, results, strict=True) if result.status is JobStatus.FAILED]
    task.end(configs, jobs, failed)
    if failed:
        raise SweepFailed(
            f"{len(failed)} of {counted(len(jobs), task.noun)} failed; run the same command again to retry them"
        )
    return results


def job_config(runs: SweepConfigs, jobs: Sequence[Job], index: int, shared: Mapping[str, Any]) -> DictConfig:
    """The configuration of a job, with the values that all jobs share and those that the plan decided."""
    return with_values(runs.job(index), {**shared, **jobs[index].settings})


def with_values(config: DictConfig, values: Mapping[str, Any]) -> DictConfig:
    """The configuration with these values set, by their dotted keys."""
    for key, value in values.items():
        OmegaConf.update(config, key, value)
    return config


@dataclass(frozen=True)
class Adjusted(Configs):
    """Configurations with some values set.

    Args:
        configs: configurations of the runs.
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
    """Settings that make a run train on its GPUs; its plan must not depend on the machine that makes the plan."""
    return {"accelerator": "gpu"} if has_gpus and config.get("accelerator") == "auto" else {}


@dataclass(frozen=True)
class _Running:
    process: JobProcess
    gpus: dict[str, str]
    """Environment that assigns its GPUs."""


class LocalPool(Pool[_Running]):
    """Runs jobs on this machine."""

    def __init__(
        self,
        context: HydraContext,
        task: Task,
        config_of: Callable[[int], DictConfig],
        jobs: Sequence[Job],
        slots: Slots,
        stop_on_failure: bool,
    ) -> None:
        """As for `Pool`; `slots` are the capacity of this machine."""
        super().__init__(context, task, config_of, jobs, slots.workers, stop_on_failure)
        self.slots = slots

    def _start(self, index: int) -> None:
        gpus = self.slots.take()
        self.running[index] = _Running(JobProcess(self._order(index, gpus)), gpus)

    def _finished(self) -> list[int]:
        wait([running.process.connection for running in self.running.values()], timeout=POLL_SECONDS)
        ended = {index: running for index, running in self.running.items() if running.process.ended}
        for index, running in ended.items():
            self.results[index] = running.process.result()
            del self.running[index]
            self.slots.give_back(running.gpus)
        return list(ended)

    def stop(self) -> None:
        for running in self.running.values():
            running.process.ask()
        deadline = time.monotonic() + STOP_SECONDS
        for running in self.running.values():
            running.process.end(deadline - time.monotonic())
        self.running.clear()
