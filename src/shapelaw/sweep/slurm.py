"""A sweep on a SLURM cluster: submit the missing jobs and exit, or stay and watch. The same command can be repeated: it skips
finished jobs, leaves queued and running ones alone, and submits failed ones again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from shapelaw.errors import UserError
from shapelaw.run_state import LOG_FILE, read_state
from shapelaw.sweep import records
from shapelaw.sweep.accounting import UNDER_WAY, Report, Standing, call, need, survey
from shapelaw.sweep.local import Adjusted, SweepFailed, on_gpus
from shapelaw.sweep.resources import has_gpus
from shapelaw.sweep.settings import SlurmSettings
from shapelaw.sweep.submitting import Sweep, queued_report, submit_all, sweep_of, to_submit
from shapelaw.sweep.task import Job, Task
from shapelaw.sweep.view import View, tail
from shapelaw.terminal import Terminal, terminal
from shapelaw.wording import counted

POLL_SECONDS = 10.0


def launch(task: Task, configs: Sequence[DictConfig], site: SlurmSettings) -> list[JobReturn]:
    """Check every run, then submit those that need it; returns one result per configuration.

    Raises:
        UserError: before anything is queued, for the first error, with sbatch's own message if it is sbatch's.
        SweepFailed: if runs failed and are not tried again, or not all could be queued.
    """
    need("sbatch", "srun", "scontrol", "squeue")
    _check(site)
    configs = Adjusted(configs, lambda config: on_gpus(config, has_gpus(config, site)))
    jobs = task.plan(configs)
    sweep = sweep_of(task, configs, jobs, site)
    with records.launcher_lock(sweep.root):
        reports = survey(list(sweep.jobs.values()))
        todo = to_submit(sweep, reports)
        if todo:
            submit_all(sweep, todo, reports)
            reports |= {identity: queued_report(sweep.jobs[identity]) for identity in todo}
    if not todo:
        task.begin(configs, [job for job in jobs if job.done])  # delivers what finished ones could not; opens nothing
    _tell(sweep, reports, len(todo))
    if site.wait and any(report.standing in UNDER_WAY for report in reports.values()):
        reports = _watch(sweep, reports)
    failed = _failures(sweep, reports)
    if not any(report.standing in UNDER_WAY for report in reports.values()):
        task.end(configs, jobs, failed)
    if failed:
        raise SweepFailed(_advice(sweep, reports, failed))
    return [_result(job, reports[job.identity]) for job in jobs]


def _console() -> Terminal:
    return terminal(stderr=True)


def _check(site: SlurmSettings) -> None:
    if site.stop_on_failure and not site.wait:
        raise UserError(
            "hydra.launcher.stop_on_failure=true: only a launcher that stays can cancel the others; give "
            "hydra.launcher.wait=true as well, or hydra.launcher.stop_on_failure=false"
        )


def _tell(sweep: Sweep, reports: Mapping[str, Report], submitted: int) -> None:
    """Print the standing of the runs and the number submitted."""
    console = _console()
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


def _tell_failure(job: Job, report: Report, console: Terminal) -> None:
    log = log_of(job, report)
    console.print(f"failed {job.label}: {report.reason}")
    for line in tail(log):
        console.print(f"    {line}")
    console.print(f"  its log: {log}")


def log_of(job: Job, report: Report) -> Path:
    """The most useful log of a failed run: its own, or that of its job if it never wrote its own."""
    own = job.folder / LOG_FILE
    if report.submission is None or report.job is None:
        return own
    logs = sorted(Path(report.submission.batch).glob(f"{report.job}_*_log.out"))
    old = not own.exists() or own.stat().st_mtime < (Path(report.submission.batch) / "tasks.json").stat().st_mtime
    return logs[0] if old and logs else own


def _watch(sweep: Sweep, reports: dict[str, Report]) -> dict[str, Report]:
    """Show the runs until all have ended; the accounting is asked at most every ten seconds."""
    jobs = list(sweep.jobs.values())
    under_way = [job for job in jobs if reports[job.identity].standing in UNDER_WAY]
    with View(sweep.task.noun, under_way, task=sweep.task) as view:
        shown, started = {job.identity for job in view.todo}, set[str]()
        while True:
            _show(sweep, reports, view, shown, started)
            if not shown:
                return reports
            if sweep.site.stop_on_failure and any(r.standing is Standing.failed for r in reports.values()):
                _cancel(reports)
                return survey(jobs)
            _pause(view, max(sweep.site.poll_seconds, POLL_SECONDS))
            reports = survey(jobs)


def _show(sweep: Sweep, reports: Mapping[str, Report], view: View, shown: set[str], started: set[str]) -> None:
    """Tell the view which runs have started and which have ended; the latter are removed from `shown`."""
    for identity in sorted(shown):
        report, job = reports[identity], sweep.jobs[identity]
        if report.standing is Standing.running and identity not in started:
            started.add(identity)
            view.started(job)
        if report.standing not in UNDER_WAY:
            shown.remove(identity)
            forgotten = "SLURM no longer knows it" if report.standing is Standing.new else ""
            view.ended(job, report.reason or forgotten, log_of(job, report))


def _pause(view: View, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        view.refresh()
        time.sleep(0.5)


def _cancel(reports: Mapping[str, Report]) -> None:
    ids = [report.job for report in reports.values() if report.job and report.standing in UNDER_WAY]
    if ids:
        call("scancel", *ids)
        _console().print(f"{len(ids)} jobs cancelled, because hydra.launcher.stop_on_failure is set")


def _failures(sweep: Sweep, reports: Mapping[str, Report]) -> list[str]:
    """Runs that failed, that cannot start because the run that they continue failed, or that SLURM forgot."""
    failed = [i for i, report in reports.items() if report.standing is Standing.failed]
    return failed + [i for i, report in reports.items() if report.standing is Standing.new]


def _advice(sweep: Sweep, reports: Mapping[str, Report], failed: Sequence[str]) -> str:
    words = f"{len(failed)} of {counted(len(reports), sweep.task.noun)} failed"
    if to_submit(sweep, reports):
        return f"{words}; run the same command again to retry them"
    return (
        f"{words}, after hydra.launcher.max_attempts={sweep.site.max_attempts}; fix the cause and give a larger "
        "hydra.launcher.max_attempts to retry them"
    )


def _result(job: Job, report: Report) -> JobReturn:
    """A finished run's held-out loss; nothing yet for the others."""
    result = JobReturn(status=JobStatus.COMPLETED)
    result.return_value = read_state(job.folder).val_loss if report.standing is Standing.finished else None
    return result
