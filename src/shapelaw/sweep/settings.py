"""The options of launchers and the search: the records of conf/hydra/launcher and conf/hydra/sweeper/optuna.yaml."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from shapelaw.config.option import option, record
from shapelaw.config.values import file_name
from shapelaw.errors import UserError
from shapelaw.secrets import refuse_password

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FLAG = re.compile(r"[a-z][a-z0-9_-]*")
"""Names of the environment's variables and of sbatch's options."""


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of the settings, including names, with its dotted key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for held in value:
            yield from _texts(held, key)
    elif isinstance(value, dict):
        for name, held in value.items():
            yield from _texts(name, key)
            yield from _texts(held, f"{key}.{name}" if key else str(name))


@record("hydra.launcher")
class SiteSettings:
    """Default resources of a sweep's jobs on a cluster."""

    device: str | None = option(
        "Rated device that each GPU of a node is (MI250X, A100, ...), by which the plan estimates hours and memory here.",
        default=None,
    )
    gpu_type: str | None = option(
        "Type in the request for GPUs (SLURM: --gres=gpu:TYPE:COUNT, Ray: accelerator_type); null asks for any.",
        default=None,
    )
    gpus_per_node: int = option(
        "GPUs on each node, for runs that leave theirs open (resources.gpus_per_node=null).", default=0, low=0
    )
    tasks_per_node: int | None = option(
        "Processes on each node, for runs that leave theirs open; null is one per GPU, at least one.",
        default=None,
        low=1,
    )
    cpus_per_task: int = option("Processor cores of each process, for runs that leave theirs open.", default=1, low=1)
    mem_gb: float | None = option(
        "Memory of each node, for runs that leave theirs open; null takes the site's default, 0 all of it (on Ray both "
        "reserve none).",
        default=None,
        low=0,
        unit="GB",
    )
    environment: dict[str, str] = option(
        "Environment variables of the job; never interpreted by the shell.", default_factory=dict
    )

    def time_limit(self, nodes: int) -> int:
        """Time limit in minutes of a job on this number of nodes; 0 means no limit."""
        return 0


@record("hydra.launcher")
class SlurmSettings(SiteSettings):
    """A SLURM site and how a sweep is run on it. A site file starts `defaults: [slurm, _self_]` and sets what differs."""

    partition: str | None = option("Partition that sbatch is given.", default=None)
    account: str | None = option("Project that pays.", default=None)
    qos: str | None = option("Quality of service.", default=None)
    constraint: str | None = option("Features that nodes must have.", default=None)
    timeout_min: int = option(
        "Time limit of one job, for runs that leave theirs open.", default=120, low=1, unit="minutes"
    )
    timeout_by_nodes: dict[int, int] = option(
        "Number of nodes -> time limit in minutes from that number on, for a site whose limit grows with the job; overrides "
        "timeout_min.",
        default_factory=dict,
    )
    signal_seconds: int = option(
        "Time before the limit at which the job is told to checkpoint and is requeued.",
        default=120,
        low=0,
        unit="seconds",
    )
    max_jobs: int = option(
        "Most jobs of the sweep at once, shared out over its arrays, at least one for each; branches count separately. 0 means "
        "no limit.",
        default=0,
        low=0,
    )
    max_array_size: int = option(
        "Most jobs of one array; 0 takes the site's limit (MaxArraySize), which always holds.",
        default=0,
        low=0,
    )
    pack: int = option(
        "Runs in one job, side by side on its node and GPUs; for runs of one node and one task.", default=1, low=1
    )
    setup: list[str] = option("Shell lines before the job: modules, virtual environment.", default_factory=list)
    srun: list[str] = option("Further arguments of srun.", default_factory=list)
    sbatch: dict[str, Any] = option(
        "Further options of sbatch, without the dashes: {reservation: NAME}.", default_factory=dict
    )
    python: str | None = option(
        "The job's Python; null is this one. It must be reachable from the nodes.", default=None
    )
    wait: bool = option(
        "Whether to stay and show the runs until all have ended, or to submit and leave.", default=False
    )
    stop_on_failure: bool = option("Whether the first failed run cancels the others; needs wait.", default=False)
    max_attempts: int = option("How often a failing run is submitted, over all starts of the sweep.", default=3, low=1)
    poll_seconds: float = option(
        "With wait: seconds between two queries of the accounting; at least 10.", default=10.0, low=0, unit="seconds"
    )

    def time_limit(self, nodes: int) -> int:
        steps = [minutes for minimum, minutes in sorted(self.timeout_by_nodes.items()) if nodes >= minimum]
        return steps[-1] if steps else self.timeout_min

    def check(self) -> None:
        """Refuse line breaks and invalid names, because the settings become lines of a script with unquoted names."""
        for key, text in _texts(asdict(self)):
            if not text.isprintable():
                raise UserError(f"hydra.launcher.{key}={text!r}: allowed characters are printable ones on one line")
        for name in self.environment:
            if not VARIABLE.fullmatch(name):
                raise UserError(
                    f"hydra.launcher.environment={name!r}: allowed characters are letters, digits and _, no digit first"
                )
        for name in self.sbatch:
            if not FLAG.fullmatch(name):
                raise UserError(
                    f"hydra.launcher.sbatch={name!r}: "
                    "allowed values are sbatch's own options without dashes, such as reservation"
                )


@record("hydra.launcher")
class RaySettings(SiteSettings):
    """A Ray cluster and how a sweep is run on it. A site file starts `defaults: [ray, _self_]` and sets what differs."""

    address: str | None = option(
        "HOST:PORT of a running cluster, of which this machine is a node; auto finds the one that runs on this machine; local "
        "starts Ray here, for this sweep alone. null is RAY_ADDRESS, and local without it.",
        default=None,
    )
    resources: dict[str, float] = option(
        "Further resources of Ray that each run takes: {NAME: AMOUNT}, as nodes were started with.",
        default_factory=dict,
    )
    wait_for_nodes: bool = option(
        "Whether runs for which no node is large enough wait for one, as on a cluster that grows by itself, or are refused.",
        default=False,
    )
    max_attempts: int = option(
        "How often one start of the sweep starts a run whose worker or node is lost.", default=3, low=1
    )
    stop_on_failure: bool = option("Whether the first failed run stops the sweep.", default=False)


@record("hydra.launcher")
class PlanSettings:
    """How a dry run estimates."""

    device: str | None = option(
        "Device of the estimated hours: `this` machine's, or a rated one: MI250X (each of its two dies is one), A100, "
        "H100, ... null is the site's, or this machine's without a site.",
        default=None,
    )
    site: str | None = option(
        "Launcher of the cluster that the sweep is planned for (slurm, frontier, ray, ...): its nodes share out every run, and "
        "its time limits cut a run into jobs. null leaves both out.",
        default=None,
    )


@record("hydra.sweeper")
class SearchSettings:
    """How Optuna searches."""

    n_trials: int = option(
        "Trials of every study, over all starts, failed and pruned ones included.", default=20, low=1
    )
    study_name: str | None = option(
        "Name of the study, or the beginning of all names if there are several; null derives it from the searched options.",
        default=None,
    )
    storage: str = option("Database URL of the studies.", default="")
    max_failure_rate: float = option(
        "Share of n_trials that may fail (diverge) before a study is given up.", default=0.5, low=0, high=1
    )
    sampler: Any = option("hydra/sweeper/sampler: tpe, random, gp, cmaes, qmc, nsgaii, nsgaiii.", default=None)
    pruner: Any = option("hydra/sweeper/pruner: median, percentile, halving, none.", default=None)

    def check(self) -> None:
        """Check the study's name, which is also a file's name, and its address, which is written into records."""
        if self.study_name:
            file_name("hydra.sweeper.study_name", self.study_name)
        refuse_password("hydra.sweeper.storage", self.storage)
