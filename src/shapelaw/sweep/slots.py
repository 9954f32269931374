"""The GPU of a job on this machine: each job takes the one with the fewest jobs, and sees no other."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from shapelaw.config.values import whole
from shapelaw.devices import RUNS_PER_GPU_VARIABLE, cores, gpu_names
from shapelaw.sweep.task import TakesGpus, Task


class Slots:
    """Capacity for jobs.

    Args:
        names: names of the GPUs, as in CUDA_VISIBLE_DEVICES; none for jobs on the CPU.
        each: GPUs that one job takes.
        workers: jobs at once; 0 means one per core, or as many as can have their own GPUs.
    """

    def __init__(self, names: Sequence[str], each: int, workers: int) -> None:
        self.load, self.each = dict.fromkeys(names, 0), each
        own = len(names) // each if names else cores()
        self.workers = workers or own
        self.sharing = -(-self.workers * each // len(names)) if names else 1

    def take(self) -> dict[str, str]:
        """Environment of a job that starts: its GPUs, and the number of jobs that share their memory."""
        if not self.load:
            return {}
        taken = sorted(self.load, key=self.load.__getitem__)[: self.each]
        for name in taken:
            self.load[name] += 1
        return {"CUDA_VISIBLE_DEVICES": ",".join(taken), RUNS_PER_GPU_VARIABLE: str(self.sharing)}

    def give_back(self, environment: dict[str, str]) -> None:
        """Release the GPUs of a job that ended."""
        for name in filter(None, environment.get("CUDA_VISIBLE_DEVICES", "").split(",")):
            self.load[name] -= 1


def slots_of(task: Task, configs: Sequence[DictConfig], workers: int) -> Slots:
    """The capacity of this machine for the jobs of a task, which has checked the machine.

    Raises:
        UserError: if the number of workers is negative.
    """
    whole("hydra.launcher.workers", workers, 0)
    each = task.gpus(configs) if isinstance(task, TakesGpus) else 0
    names = gpu_names() if each else ()
    assert each <= len(names)
    return Slots(names, each, workers)
