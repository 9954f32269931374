"""Training that takes its time, so that what is to happen to it always finds it in the middle, on a fast machine and on a
slow one: it sleeps in every micro-batch until its job was requeued SLOW_UNTIL_RESTART times, and then hurries."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from shapelaw.verbs.main import main as open_door
from shapelaw.verbs.train import TrainTask

MICRO_BATCH_SECONDS = 0.5
"""So that not even three jobs of a minute are enough for 400 steps, however fast they start."""


@dataclass(frozen=True)
class SlowTask(TrainTask):
    """Sleeps between the forward and the backward pass of every micro-batch."""

    def __call__(self, config: DictConfig) -> float:
        from shapelaw.model import Transformer

        loss = Transformer.loss

        def slow_loss(model: Transformer, *arguments: Any) -> Any:
            value = loss(model, *arguments)
            if model.training:
                time.sleep(MICRO_BATCH_SECONDS)
            return value

        if int(os.environ.get("SLURM_RESTART_COUNT", "0")) < int(os.environ["SLOW_UNTIL_RESTART"]):
            Transformer.loss = slow_loss  # type: ignore[method-assign]
        return super().__call__(config)


def main() -> None:
    """train.py with the slow task; the script's path is the first argument."""
    sys.argv = sys.argv[1:]
    open_door("train", SlowTask())
