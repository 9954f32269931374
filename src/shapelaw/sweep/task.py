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
    """What a step takes of a device.

    Args:
        sequences: of a forward pass; 0 where they are unknown.
        peak_bytes: of memory.
        limit_bytes: that it may take.
    """

    sequences: int = 0
    peak_bytes: float = 0.0
    limit_bytes: float = math.inf

    @property
    def exceeds(self) -> bool:
        """Whether it takes more than it may."""
        return self.peak_bytes > self.limit_bytes


@dataclass(frozen=True)
class Job:
    """One composed and checked configuration of a sweep.

    Args:
        identity: hash of what decides the result; two jobs of one identity are one job.
        label: short name for people.
        folder: where its state and log lie.
        cost: relative cost; the dearest start first.
        done: whether its result is already there.
        after: identity of the job whose result it continues, if any.
        after_ready: whether what it continues is there already.
        params, tokens, flops: of a training run, for the plan; flops of the tokens that it trains itself.
        footprint: given a device (`this`, or a rated one's name), what a step takes of it.
        splits: sequences of its batch, which its tasks share out; 0 if it cannot be split at all.
        check_tasks: raises a UserError if it cannot be shared out over so many tasks.
        request: what it asks of a cluster.
        preload: modules that it imports, beside those that every job does.
        command: the command line of the program that carries it out, if one does; a dry run prints it.
        settings: what the plan decided, by dotted keys; to be set in its configuration before it runs.
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
    """Hash of the set of its jobs: the same sweep, started again, is the same."""
    return hashlib.sha256(" ".join(sorted({job.identity for job in jobs})).encode()).hexdigest()[:12]


class Task(Protocol):
    """The work of a script: train a run, fit a law."""

    preload: tuple[str, ...]
    """Modules that every job imports; imported once for all of them."""
    noun: str
    """What a job is called: run, fit."""

    def __call__(self, config: DictConfig) -> float | None:
        """Do one job and return its figure of merit (what a search minimises)."""
        ...

    def plan(self, configs: Sequence[DictConfig]) -> list[Job]:
        """Check every configuration before anything is created; raises UserError for the first that is wrong."""
        ...

    def begin(self, configs: Sequence[DictConfig], jobs: Sequence[Job]) -> Mapping[str, Any]:
        """Prepare what the jobs share (the tracking store, the sweep's own run); values to set in every job's config."""
        ...

    def end(self, configs: Sequence[DictConfig], jobs: Sequence[Job], failed: Sequence[str]) -> None:
        """Close what the jobs shared."""
        ...


@runtime_checkable
class ChecksMachine(Protocol):
    """A task that can tell what this machine cannot do; asked before jobs run here, and not for a cluster."""

    def check_machine(self, configs: Sequence[DictConfig]) -> None:
        """Refuse, by a UserError, what would take too long or too much memory here."""
        ...


@runtime_checkable
class TakesGpus(Protocol):
    """A task whose jobs train on GPUs where there are some; jobs that run here are given theirs."""

    def gpus(self, configs: Sequence[DictConfig]) -> int:
        """GPUs of this machine that one job takes; 0 is none."""
        ...


@runtime_checkable
class Tells(Protocol):
    """A task that words the outcome of its jobs itself; the others' are told by the states in their folders."""

    def told(self, job: Job) -> str:
        """What came of a job that ended well, in a few words."""
        ...


@runtime_checkable
class Stops(Protocol):
    """A task that closes what its jobs shared where the launcher is asked to stop."""

    def stopped(self, config: DictConfig, identity: str) -> None:
        """Record that the sweep or search of an identity was stopped; `config` is that of a job."""
        ...


@dataclass(frozen=True)
class Trials:
    """What the jobs of a search are told of it: the study's name, its storage, and the configuration of its pruner."""

    study: str
    storage: str
    pruner: Mapping[str, Any]


@runtime_checkable
class Searches(Protocol):
    """A task whose jobs can be the trials of a search: what they return is minimised, and `search.trial` is their number."""

    def begin_search(self, config: DictConfig, trials: Trials) -> Mapping[str, Any]:
        """Prepare what the trials of a study share; values to set in every one's config."""
        ...

    def end_search(self, config: DictConfig, study: str, record: Mapping[str, Any]) -> None:
        """Close what the trials shared, and record what was found."""
        ...


@runtime_checkable
class Prices(Protocol):
    """A task that knows what its jobs cost."""

    def estimate(self, configs: Sequence[DictConfig]) -> list[Job]:
        """The jobs as far as they are known before what they need is prepared; raises UserError as plan does."""
        ...

    def device_hours(self, job: Job, device: str) -> float:
        """Estimated hours of one device; `device` names one, or `this` for this machine's."""
        ...
