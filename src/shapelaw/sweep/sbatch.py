"""Arrays of jobs and their submission by sbatch; submitit writes the script and calls it."""

from __future__ import annotations

import shlex
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapelaw.errors import UserError
from shapelaw.sweep import submitit_internals
from shapelaw.sweep.accounting import own_words
from shapelaw.sweep.resources import Resources
from shapelaw.sweep.settings import SlurmSettings
from shapelaw.sweep.task import Job


@dataclass(frozen=True)
class Array:
    """Jobs with equal resources that are submitted by one call.

    Args:
        resources: resources of each job, for one of its runs.
        tasks: job number -> its runs; more than one if runs are packed.
        after: id of an array whose job of the same number must succeed before a job starts.
    """

    resources: Resources
    tasks: Mapping[int, tuple[Job, ...]]
    after: str | None = None

    @property
    def runs(self) -> list[Job]:
        """All runs of all its jobs."""
        return [job for runs in self.tasks.values() for job in runs]


def arrays_of(jobs: Sequence[tuple[Job, Resources]], longest: int, pack: int) -> list[Array]:
    """Jobs without dependencies, the most expensive first, as arrays of at most `longest` jobs of `pack` runs."""
    groups: dict[Resources, list[Job]] = defaultdict(list)
    for job, resources in sorted(jobs, key=lambda pair: -pair[0].cost):
        groups[resources].append(job)
    arrays = []
    for resources, members in groups.items():
        packs = [tuple(members[start : start + pack]) for start in range(0, len(members), pack)]
        for start in range(0, len(packs), longest):
            arrays.append(Array(resources, dict(enumerate(packs[start : start + longest]))))
    return arrays


def branches_of(jobs: Sequence[tuple[Job, Resources, str]], pack: int) -> list[Array]:
    """Jobs that each continue a submitted job, `ARRAY_NUMBER`, as arrays whose jobs follow those jobs number by number.

    SLURM's aftercorr lets job i of an array start after job i of another has succeeded. If several jobs continue the same
    one, each goes into a separate array, so there are as many calls as branches of one run, rather than runs.
    """
    siblings: dict[tuple[str, int, Resources], list[Job]] = defaultdict(list)
    for job, resources, parent in sorted(jobs, key=lambda triple: triple[0].tokens):
        parent_array, place = parent.split("_")
        siblings[parent_array, int(place), resources].append(job)
    layers: dict[tuple[str, Resources, int], dict[int, tuple[Job, ...]]] = defaultdict(dict)
    for (array, number, resources), members in siblings.items():
        for layer, start in enumerate(range(0, len(members), pack)):
            layers[array, resources, layer][number] = tuple(members[start : start + pack])
    return [Array(resources, tasks, array) for (array, resources, _), tasks in layers.items()]


def submit(array: Array, batch: Path, site: SlurmSettings, limit: int) -> str:
    """Submit an array by sbatch; returns its id.

    Args:
        array: the jobs.
        batch: folder with their work, which also gets the script and the jobs' own output.
        site: the site's settings.
        limit: most of its jobs that run at once; 0 means no limit.

    Raises:
        UserError: with sbatch's own message.
    """
    try:
        return submitit_internals.submit(
            batch, _command(batch, site), _options(array, batch, site, limit), len(array.tasks)
        )
    except submitit_internals.Refused as error:
        raise UserError(f"sbatch: {own_words(str(error))}") from error


def script_of(array: Array, batch: Path, site: SlurmSettings, limit: int) -> str:
    """The script that `submit` passes to sbatch."""
    return submitit_internals.script_of(
        batch, _command(batch, site), _options(array, batch, site, limit), len(array.tasks)
    )


def _command(batch: Path, site: SlurmSettings) -> str:
    python = site.python or sys.executable
    return f"{shlex.quote(python)} -u -m shapelaw.sweep.work {shlex.quote(str(batch.absolute()))}"


def _options(array: Array, batch: Path, site: SlurmSettings, limit: int) -> dict[str, Any]:
    """Options of sbatch, as submitit names them."""
    pack = max(len(runs) for runs in array.tasks.values())
    resources = array.resources.packed(pack)
    options: dict[str, Any] = {
        "job_name": batch.name,
        "time": resources.timeout_min,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks_per_node,
        "cpus_per_task": resources.cpus_per_task,
        "signal_delay_s": site.signal_seconds,
        "stderr_to_stdout": True,
        "setup": [*(f"export {key}={shlex.quote(value)}" for key, value in site.environment.items()), *site.setup],
        # srun does not inherit cpus-per-task from sbatch; one process that fails ends the others
        "srun_args": [f"--cpus-per-task={resources.cpus_per_task}", "--kill-on-bad-exit=1", *site.srun],
        "additional_parameters": _further(array, resources, site, limit),
    }
    named = {"partition": site.partition, "account": site.account, "qos": site.qos, "constraint": site.constraint}
    options |= {key: value for key, value in named.items() if value is not None}
    if resources.mem_gb is not None:
        options["mem"] = "0" if resources.mem_gb == 0 else f"{round(resources.mem_gb * 1024)}M"
    return options


def _further(array: Array, resources: Resources, site: SlurmSettings, limit: int) -> dict[str, Any]:
    numbers = _ranges(sorted(array.tasks))
    further: dict[str, Any] = {"array": f"{numbers}%{limit}" if limit else numbers, "requeue": True}
    if resources.gpus_per_node:
        kind = f"{site.gpu_type}:" if site.gpu_type else ""
        further["gres"] = f"gpu:{kind}{resources.gpus_per_node}"
    if array.after:
        further |= {"dependency": f"aftercorr:{array.after}", "kill-on-invalid-dep": "yes"}
    return further | site.sbatch


def _ranges(numbers: Sequence[int]) -> str:
    """Ordered whole numbers in SLURM's notation: 0-3,7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)
