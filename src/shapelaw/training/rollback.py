"""Rollbacks: which checkpoint a run goes back to, which batches it leaves out from then on, and what it remembers of it.

A rollback is certain when it stands in the run's rollbacks.json; everything else follows from that file and can be done
again: checkpoints of undone steps are removed, the run is loaded where it went back to, and its tracker is told.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from shapelaw.errors import UserError
from shapelaw.files import as_record, read_sealed, write_sealed
from shapelaw.planned_run import PlannedRun, checkpoint_path, checkpoint_steps
from shapelaw.training.spikes import Verdict

ROLLBACKS = "rollbacks.json"
Stretch = tuple[int, int]
"""First batch and number of batches."""


@dataclass(frozen=True)
class Rollback:
    """One event of a run.

    Args:
        cell: identity of the run that rolled back; a branch inherits those of its parent.
        number: of the run's rollbacks, from 1.
        to_step: steps done where the run goes on.
        first_step, step: of the spike, and of its detection.
        what: what was seen.
        skipped: batches left out of the order from now on, as (first, number), ascending and disjoint; with those of
            earlier rollbacks.
        lr_scale: factor of the rate from now on, earlier rollbacks included.
        seconds: of steps that the run had taken, those undone included.
    """

    cell: str
    number: int
    to_step: int
    first_step: int
    step: int
    what: str
    skipped: tuple[Stretch, ...]
    lr_scale: float
    seconds: float

    @classmethod
    def read(cls, values: dict[str, object]) -> Rollback:
        """From what JSON made of it."""
        made = cls(**values)  # type: ignore[arg-type]
        return replace(made, skipped=tuple((int(first), int(count)) for first, count in made.skipped))


def batch_of(step: int, skipped: Iterable[Stretch]) -> int:
    """Number of the batch that follows `step` done steps: the step-th of those that are not left out."""
    batch = step
    for first, count in skipped:
        if batch >= first:
            batch += count
    return batch


def skip(skipped: Sequence[Stretch], first_step: int, step: int) -> tuple[Stretch, ...]:
    """The stretches with the batches of steps first_step to step (steps done, counted from 1) left out too."""
    first, last = batch_of(first_step - 1, skipped), batch_of(step - 1, skipped)
    apart = [(begin, count) for begin, count in skipped if begin + count < first or begin > last + 1]
    joined = [(begin, begin + count) for begin, count in skipped if (begin, count) not in apart]
    first = min([first, *(begin for begin, _ in joined)])
    after = max([last + 1, *(end for _, end in joined)])
    return tuple(sorted([*apart, (first, after - first)]))


@dataclass(frozen=True)
class _Rollbacks:
    """What rollbacks.json holds."""

    rollbacks: tuple[Rollback, ...]


def read_rollbacks(folder: Path) -> list[Rollback]:
    """The rollbacks of the run of a folder. Earlier versions wrote them as a list, without a seal.

    Raises:
        UserError: if the file is damaged.
    """
    path = folder / ROLLBACKS
    if not path.exists():
        return []
    content = read_sealed(path)
    return [*as_record(_Rollbacks, {"rollbacks": content} if isinstance(content, list) else content, path).rollbacks]


def roll_back(
    planned: PlannedRun, before: Sequence[Rollback], verdict: Verdict, lr_factor: float, margin: int, seconds: float
) -> Rollback:
    """Decide a rollback and write it down: to the newest checkpoint of the cadence `margin` steps before the spike, or to
    the run's start.

    Args:
        before: all that the run had, its parent's included.
    """
    own = [event for event in before if event.cell == planned.identity]
    good = [
        s for s in checkpoint_steps(planned.folder) if planned.checkpoints_at(s) and s < verdict.first_step - margin
    ]
    skipped = before[-1].skipped if before else ()
    event = Rollback(
        cell=planned.identity,
        number=len(own) + 1,
        to_step=max([planned.first_step, *good]),
        first_step=verdict.first_step,
        step=verdict.step,
        what=verdict.what,
        skipped=skip(skipped, verdict.first_step, verdict.step),
        lr_scale=lr_factor * (before[-1].lr_scale if before else 1.0),
        seconds=seconds,
    )
    write_sealed(planned.folder / ROLLBACKS, asdict(_Rollbacks((*own, event))))
    return event


def discard_undone(folder: Path, events: Sequence[Rollback]) -> None:
    """Remove the checkpoints of undone steps: those that do not know of a rollback behind them."""
    for step in checkpoint_steps(folder):
        path = checkpoint_path(folder, step)
        if any(step > event.to_step for event in events[_known(path, events) :]):
            shutil.rmtree(path)


def _known(path: Path, events: Sequence[Rollback]) -> int:
    """How many of the run's rollbacks a checkpoint knows; a damaged one is left to who loads it."""
    try:
        known = read_sealed(path / "state.json").get("rollbacks", [])
        return len([event for event in known if event["cell"] == events[0].cell])
    except (UserError, OSError, AttributeError, KeyError, TypeError, IndexError):
        return len(events)
