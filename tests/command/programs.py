"""What tests of trainer=command share: the command line of the test program, and a run of it in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shapelaw.command.run import train
from shapelaw.config import TrainConfig
from shapelaw.planned_run import PlannedRun

PROGRAM = Path(__file__).parent / "program.py"
FIELDS = "width={shape.width} tokens={tokens} batch={batch_tokens} lr={lr} seed={seed} out={folder} metrics={metrics}"
TEMPLATE = f"{{python}} {PROGRAM} {FIELDS}"
PARENT = "parent={parent} first={first_tokens}"
Prepare = Callable[..., tuple[TrainConfig, PlannedRun]]


def option(template: str = TEMPLATE) -> str:
    """The override that gives a command."""
    return f'trainer.command="{template}"'


def run(config: TrainConfig, planned: PlannedRun) -> float:
    """Train it in this process."""
    return train(config, planned, {}, lambda state: None)
