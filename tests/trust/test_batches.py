"""Which batches a run trains on: a branch goes on where its parent was in the order, a rollback leaves out the spike's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from planted import ROLLS_BACK, SPIKES, fingerprint, plant
from shapelaw.training.module import RunModule
from shapelaw.training.rollback import read_rollbacks
from support import Compose, train

Seen = list[tuple[int, str]]
"""(steps done before, hash of the batch) of every step."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The batches of all runs of a test, as they come to the step."""
    found: Seen = []
    step: Callable[..., None] = RunModule.training_step

    def watched(module: RunModule, batch: torch.Tensor, index: int) -> None:
        found.append((module.progress.step, fingerprint(batch)))
        step(module, batch, index)

    monkeypatch.setattr(RunModule, "training_step", watched)
    return found


def test_a_branch_reads_on_where_its_parent_stopped(composed: Compose, seen: Seen) -> None:
    """Its batches are those that a longer run at a constant rate takes at the same steps."""
    train(composed, "tokens=2560")
    hot = dict(seen)
    assert len(set(hot.values())) == len(hot) == 20
    seen.clear()
    train(composed, "tokens=1280")
    train(composed, "tokens=1280", "checkpoint.every_tokens=1280", "cooldown=linear10", "cooldown.fraction=0.5",
          "cooldown.from_tokens=1280")  # fmt: skip
    assert [step for step, _ in seen] == [*range(10), *range(10, 14)]
    assert all(hot[step] == batch for step, batch in seen)


def test_a_rollback_leaves_out_the_batches_of_its_spike(
    composed: Compose, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(composed, monkeypatch)
    train(composed, *SPIKES, "spikes=ignore")
    order = [batch for _, batch in sorted(seen)]
    seen.clear()
    planned = train(composed, *ROLLS_BACK)
    event = read_rollbacks(planned.folder)[0]
    (first, count), *none = event.skipped
    assert (first, count, none) == (event.first_step - 1, event.step - event.first_step + 1, [])
    attempts = _attempts(seen)
    assert attempts[0] == list(enumerate(order[: len(attempts[0])]))
    again = dict(attempts[1])
    assert min(again) == event.to_step
    left = [batch for place, batch in enumerate(order) if not first <= place < first + count]
    assert len(set(again) & set(range(first, len(left)))) >= 4, "it went past the spike"
    assert all(again[step] == left[step] for step in again if step < len(left))


def _attempts(seen: Seen) -> list[Seen]:
    """Cut where the run went back."""
    cuts = [place for place in range(1, len(seen)) if seen[place][0] <= seen[place - 1][0]]
    return [seen[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(seen)], strict=True)]
