"""The resources of a job on a cluster: its own request if it has one, else the site's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from omegaconf import DictConfig

from shapelaw.errors import UserError
from shapelaw.sweep.settings import RaySettings, SiteSettings, SlurmSettings
from shapelaw.sweep.task import Job

ANY_OF_A_TYPE = 0.001
"""Share of a node's accelerators of a type that a job asks of Ray, to get such a node without using any up."""


@dataclass(frozen=True)
class Resources:
    """Resources of one job; jobs with equal resources go into one array.

    Args:
        nodes: number of nodes.
        gpus_per_node, tasks_per_node, cpus_per_task: on each node.
        mem_gb: memory of each node; 0 means all of it, None the site's default.
        timeout_min: time limit; 0 means none.
    """

    nodes: int
    gpus_per_node: int
    tasks_per_node: int
    cpus_per_task: int
    mem_gb: float | None
    timeout_min: int

    @property
    def tasks(self) -> int:
        """Processes over all nodes."""
        return self.nodes * self.tasks_per_node

    def packed(self, count: int) -> Resources:
        """The job that holds `count` such runs side by side on the same GPUs."""
        if count == 1:
            return self
        memory = self.mem_gb * count if self.mem_gb else self.mem_gb
        cpus = self.cpus_per_task * count
        return Resources(self.nodes, self.gpus_per_node, self.tasks_per_node, cpus, memory, self.timeout_min)


def resources_of(job: Job, site: SiteSettings) -> Resources:
    """A job's resources on a site.

    Raises:
        UserError: if its batch cannot be split over its processes, or the site cannot run it this way.
    """
    request = job.request
    gpus = site.gpus_per_node if request.gpus_per_node is None else request.gpus_per_node
    resources = Resources(
        nodes=request.nodes,
        gpus_per_node=gpus,
        tasks_per_node=request.tasks_per_node or site.tasks_per_node or max(gpus, 1),
        cpus_per_task=request.cpus_per_task or site.cpus_per_task,
        mem_gb=site.mem_gb if request.mem_gb is None else request.mem_gb,
        timeout_min=request.timeout_min or site.time_limit(request.nodes),
    )
    if isinstance(site, RaySettings) and resources.nodes > 1:
        raise UserError(
            f"resources.nodes={resources.nodes} ({job.label}): hydra/launcher=ray trains each run on one node; give "
            "resources.nodes=1"
        )
    _check_tasks(job, resources)
    if isinstance(site, SlurmSettings):
        _check_pack(job, resources, site.pack)
    return resources


def _check_pack(job: Job, resources: Resources, pack: int) -> None:
    """Refuse runs of several processes in one job."""
    if pack > 1 and resources.tasks > 1:
        raise UserError(
            f"hydra.launcher.pack={pack}: only runs of one node and one task can be packed; {job.label} takes "
            f"{resources.tasks} processes; give pack=1, or resources.tasks_per_node=1"
        )


def _check_tasks(job: Job, resources: Resources) -> None:
    """Refuse processes among which a job cannot be divided."""
    tasks = resources.tasks
    if job.check_tasks:
        job.check_tasks(tasks)
    elif tasks > 1 and not job.splits:
        raise UserError(
            f"{job.label}: takes one process, but would get {tasks} ({resources.tasks_per_node} tasks a node); give "
            "hydra.launcher.tasks_per_node=1, and hydra.launcher.gpus_per_node=0 unless it uses a GPU"
        )
    elif tasks > 1 and job.splits % tasks:
        raise UserError(
            f"{job.label}: resources.nodes={resources.nodes} with {resources.tasks_per_node} tasks a node are {tasks} "
            f"processes, which do not divide its batch of {job.splits} sequences; give another resources.nodes or "
            "resources.tasks_per_node"
        )


def has_gpus(config: DictConfig, site: SiteSettings) -> bool:
    """Whether a run gets GPUs, by its own resources or the site's."""
    gpus = config.resources.gpus_per_node if "resources" in config else 0
    return bool(site.gpus_per_node if gpus is None else gpus)


def spread_over(config: DictConfig, resources: Resources) -> dict[str, int]:
    """Settings that make a run use all of its processes."""
    values = {"num_nodes": resources.nodes, "devices": resources.tasks_per_node}
    return {key: value for key, value in values.items() if key in config}


def asked_of_ray(resources: Resources, site: RaySettings) -> dict[str, float]:
    """Resources of a run on the node that Ray chooses for it, by Ray's names; memory in bytes.

    >>> asked_of_ray(Resources(1, 2, 2, 4, 16, 0), RaySettings(gpu_type="A100", resources={"scratch": 1}))
    {'CPU': 8, 'GPU': 2, 'memory': 17179869184, 'accelerator_type:A100': 0.001, 'scratch': 1}
    """
    asked: dict[str, float] = {"CPU": resources.cpus_per_task * resources.tasks_per_node}
    if resources.gpus_per_node:
        asked["GPU"] = resources.gpus_per_node
    if resources.mem_gb:
        asked["memory"] = round(resources.mem_gb * 2**30)
    if site.gpu_type and resources.gpus_per_node:
        asked[f"accelerator_type:{site.gpu_type}"] = ANY_OF_A_TYPE
    return asked | site.resources


def said_of_ray(asked: Mapping[str, float]) -> str:
    """These resources in words.

    >>> said_of_ray({"CPU": 8, "GPU": 2, "memory": 2**34, "accelerator_type:A100": 0.001, "scratch": 0.5})
    'CPU 8, GPU 2, memory 16 GiB, accelerator_type:A100 0.001, scratch 0.5'
    """
    return ", ".join(
        f"{name} {amount / 2**30:.4g} GiB" if name == "memory" else f"{name} {amount:g}"
        for name, amount in asked.items()
    )
