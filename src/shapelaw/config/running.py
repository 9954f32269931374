"""Options of how a run is carried out and recorded; none of them changes what it computes."""

from __future__ import annotations

from typing import Any

from shapelaw.config.option import option, record
from shapelaw.config.parts import refuse_options, refuse_unknown
from shapelaw.config.values import Keep, ParallelKind, WhenUnreachable, file_name
from shapelaw.errors import UserError
from shapelaw.plugins import is_reference

BUILTIN, COMMAND = "builtin", "command"
"""What can train a run."""

TRACKERS = ("mlflow", "wandb", "both", "none")
IN_MLFLOW, IN_WANDB = ("mlflow", "both"), ("wandb", "both")
"""Choices of tracker by which a store has the runs."""


@record("resources")
class ResourcesConfig:
    """What a run asks of a cluster; null is the launcher's own default. Never part of a run's identity."""

    nodes: int = option("Nodes of one job.", default=1, low=1)
    gpus_per_node: int | None = option("GPUs of each node.", default=None, low=0)
    tasks_per_node: int | None = option("Processes on each node, one per device.", default=None, low=1)
    cpus_per_task: int | None = option("Processor cores of each process.", default=None, low=1)
    mem_gb: float | None = option("Memory of each node; 0 is all of it.", default=None, low=0, unit="GB")
    timeout_min: int | None = option(
        "Time limit of one job; a run that needs longer is requeued and continues.",
        default=None,
        low=1,
        unit="minutes",
    )


@record("attention")
class AttentionConfig:
    """Attention back end."""

    name: str = option("sdpa (torch's own) or flash (the package flash-attn, on a GPU).")


@record("parallel")
class ParallelConfig:
    """How one run is shared out over its processes. Never part of its identity: results agree to the order of sums."""

    kind: ParallelKind = option("auto: single for one process, ddp for several.")
    row: int = option(
        "axonn: processes that share out heads, the MLP's hidden features and the head's vocabulary.", default=1, low=1
    )
    column: int = option("axonn: processes that share out the residual stream's features.", default=1, low=1)
    depth: int = option(
        "axonn: processes that share out every matrix as it is stored, and the batch.", default=1, low=1
    )
    data: int | None = option(
        "axonn: copies of the model, which share out the batch; null uses all processes that the other degrees leave.",
        default=None,
        low=1,
    )


@record("trainer")
class TrainerConfig:
    """What trains the runs: shapelaw itself, or a program of one's own (docs/your_trainer.md)."""

    name: str = option("What trains the runs.", default=BUILTIN, choices=(BUILTIN, COMMAND))
    command: str = option(
        "command: the program's command line. {shape.width}, {lr}, {tokens}, {folder} and the like are filled in; no shell "
        "reads it. The command line, and the options and scripts that it names, are part of the identity.",
        default="",
    )
    files: list[str] = option(
        "command: further files that the program reads, as paths or patterns (src/**/*.py); their content is part of the "
        "identity.",
        default_factory=list,
    )
    stop_seconds: float = option(
        "command: how long the program may take to end after SIGTERM before it is killed.",
        default=15.0,
        low=0,
        unit="seconds",
    )

    def check(self) -> None:
        """A command is there if and only if it is read."""
        if self.name == COMMAND and not self.command.strip():
            raise UserError(
                "trainer=command: trainer.command is empty; give the program's command line, such as "
                "'trainer.command=\"python train.py --width {shape.width} --lr {lr} --out {folder}\"'"
            )
        if self.name == BUILTIN and (self.command or self.files):
            raise UserError(
                "trainer.command, trainer.files: only trainer=command reads them; give it too, or leave them out"
            )


@record("sweep")
class SweepConfig:
    """What a sweep is called beside others of its experiment."""

    name: str | None = option(
        "Name of the sweep that a run belongs to, which is a column of the runs table; part of the identity.",
        default=None,
    )

    def check(self) -> None:
        """A name that conditions and pages can hold."""
        if self.name is not None:
            file_name("sweep.name", self.name)


@record("checkpoint")
class CheckpointConfig:
    """Checkpoints."""

    every_tokens: float = option(
        "Tokens between checkpoints, rounded up to whole steps; the end of the run is saved too.",
        above=0,
        unit="tokens",
    )
    keep: Keep = option("Which checkpoints stay on disk.")
    newest: int = option("How many checkpoints stay with keep=newest.", default=2, low=1)


@record("tracker")
class TrackerConfig:
    """Where runs are recorded."""

    name: str = option(
        "What records the runs: mlflow, wandb, both, none (only their folders), or your own tracker, given as "
        "tracker=path/to/file.py:NAME or tracker=package.module:NAME (docs/your_model.md). Fits go to MLflow, or stay in "
        "their folders.",
    )
    options: dict[str, Any] = option("Options that your own tracker is called with.", default_factory=dict)
    offline: bool = option(
        "wandb, both: whether wandb's records stay in the runs' folders, for `wandb sync`, or go to its server.",
        default=False,
    )
    uri: str = option(
        "Tracking URI of a database or a server, without a password; a URI with its password belongs in "
        "MLFLOW_TRACKING_URI.",
        default="",
    )
    artifacts: str = option("Artifact root of new experiments in a database store (a server has its own).", default="")
    log_every_steps: int = option("How often training metrics are recorded.", default=10, low=1, unit="steps")
    when_unreachable: WhenUnreachable = option(
        "What a command does if the store does not answer at its start: refuse to start, or spool (record in "
        "the runs' folders, and deliver once the store answers). Runs that have started never stop for the store.",
        default=WhenUnreachable.refuse,
    )
    finish_seconds: float = option(
        "How long a run waits at its end for a slow or absent store; the remaining records are delivered later.",
        default=30.0,
        low=0,
        unit="seconds",
    )
    experiment_id: str | None = option("Set by the launching process for its jobs.", default=None)
    parent_run_id: str | None = option(
        "Set by the launching process for its jobs: the MLflow run of the sweep.", default=None
    )

    def check(self) -> None:
        """A tracker that is known, and options for who reads them."""
        refuse_unknown("tracker", self.name, TRACKERS)
        refuse_options("tracker", self.name, self.options, self.own)

    @property
    def own(self) -> bool:
        """Whether it is a user's."""
        return is_reference(self.name)

    @property
    def in_mlflow(self) -> bool:
        """Whether MLflow records the runs."""
        return self.name in IN_MLFLOW

    @property
    def in_wandb(self) -> bool:
        """Whether wandb records the runs."""
        return self.name in IN_WANDB


@record("search")
class SearchConfig:
    """Which trial of a search a run is; set by the launching process."""

    study: str | None = option("Name of the study that this run is a trial of.", default=None)
    storage: str = option("Database URL of the study.", default="")
    trial: int | None = option("Number of the trial.", default=None, low=0)
    pruner: Any = option("Configuration of one of Optuna's pruners.", default=None)


@record("limits")
class LimitsConfig:
    """What may be started on this machine without `force=true`."""

    hours: float = option("Most estimated hours of the whole sweep on this machine.", low=0, unit="hours")
    memory_share: float = option(
        "Most estimated memory of a step, as a share of the device's; on a CPU a run may use only its threads' part of that.",
        low=0,
    )
    memory_gb: float | None = option(
        "Most memory of a step, in 1e9 bytes, instead of limits.memory_share.", default=None, above=0, unit="GB"
    )
