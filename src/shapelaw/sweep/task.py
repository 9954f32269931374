"""What a launcher needs to know about its work, without anything about models or fits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from omegaconf import DictConfig

from shapelaw.config import ResourcesConfig


@dataclass(frozen=True)
class Footprint:
    """The memory of a step on a device.

    Args:
        sequences: sequences of a forward pass; 0 if unknown.
        peak_bytes: peak memory.
        limit_bytes: memory limit.
    """

    sequences: int = 0
    peak_bytes: float = 0.0
    limit_bytes: float = math.inf

    @property
    def exceeds(self) -> bool:
        """Whether it exceeds its limit."""
        return self.peak_bytes > self.limit_bytes


@dataclass(frozen=True)
class Job:
    """One composed and checked configuration of a sweep.

    Args:
        identity: hash of everything that decides the result; two jobs with the same identity are one job.
        label: short name for people.
        folder: folder of its state and log.
        cost: relative cost; the most expensive jobs start first.
        done: whether its result exists already.
        after: identity of the job whose result it continues, if any.
        after_ready: whether the result that it continues exists already.
        params, tokens, flops: those of a training run, for the plan; flops of the tokens that it trains itself.
        footprint: device (`this`, or a rated one's name) -> memory of a step on it.
        splits: sequences of its batch, which its tasks divide; 0 if it cannot be split at all.
        check_tasks: raises a UserError if it cannot be divided among the given number of tasks.
        request: its request to a cluster.
        preload: modules that it imports, beside those of every job.
        command: the command line of the program that carries it out, if any; a dry run prints it.
        settings: decisions of the plan, by dotted keys; they are set in its configuration before it runs.
    """

    identity: str
    label: str
    folder: Path
    cost: float = 1.0
    done: bool = False
    after: str | None = None
    after_ready: bool = True
    params: int = 0
    tokens: int = 0
    flops: float = 0.0
    footprint: Callable[[str], Footprint] | None = None
    splits: int = 0
    check_tasks: Callable[[int], None] | None = None
    request: ResourcesConfig = field(default_factory=ResourcesConfig)
    preload: tuple[str, ...] = ()
    command: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def sweep_identity(jobs: Sequence[Job]) -> str:
    """Hash of the set of its jobs, so that the same sweep, started again, has the same identity."""
    return hashlib.sha256(" ".join(sorted({job.identity for job in jobs})).encode()).hexdigest()[:12]


class Task(Protocol):
    """The work of a script: train a run, fit a law."""

    preload: tuple[str, ...]
    """Modules of every job, which are imported once for all jobs."""
    noun: str
    """Noun for a job: run, fit."""

    def __call__(self, config: DictConfig) -> float | None:
        """Do one job and return its figure of merit, which a search minimises."""
        ...

    def plan(self, configs: Sequence[DictConfig]) -> list[Job]:
        """Check every configuration before anything is created; raises UserError for the first invalid one."""
        ...

    def begin(self, configs: Sequence[DictConfig], jobs: Sequence[Job]) -> Mapping[str, Any]:
        """Prepare shared resources (the tracking store, the sweep's own run); returns values to set in every job's config."""
        ...

    def end(self, configs: Sequence[DictConfig], jobs: Sequence[Job], failed: Sequence[str]) -> None:
        """Close the shared resources of the jobs."""
        ...


@runtime_checkable
class ChecksMachine(Protocol):
    """A task that knows the limits of this machine; it is asked before jobs run here, but not for a cluster."""

    def check_machine(self, configs: Sequence[DictConfig]) -> None:
        """Raise a UserError for work that would take too long or too much memory here."""
        ...


@runtime_checkable
class TakesGpus(Protocol):
    """A task whose jobs train on GPUs if available; jobs that run here get theirs assigned."""

    def gpus(self, configs: Sequence[DictConfig]) -> int:
        """GPUs of this machine that one job takes; 0 means none."""
        ...


@runtime_checkable
class Tells(Protocol):
    """A task that words the outcome of its jobs itself; for other tasks, the states in the jobs' folders tell it."""

    def told(self, job: Job) -> str:
        """The outcome of a successful job, in a few words."""
        ...


@runtime_checkable
class Stops(Protocol):
    """A task that closes the shared resources of its jobs if the launcher is asked to stop."""

    def stopped(self, config: DictConfig, identity: str) -> None:
        """Record that the sweep or search of an identity was stopped; `config` is that of a job."""
        ...


@dataclass(frozen=True)
class Trials:
    """Information about a search for its jobs: the study's name, its storage, and the configuration of its pruner."""

    study: str
    storage: str
    pruner: Mapping[str, Any]


@runtime_checkable
class Searches(Protocol):
    """A task whose jobs can be trials of a search: their return value is minimised, and `search.trial` is their number."""

    def begin_search(self, config: DictConfig, trials: Trials) -> Mapping[str, Any]:
        """Prepare the shared resources of a study's trials; returns values to set in every trial's config."""
        ...

    def end_search(self, config: DictConfig, study: str, record: Mapping[str, Any]) -> None:
        """Close the shared resources of the trials, and record the result."""
        ...


@runtime_checkable
class Prices(Protocol):
    """A task that knows the cost of its jobs."""

    def estimate(self, configs: Sequence[DictConfig]) -> list[Job]:
        """The jobs as far as they are known before their inputs are prepared; raises UserError like `plan`."""
        ...

    def device_hours(self, job: Job, device: str) -> float:
        """Estimated hours of one device; `device` names one, or `this` for this machine's."""
        ...
