"""What the slurm launchers can be told: one dataclass, the schema of conf/hydra/launcher/SITE.yaml."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class SlurmSettings:
    """A SLURM site and how a sweep is run on it. A site file starts `defaults: [slurm, _self_]` and sets what differs."""

    partition: str | None = None
    """sbatch's; so are the next three."""
    account: str | None = None
    """Project that pays."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that nodes must have."""
    gpu_type: str | None = None
    """Type in the request for GPUs (--gres=gpu:TYPE:COUNT); null asks for any."""
    gpus_per_node: int = 0
    """This and the next five: resources of cells that leave theirs open (resources.gpus_per_node=null and so on)."""
    tasks_per_node: int | None = None
    """Processes a node; null is one per GPU, at least one."""
    cpus_per_task: int = 1
    """Cores of each process."""
    mem_gb: float | None = None
    """Memory a node; 0 is all of it, null the site's own default."""
    timeout_min: int = 120
    """Time limit of one job."""
    timeout_by_nodes: dict[int, int] = field(default_factory=dict)
    """Time limit in minutes from so many nodes on, where the site's limit grows with the job; wins over timeout_min."""
    signal_seconds: int = 120
    """How long before the time limit the job is told to checkpoint and is requeued."""
    max_jobs: int = 0
    """Jobs of the sweep running at once, shared out over its arrays, each at least one; branches count apart. 0 is no limit."""
    max_array_size: int = 0
    """Jobs of one array at most; 0 is what the site allows (MaxArraySize), which holds in any case."""
    pack: int = 1
    """Cells in one job, side by side on its node and GPUs; for cells of one node and one task."""
    setup: list[str] = field(default_factory=list)
    """Shell lines before the job: modules, virtual environment."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables of the job; never interpreted by the shell."""
    srun: list[str] = field(default_factory=list)
    """Further arguments of srun."""
    sbatch: dict[str, Any] = field(default_factory=dict)
    """Further options of sbatch, without the dashes: {reservation: NAME}."""
    python: str | None = None
    """The job's Python; null is this one. It must be reachable from the nodes."""
    wait: bool = False
    """Whether to stay and show the cells until all have ended; else submit and leave."""
    stop_on_failure: bool = False
    """Whether the first failed cell cancels the others; needs wait."""
    max_attempts: int = 3
    """How often a failing cell is submitted, over all starts of the sweep."""
    poll_seconds: float = 10.0
    """With wait: seconds between two questions to the accounting; at least 10."""


@dataclass
class PlanSettings:
    """How a dry run estimates."""

    device: str = "this"
    """Device of the estimated hours: this machine's, or a rated one: MI250, A100, H100, ..."""
