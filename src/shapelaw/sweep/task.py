"""What a launcher needs to know of the work it launches, and nothing of models or fits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig


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
    """

    identity: str
    label: str
    folder: Path
    cost: float = 1.0
    done: bool = False
    after: str | None = None


def sweep_identity(jobs: Sequence[Job]) -> str:
    """Hash of the set of its jobs: the same sweep, started again, is the same."""
    return hashlib.sha256(" ".join(sorted({job.identity for job in jobs})).encode()).hexdigest()[:12]


class Task(Protocol):
    """The work of a script: train a cell, fit a law."""

    preload: tuple[str, ...]
    """Modules that every job imports; imported once for all of them."""
    noun: str
    """What a job is called: cell, fit."""

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
