"""The GPU of a job on this machine: each job takes the one with the fewest jobs, and sees no other."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from shapelaw.config.values import whole
from shapelaw.devices import RUNS_PER_GPU_VARIABLE, cores, gpu_names
from shapelaw.sweep.task import TakesGpus, Task


class Slots:
    """Room for jobs.

    Args:
        names: of the GPUs, as CUDA_VISIBLE_DEVICES has them; none for jobs on the processor.
        each: GPUs that one job takes.
        workers: jobs at once; 0 is one per core, or as many as have GPUs of their own.
    """

    def __init__(self, names: Sequence[str], each: int, workers: int) -> None:
        self.load, self.each = dict.fromkeys(names, 0), each
        own = len(names) // each if names else cores()
        self.workers = workers or own
        self.sharing = -(-self.workers * each // len(names)) if names else 1

    def take(self) -> dict[str, str]:
        """Environment of a job that starts: its GPUs, and by how many their memory is shared out."""
        if not self.load:
            return {}
        taken = sorted(self.load, key=self.load.__getitem__)[: self.each]
        for name in taken:
            self.load[name] += 1
        return {"CUDA_VISIBLE_DEVICES": ",".join(taken), RUNS_PER_GPU_VARIABLE: str(self.sharing)}

    def give_back(self, environment: dict[str, str]) -> None:
        """What a job that ended had taken."""
        for name in filter(None, environment.get("CUDA_VISIBLE_DEVICES", "").split(",")):
            self.load[name] -= 1


def slots_of(task: Task, configs: Sequence[DictConfig], workers: int) -> Slots:
    """The room that this machine, which the task has checked, has for its jobs.

    Raises:
        UserError: if the workers are fewer than none.
    """
    whole("hydra.launcher.workers", workers, 0)
    each = task.gpus(configs) if isinstance(task, TakesGpus) else 0
    names = gpu_names() if each else ()
    assert each <= len(names)
    return Slots(names, each, workers)
