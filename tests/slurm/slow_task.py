"""Training that takes its time: at most 40 steps a second, so that a time limit cuts it as often on a fast machine."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from shapelaw import cli
from shapelaw.training.task import TrainTask

STEP_SECONDS = 0.025


@dataclass(frozen=True)
class SlowTask(TrainTask):
    """Sleeps before every step."""

    def __call__(self, config: DictConfig) -> float:
        from shapelaw.training.module import CellModule

        step = CellModule.training_step

        def slow_step(module: CellModule, *arguments: Any) -> None:
            time.sleep(STEP_SECONDS)
            step(module, *arguments)

        CellModule.training_step = slow_step  # type: ignore[method-assign]
        return super().__call__(config)


def main() -> None:
    """train.py with the slow task; the script's path is the first argument."""
    sys.argv = sys.argv[1:]
    cli.main(Path(sys.argv[0]).parent, "train", SlowTask())
