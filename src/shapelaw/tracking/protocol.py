"""What training and fitting record of a run, in any tracker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

VAL_LOSS = "val/loss"
"""Held-out loss, nats per token."""
FURTHER_LOSS = re.compile(r"val/(\w+)/loss")
"""Losses on further held-out sets."""
DEVICE_HOURS = "cost/device_hours"
ROLLBACKS = "spike/rollbacks"
LR_SCALE = "spike/lr_scale"
"""Metric that marks a rollback, recorded at the tokens to which the run went back; it undoes earlier measurements at more
tokens."""
DIVERGED_TAG = "shapelaw.diverged_step"
PRUNED_TAG = "shapelaw.pruned"
"""Tokens after which a search gave up the run; empty if it was continued."""
DAMAGED_TAG = "shapelaw.damaged_records"
"""Number of lines of a run's journal that were damaged before their delivery."""
SUITE_TAG = "shapelaw.suite_record"
"""The record of the run's suite, as JSON (`shapelaw.suite.Suite`)."""
OWN = "model."
"""Prefix of parameters of a run that are options and columns of a user's own model."""
NOISE_GRAD_SQ, NOISE_TRACE, NOISE_SCALE = "noise/grad_sq", "noise/trace_tokens", "noise/scale_tokens"
"""Estimates of |G|^2 and of tr(Sigma) of one token, and the ratio of their running means: the gradient noise scale."""


def further_loss(name: str) -> str:
    """Metric of the loss on a further held-out set."""
    return f"val/{name}/loss"


class Tracker(Protocol):
    """What training and fitting record of a run."""

    @property
    def run_id(self) -> str | None:
        """The tracker's own name of the run, once it is known."""
        ...

    def log(self, metrics: Mapping[str, float], tokens: int) -> None:
        """Record metrics after a number of tokens, unless an earlier attempt already recorded them."""
        ...

    def rewind(self, number: int, tokens: int, metrics: Mapping[str, float]) -> None:
        """Record that the run went back to a number of tokens, for the number-th time; later metrics are measured again."""
        ...

    def flush(self) -> None:
        """Make the records survive a power cut."""
        ...

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a file with the run."""
        ...

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        ...

    def finish(self, status: str) -> None:
        """Record the outcome: FINISHED, FAILED or KILLED."""
        ...

    def close(self) -> None:
        """Give the store some time for the remaining records; nothing is recorded after that."""
        ...


@dataclass(frozen=True)
class RunInfo:
    """The name and description of a run.

    Args:
        identity: the run's or fit's hash; one MLflow run per identity and experiment.
        kind: train, fit or sweep.
        name: name for people.
        params: short flat parameters.
        tags: further tags.
        parent_run_id: the MLflow run of the sweep that this run belongs to.
    """

    identity: str
    kind: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    parent_run_id: str | None = None


class NoTracker:
    """Records nothing."""

    run_id: str | None = None

    def log(self, metrics: Mapping[str, float], tokens: int) -> None:
        """Nothing."""

    def rewind(self, number: int, tokens: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Nothing."""

    def tag(self, tags: Mapping[str, str]) -> None:
        """Nothing."""

    def finish(self, status: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
