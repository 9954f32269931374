"""The finished share of a sweep's work, and the time for the rest at the pace so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shapelaw.run_state import State
from shapelaw.sweep.task import Job

ENOUGH_SHARE, ENOUGH_SECONDS = 0.01, 600.0
"""Share that a job has done, or seconds since the start, from which the pace is known: before, most of the time was spent on
starting processes."""


@dataclass
class _Part:
    """A job's work: the amount from now on, and the part of it that is done."""

    work: float
    base: int | None
    """Step at which it continues; None until its first state is read."""
    share: float = 0.0

    @property
    def done(self) -> float:
        """Work that was done."""
        return self.share * self.work


class Pace:
    """Work done over time. Work is counted in FLOPs, or in relative costs if jobs have no FLOPs.

    Args:
        jobs: the jobs to run, each with its present state.
        to_come: number of further jobs that are not known yet; each counts as large as the mean of those known.
        now: a clock, in seconds.
    """

    def __init__(
        self, jobs: Sequence[tuple[Job, State]], to_come: int = 0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.parts = {job.identity: _part(job, state) for job, state in jobs}
        self.to_come, self.now, self.begun = to_come, now, now()

    def add(self, job: Job, state: State) -> None:
        """Add a job that was not known before and starts."""
        self.parts[job.identity] = _part(job, state)
        self.to_come = max(self.to_come - 1, 0)

    def moved(self, job: Job, state: State) -> None:
        """Update a running job to this state."""
        part = self.parts[job.identity]
        part.base = state.step if part.base is None else part.base
        if state.steps > part.base:
            part.share = max(state.step - part.base, 0) / (state.steps - part.base)

    def ended(self, job: Job, well: bool) -> None:
        """Record that a job ended; if it failed, no work of it remains."""
        part = self.parts[job.identity]
        part.work, part.share = (part.work if well else part.done), 1.0

    @property
    def done(self) -> float:
        """Work done since the start."""
        return sum(part.done for part in self.parts.values())

    @property
    def total(self) -> float:
        """Work to do at the start."""
        known = sum(part.work for part in self.parts.values())
        return known + self.to_come * known / max(len(self.parts), 1)

    @property
    def seconds_left(self) -> float | None:
        """Work left over work per second; None until the pace is known."""
        done, passed = self.done, self.now() - self.begun
        furthest = max((part.share for part in self.parts.values()), default=0.0)
        known = furthest >= ENOUGH_SHARE or passed >= ENOUGH_SECONDS
        return (self.total - done) * passed / done if known and done > 0 else None


def _part(job: Job, state: State) -> _Part:
    """A job's remaining work after its checkpoint; for one that continues another run, the starting step is known later."""
    work = job.flops or job.cost
    if job.after is not None:
        return _Part(work, None)
    begun = state.step / state.steps if state.steps else 0.0
    return _Part(work * (1 - begun), state.step)
