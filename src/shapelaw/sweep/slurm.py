"""A sweep on a SLURM cluster: submit what is missing and leave, or stay and watch. The same command again takes up where
it was: what is finished is skipped, what is queued or runs is left alone, what failed is submitted again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig
from rich.console import Console

from shapelaw.cell_state import read_state
from shapelaw.errors import UserError
from shapelaw.sweep import records
from shapelaw.sweep.accounting import Report, Standing, call, max_array_size, need, survey
from shapelaw.sweep.local import SweepFailed, set_values
from shapelaw.sweep.records import Work
from shapelaw.sweep.resources import Resources, resources_of
from shapelaw.sweep.sbatch import Array, arrays_of, branches_of, script_of, submit
from shapelaw.sweep.settings import SlurmSettings
from shapelaw.sweep.task import Job, Task, sweep_identity
from shapelaw.sweep.view import View, tail
from shapelaw.wording import counted

POLL_SECONDS = 10.0
UNDER_WAY = (Standing.queued, Standing.running)


@dataclass
class _Sweep:
    """The jobs of a sweep, once each, with what they run."""

    task: Task
    jobs: dict[str, Job]
    works: dict[str, Work]
    resources: dict[str, Resources]
    site: SlurmSettings
    root: Path

    @property
    def label(self) -> str:
        return sweep_identity(list(self.jobs.values()))


def launch(task: Task, configs: Sequence[DictConfig], site: SlurmSettings) -> list[JobReturn]:
    """Check every cell, then submit those that need it; returns one result per configuration.

    Raises:
        UserError: before anything is queued, for the first thing that is wrong, in sbatch's own words where it is its.
        SweepFailed: if cells failed and are not tried again, or not all could be queued.
    """
    need("sbatch", "srun", "scontrol", "squeue")
    _check(site)
    jobs = task.plan(configs)
    root = Path(str(configs[0].outputs_dir)) / "slurm"
    sweep = _Sweep(task, {}, {}, {}, site, root)
    for job, config in zip(jobs, configs, strict=True):
        if job.identity not in sweep.jobs:
            sweep.jobs[job.identity] = job
            sweep.resources[job.identity] = resources_of(job, site)
            sweep.works[job.identity] = Work(task, config, job.folder.absolute())
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with records.launcher_lock(root):
        reports = survey(list(sweep.jobs.values()))
        todo = _to_submit(sweep, reports)
        if todo:
            _submit(sweep, configs, todo, reports, console)
            for identity in todo:
                record = records.submission_of(sweep.jobs[identity].folder)
                assert record is not None
                array = records.job_id_of(Path(record.batch))
                reports[identity] = Report(Standing.queued, job=f"{array}_{record.task}", submission=record)
    if not todo:
        task.begin(configs, [job for job in jobs if job.done])  # what finished ones could not deliver; opens nothing
    _tell(sweep, reports, len(todo), console)
    if site.wait and any(report.standing in UNDER_WAY for report in reports.values()):
        reports = _watch(sweep, reports)
    failed = _failures(sweep, reports)
    if not any(report.standing in UNDER_WAY for report in reports.values()):
        task.end(configs, jobs, failed)
    if failed:
        raise SweepFailed(_advice(sweep, reports, failed))
    return [_result(config, job, reports[job.identity]) for config, job in zip(configs, jobs, strict=True)]


def _check(site: SlurmSettings) -> None:
    if site.stop_on_failure and not site.wait:
        raise UserError(
            "hydra.launcher.stop_on_failure=true: only a launcher that stays can cancel the others; give "
            "hydra.launcher.wait=true as well, or hydra.launcher.stop_on_failure=false"
        )


def _to_submit(sweep: _Sweep, reports: Mapping[str, Report]) -> list[str]:
    """New cells, and failed ones that have tries left, unless what they continue failed for good."""
    todo = [i for i, report in reports.items() if report.standing is Standing.new or _again(sweep, report)]
    hopeless = {i for i, report in reports.items() if report.standing is Standing.failed and i not in todo}
    return [i for i in todo if sweep.jobs[i].after not in hopeless or sweep.jobs[i].after_ready]


def _again(sweep: _Sweep, report: Report) -> bool:
    attempts = report.submission.attempt if report.submission else 0
    return report.standing is Standing.failed and attempts < sweep.site.max_attempts


def _submit(
    sweep: _Sweep, configs: Sequence[DictConfig], todo: Sequence[str], reports: Mapping[str, Report], console: Console
) -> None:
    """Let sbatch judge one job of every kind, then submit all.

    Raises:
        UserError: before anything is queued.
        SweepFailed: if some arrays are queued and the next is refused, as where a user may have so many jobs.
    """
    longest = max_array_size()
    longest = min(sweep.site.max_array_size or longest, longest)
    _test(sweep, todo)
    shared = sweep.task.begin(configs, list(sweep.jobs.values()))
    for identity in todo:
        _prepare(sweep, identity, shared)
    queued: dict[str, int] = {}
    for array, limit in _arrays(sweep, todo, reports, longest):
        try:
            queued[_hand_over(sweep, array, limit)] = len(array.cells)
        except UserError as error:
            if not queued:
                raise
            raise SweepFailed(
                f"{error}; {sum(queued.values())} of {counted(len(todo), sweep.task.noun)} are queued (to stop them: scancel "
                f"{' '.join(queued)}); the same command submits the others"
            ) from error


def _arrays(
    sweep: _Sweep, todo: Sequence[str], reports: Mapping[str, Report], longest: int
) -> Iterator[tuple[Array, int]]:
    """Arrays and their limits of jobs at once: what depends on nothing, then, once that has its ids, what continues it."""
    branches = {i for i in todo if _awaits(sweep, i, todo, reports)}
    free = [(sweep.jobs[i], sweep.resources[i]) for i in todo if i not in branches]
    arrays = arrays_of(free, longest, sweep.site.pack)
    limits = _limits(sweep.site.max_jobs, [len(array.tasks) for array in arrays])
    yield from zip(arrays, limits, strict=True)
    waiting = [(sweep.jobs[i], sweep.resources[i], _job_of(sweep, i, reports)) for i in todo if i in branches]
    for array in branches_of(waiting, sweep.site.pack):
        yield array, sweep.site.max_jobs


def _awaits(sweep: _Sweep, identity: str, todo: Sequence[str], reports: Mapping[str, Report]) -> bool:
    """Whether a cell must wait for a job of the cell that it continues."""
    after = sweep.jobs[identity].after
    if after is None or after not in reports:
        return False
    under_way = reports[after].standing in UNDER_WAY and reports[after].job is not None
    return after in todo or under_way


def _job_of(sweep: _Sweep, identity: str, reports: Mapping[str, Report]) -> str:
    """Job of the cell that a cell continues: the one just submitted, or the one found under way."""
    after = sweep.jobs[identity].after
    assert after is not None
    record = records.submission_of(sweep.jobs[after].folder)
    assert record is not None
    array = records.job_id_of(Path(record.batch))
    return f"{array}_{record.task}"


def _test(sweep: _Sweep, todo: Sequence[str]) -> None:
    """Ask sbatch whether it would take one job of every kind, before anything is queued."""
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
        (batch / "cells").rmdir()
        batch.rmdir()


def _prepare(sweep: _Sweep, identity: str, shared: Mapping[str, Any]) -> None:
    """Put into a cell's configuration what all share, and where it runs."""
    config, resources = sweep.works[identity].config, sweep.resources[identity]
    place = {"num_nodes": resources.nodes, "devices": resources.tasks_per_node}
    set_values(config, {**shared, **{key: value for key, value in place.items() if key in config}})


def _hand_over(sweep: _Sweep, array: Array, limit: int) -> str:
    """Write down what is submitted, submit it, note its id."""
    batch = records.new_batch(sweep.root, sweep.label)
    records.fill_batch(
        batch, {n: [(job, sweep.works[job.identity]) for job in cells] for n, cells in array.tasks.items()}
    )
    try:
        job_id = submit(array, batch, sweep.site, limit)
    except UserError:
        records.withdraw(array.tasks)
        raise
    records.write_job_id(batch, job_id)
    return job_id


def _limits(total: int, sizes: Sequence[int]) -> list[int]:
    """The limit of jobs at once, shared out over arrays by their sizes; 0 is none."""
    if not total:
        return [0] * len(sizes)
    return [max(1, total * size // sum(sizes)) for size in sizes]


def _tell(sweep: _Sweep, reports: Mapping[str, Report], submitted: int, console: Console) -> None:
    """What there is and what was done."""
    counts = Counter(report.standing.value for report in reports.values())
    words = ", ".join(f"{counts[standing.value]} {standing.value}" for standing in Standing if counts[standing.value])
    console.print(f"{counted(len(reports), sweep.task.noun)}: {words}; {submitted} submitted now")
    for identity, report in reports.items():
        if report.note:
            console.print(f"{sweep.jobs[identity].label}: {report.note}")
        if report.standing is Standing.failed:
            _tell_failure(sweep.jobs[identity], report, console)
    arrays = sorted({r.job.split("_")[0] for r in reports.values() if r.job and r.standing in UNDER_WAY}, key=int)
    if arrays and not sweep.site.wait:
        console.print(
            f"see them: the same command with hydra.launcher.wait=true; stop them: scancel {' '.join(arrays)}"
        )


def _tell_failure(job: Job, report: Report, console: Console) -> None:
    log = log_of(job, report)
    console.print(f"failed {job.label}: {report.reason}", markup=False)
    for line in tail(log):
        console.print(f"    {line}", markup=False)
    console.print(f"  its log: {log}", markup=False)


def log_of(job: Job, report: Report) -> Path:
    """The log that tells most of a failed cell: its own, or that of its job where it never came to its own."""
    own = job.folder / "log.txt"
    if report.submission is None or report.job is None:
        return own
    logs = sorted(Path(report.submission.batch).glob(f"{report.job}_*_log.out"))
    old = not own.exists() or own.stat().st_mtime < (Path(report.submission.batch) / "tasks.json").stat().st_mtime
    return logs[0] if old and logs else own


def _watch(sweep: _Sweep, reports: dict[str, Report]) -> dict[str, Report]:
    """Show the cells until all have ended; the accounting is asked at most every ten seconds."""
    jobs = list(sweep.jobs.values())
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with View(sweep.task.noun, [job for job in jobs if reports[job.identity].standing in UNDER_WAY]) as view:
        shown = {job.identity for job in view.todo}
        started: set[str] = set()
        while True:
            for identity in sorted(shown):
                report, job = reports[identity], sweep.jobs[identity]
                if report.standing is Standing.running and identity not in started:
                    started.add(identity)
                    view.started(job)
                if report.standing not in UNDER_WAY:
                    shown.remove(identity)
                    forgotten = "SLURM does not know it any more" if report.standing is Standing.new else ""
                    view.ended(job, report.reason or forgotten, log_of(job, report))
            if not shown:
                return reports
            if sweep.site.stop_on_failure and any(r.standing is Standing.failed for r in reports.values()):
                _cancel(reports, console)
                return survey(jobs)
            _pause(view, max(sweep.site.poll_seconds, POLL_SECONDS))
            reports = survey(jobs)


def _pause(view: View, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        view.refresh()
        time.sleep(0.5)


def _cancel(reports: Mapping[str, Report], console: Console) -> None:
    ids = [report.job for report in reports.values() if report.job and report.standing in UNDER_WAY]
    if ids:
        call("scancel", *ids)
        console.print(f"{len(ids)} jobs cancelled, as hydra.launcher.stop_on_failure is set")


def _failures(sweep: _Sweep, reports: Mapping[str, Report]) -> list[str]:
    """Cells that failed, those that cannot start as what they continue failed, and those that SLURM forgot."""
    failed = [i for i, report in reports.items() if report.standing is Standing.failed]
    return failed + [i for i, report in reports.items() if report.standing is Standing.new]


def _advice(sweep: _Sweep, reports: Mapping[str, Report], failed: Sequence[str]) -> str:
    words = f"{len(failed)} of {counted(len(reports), sweep.task.noun)} failed"
    if _to_submit(sweep, reports):
        return f"{words}; run the same command again to retry them"
    return (
        f"{words}, after hydra.launcher.max_attempts={sweep.site.max_attempts}; mend the cause and give a larger "
        "hydra.launcher.max_attempts to try them again"
    )


def _result(config: DictConfig, job: Job, report: Report) -> JobReturn:
    """A finished cell's held-out loss; nothing yet for the others."""
    result = JobReturn(cfg=config, status=JobStatus.COMPLETED)
    result.return_value = read_state(job.folder).val_loss if report.standing is Standing.finished else None
    return result
