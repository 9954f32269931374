"""Which jobs of a sweep to submit to SLURM now, and how: sbatch tests them first, then takes them array by array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from shapelaw.errors import UserError
from shapelaw.sweep import records
from shapelaw.sweep.accounting import UNDER_WAY, Report, Standing, call, max_array_size
from shapelaw.sweep.local import SweepFailed, with_values
from shapelaw.sweep.records import Work
from shapelaw.sweep.resources import Resources, resources_of, spread_over
from shapelaw.sweep.sbatch import Array, arrays_of, branches_of, script_of, submit
from shapelaw.sweep.settings import SlurmSettings
from shapelaw.sweep.task import Job, Task, sweep_identity
from shapelaw.wording import counted


@dataclass
class Sweep:
    """The distinct jobs of a sweep, by their identities."""

    task: Task
    configs: Sequence[DictConfig]
    """Configurations of all runs, including equal ones."""
    jobs: dict[str, Job]
    resources: dict[str, Resources]
    places: dict[str, int]
    """Index of a job's configuration."""
    site: SlurmSettings

    @property
    def root(self) -> Path:
        """Folder of the launcher's records."""
        return Path(str(self.configs[0].outputs_dir)) / "slurm"

    @property
    def label(self) -> str:
        return sweep_identity(list(self.jobs.values()))

    def work(self, job: Job, shared: Mapping[str, Any]) -> Work:
        """The work of a job: its resolved configuration, with the values that all jobs share and its nodes and devices."""
        config, resources = self.configs[self.places[job.identity]], self.resources[job.identity]
        OmegaConf.resolve(config)
        values = {**shared, **job.settings, **spread_over(config, resources)}
        return Work(self.task, with_values(config, values), job.folder.absolute())


def sweep_of(task: Task, configs: Sequence[DictConfig], jobs: Sequence[Job], site: SlurmSettings) -> Sweep:
    """The sweep of checked jobs.

    Raises:
        UserError: for the first job that the site's settings do not fit.
    """
    places: dict[str, int] = {}
    for place, job in enumerate(jobs):
        places.setdefault(job.identity, place)
    unique = {identity: jobs[place] for identity, place in places.items()}
    resources = {identity: resources_of(job, site) for identity, job in unique.items()}
    return Sweep(task, configs, unique, resources, places, site)


def to_submit(sweep: Sweep, reports: Mapping[str, Report]) -> list[str]:
    """New runs, and failed ones with attempts left, unless the run that they continue failed for good."""
    todo = [i for i, report in reports.items() if report.standing is Standing.new or _again(sweep, report)]
    hopeless = {i for i, report in reports.items() if report.standing is Standing.failed and i not in todo}
    return [i for i in todo if sweep.jobs[i].after not in hopeless or sweep.jobs[i].after_ready]


def _again(sweep: Sweep, report: Report) -> bool:
    attempts = report.submission.attempt if report.submission else 0
    return report.standing is Standing.failed and attempts < sweep.site.max_attempts


def submit_all(sweep: Sweep, todo: Sequence[str], reports: Mapping[str, Report]) -> None:
    """Let sbatch test one job of every kind, then submit all.

    Raises:
        UserError: before anything is queued.
        SweepFailed: if some arrays are queued and the next is refused, for example by a limit on a user's jobs.
    """
    longest = max_array_size()
    longest = min(sweep.site.max_array_size or longest, longest)
    _test(sweep, todo)
    shared = sweep.task.begin(sweep.configs, list(sweep.jobs.values()))
    queued: dict[str, int] = {}
    for array, limit in _arrays(sweep, todo, reports, longest):
        try:
            queued[_hand_over(sweep, array, limit, shared)] = len(array.runs)
        except UserError as error:
            if not queued:
                raise
            raise SweepFailed(
                f"{error}; {sum(queued.values())} of {counted(len(todo), sweep.task.noun)} are queued (to stop them: scancel "
                f"{' '.join(queued)}); the same command submits the others"
            ) from error


def queued_report(job: Job) -> Report:
    """The report of a job that was just submitted, or found in the queue."""
    submission = records.submission_of(job.folder)
    assert submission is not None
    array = records.job_id_of(Path(submission.batch))
    return Report(Standing.queued, job=f"{array}_{submission.task}", submission=submission)


def _arrays(
    sweep: Sweep, todo: Sequence[str], reports: Mapping[str, Report], longest: int
) -> Iterator[tuple[Array, int]]:
    """Arrays and their limits of jobs at once: those without dependencies, then, once these have ids, their continuations."""
    branches = {i for i in todo if _awaits(sweep, i, todo, reports)}
    free = [(sweep.jobs[i], sweep.resources[i]) for i in todo if i not in branches]
    arrays = arrays_of(free, longest, sweep.site.pack)
    limits = _limits(sweep.site.max_jobs, [len(array.tasks) for array in arrays])
    yield from zip(arrays, limits, strict=True)
    waiting = [(sweep.jobs[i], sweep.resources[i], _job_before(sweep, i)) for i in todo if i in branches]
    for array in branches_of(waiting, sweep.site.pack):
        yield array, sweep.site.max_jobs


def _awaits(sweep: Sweep, identity: str, todo: Sequence[str], reports: Mapping[str, Report]) -> bool:
    """Whether a run must wait for the job of the run that it continues."""
    after = sweep.jobs[identity].after
    if after is None or after not in reports:
        return False
    under_way = reports[after].standing in UNDER_WAY and reports[after].job is not None
    return after in todo or under_way


def _job_before(sweep: Sweep, identity: str) -> str:
    """SLURM's job of the run that another continues."""
    after = sweep.jobs[identity].after
    assert after is not None
    job = queued_report(sweep.jobs[after]).job
    assert job is not None
    return job


def _test(sweep: Sweep, todo: Sequence[str]) -> None:
    """Ask sbatch whether it would accept one job of every kind, before anything is queued."""
    kinds = {sweep.resources[identity]: sweep.jobs[identity] for identity in todo}
    batch = records.new_batch(sweep.root, "test")
    try:
        for resources, job in kinds.items():
            script = batch / "script.sh"
            script.write_text(script_of(Array(resources, {0: (job,) * sweep.site.pack}), batch, sweep.site, 0))
            try:
                call("sbatch", "--test-only", str(script))
            except UserError as error:
                raise UserError(f"{job.label} is refused, nothing was queued: {error}") from None
    finally:
        (batch / "script.sh").unlink(missing_ok=True)
        (batch / "runs").rmdir()
        batch.rmdir()


def _hand_over(sweep: Sweep, array: Array, limit: int, shared: Mapping[str, Any]) -> str:
    """Record an array, submit it, and record its id."""
    batch = records.new_batch(sweep.root, sweep.label)
    records.fill_batch(batch, array.tasks, lambda job: sweep.work(job, shared))
    try:
        job_id = submit(array, batch, sweep.site, limit)
    except UserError:
        records.withdraw(array.tasks)
        raise
    records.write_job_id(batch, job_id)
    return job_id


def _limits(total: int, sizes: Sequence[int]) -> list[int]:
    """The limit of jobs at once, divided among arrays by their sizes; 0 means none."""
    if not total:
        return [0] * len(sizes)
    return [max(1, total * size // sum(sizes)) for size in sizes]
