"""The runs of the test program."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from programs import TEMPLATE, Prepare, option

from shapelaw.command.checks import check_command
from shapelaw.config import TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.planned_run import PlannedRun, plan_run
from support import Compose


@pytest.fixture
def prepared(composed: Compose) -> Prepare:
    """Configuration and run of the test program."""

    def prepare(*overrides: str, template: str = TEMPLATE, **trainer: Any) -> tuple[TrainConfig, PlannedRun]:
        config: TrainConfig = to_dataclass(composed("trainer=command", option("x"), "accelerator=cpu", *overrides))
        config = replace(config, trainer=replace(config.trainer, command=template, **trainer))
        planned = plan_run(config, None)
        check_command(config, planned)
        return config, planned

    return prepare
