"""Checks of runs that a program trains, before anything is created."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence

from shapelaw.command.fields import OWN_PLACE, command_of, fields_of
from shapelaw.config import SpikePolicy, TrainConfig
from shapelaw.errors import UserError
from shapelaw.planned_run import PlannedRun, parent_folder
from shapelaw.run_state import Status, read_state
from shapelaw.template import KEY, Template, options_in

log = logging.getLogger(__name__)
SHOWN_OPTIONS = 4


def check_command(config: TrainConfig, planned: PlannedRun) -> None:
    """Refuse a command line that cannot be built, and options that a program cannot obey.

    Raises:
        UserError: naming the option, and what to do.
    """
    command_of(config, planned, resume=False)
    for key, asked in _of_our_step(config, planned).items():
        if asked:
            raise UserError(
                f"{key}: trainer=command does not read it, because the program takes the steps; leave it out"
            )
    if planned.parent and "parent" not in Template(config.trainer.command).names:
        raise UserError(
            f"cooldown.fraction={config.cooldown.fraction:g}: {KEY} does not name {{parent}}, the folder of the run that the "
            "cooldown continues (empty for a run that continues none); let the program read its checkpoint there, or "
            "give cooldown=none"
        )


def _of_our_step(config: TrainConfig, planned: PlannedRun) -> dict[str, bool]:
    return {
        "spikes=rollback": config.spikes.policy is SpikePolicy.rollback,
        "model": planned.model.own,
        "noise.every_steps": bool(config.noise.every_steps),
        "validation.further": bool(config.validation.further),
    }


def check_parent(planned: PlannedRun) -> None:
    """Refuse a cooldown of a run that is neither finished nor in the same sweep.

    Raises:
        UserError: naming the run.
    """
    folder = parent_folder(planned)
    if read_state(folder).status is not Status.finished:
        raise UserError(
            f"cooldown.fraction: the run that {planned.label} continues ({folder.name}) is not finished; train it first: the "
            "same command with cooldown=none, or both in one sweep with cooldown=none,linear10"
        )


def check_found(config: TrainConfig, planned: PlannedRun) -> None:
    """Refuse a program that this machine does not have.

    Raises:
        UserError: naming it.
    """
    program = command_of(config, planned, resume=False)[0]
    if shutil.which(program) is None:
        raise UserError(
            f"{KEY}: {program} was not found or cannot be run; give its path, or {{python}} for the Python of this environment"
        )


def warn_of_same(runs: Sequence[tuple[TrainConfig, PlannedRun]]) -> None:
    """Warn about runs with the same command line, naming the options in which they differ."""
    first: dict[tuple[str, ...], tuple[TrainConfig, PlannedRun]] = {}
    for config, planned in runs:
        fields = fields_of(config, planned, resume=False) | dict.fromkeys(OWN_PLACE, "")
        words = tuple(Template(config.trainer.command).filled(fields))
        other, before = first.setdefault(words, (config, planned))
        if before.identity != planned.identity:
            options = options_in(other)
            apart = [name for name, value in options_in(config).items() if value != options[name]][:SHOWN_OPTIONS]
            log.warning(
                "note: %s gives %s and %s the same command line, although they differ in %s; name that field in "
                "braces, unless the program reads it from {folder}/config.yaml",
                *(KEY, before.label, planned.label, ", ".join(apart)),
            )
            return
