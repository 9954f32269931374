"""Facts of a run that a command template can pass to a program, by name."""

from __future__ import annotations

import os
import sys
from typing import Any

from shapelaw.config import TrainConfig
from shapelaw.counting import params_total
from shapelaw.planned_run import PlannedRun, corpus_folder, parent_folder
from shapelaw.template import Template, options_in

METRICS = "metrics.jsonl"
OWN_PLACE = ("folder", "metrics", "identity", "name", "parent", "resume")
"""Fields in which any two runs differ."""


def fields_of(config: TrainConfig, planned: PlannedRun, resume: bool) -> dict[str, Any]:
    """Every field: options with single values, by their dotted names, and values that follow from them.

    Args:
        config: configuration of the run.
        planned: the planned run.
        resume: whether the program was started for this run before.
    """
    shape, folder = planned.shape, planned.folder.absolute()
    return options_in(config) | {
        "lr": planned.lr_eff,
        "tokens": planned.tokens,
        "steps": planned.last_step,
        "first_tokens": planned.first_step * planned.batch_tokens,
        "first_step": planned.first_step,
        "batch_sequences": planned.batch_sequences,
        "params": int(params_total(shape.width, shape.depth, planned.vocab_size, shape.head_size)),
        "corpus": str(corpus_folder(config).absolute()),
        "folder": str(folder),
        "metrics": str(folder / METRICS),
        "identity": planned.identity,
        "name": planned.label,
        "parent": str(parent_folder(planned).absolute()) if planned.parent else "",
        "resume": int(resume),
        "python": sys.executable,
    }


def reads_corpus(config: TrainConfig) -> bool:
    """Whether the program gets the path of the prepared corpus; otherwise it has its own text."""
    return "corpus" in Template(config.trainer.command).names


def command_of(config: TrainConfig, planned: PlannedRun, resume: bool) -> list[str]:
    """The words of a run's command line."""
    return Template(config.trainer.command).filled(fields_of(config, planned, resume))


def environment_of(config: TrainConfig, planned: PlannedRun, resume: bool) -> dict[str, str]:
    """The program's environment: that of this process, the path for its metrics, and the number of threads of a run."""
    fields = fields_of(config, planned, resume)
    told = {f"SHAPELAW_{name.upper()}": str(fields[name]) for name in ("metrics", "folder", "identity", "resume")}
    threads = {"OMP_NUM_THREADS": str(config.threads)} if config.threads else {}
    return {**threads, **os.environ, **told}
