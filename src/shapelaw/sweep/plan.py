"""A dry run: every run composed and checked, and a table of what it would take. Nothing is created or queued."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig
from rich import box
from rich.table import Table

from shapelaw.errors import NotPrepared
from shapelaw.run_state import read_state
from shapelaw.sweep import records
from shapelaw.sweep.accounting import Report, Standing, judge, survey
from shapelaw.sweep.local import Adjusted, on_gpus
from shapelaw.sweep.task import Job, Prices, Task
from shapelaw.terminal import Terminal, terminal
from shapelaw.wording import amount, counted

WIDE = 160
"""Columns of the table where the output is no terminal."""
TIME_LIMIT = "limit, min"
"""Column of resources.timeout_min, where runs have their own."""


def show(task: Task, configs: Sequence[DictConfig], device: str) -> list[JobReturn]:
    """Print the table of all runs; one empty result per configuration.

    Raises:
        UserError: for the first configuration that is wrong. What is still to be prepared is a note below the table.
    """
    missing: NotPrepared | None = None
    if device != "this":
        configs = Adjusted(configs, lambda config: on_gpus(config, True))  # all rated devices are GPUs
    try:
        jobs = task.plan(configs)
    except NotPrepared as error:
        if not isinstance(task, Prices):
            raise
        jobs, missing = task.estimate(configs), error
    console = terminal()
    if not console.is_terminal:
        console = Terminal(width=WIDE, soft_wrap=False)
    console.print(table(task, jobs, device))
    for job in {job.identity: job for job in jobs if job.command and not job.done}.values():
        console.print(f"{job.label}: {job.command}", soft_wrap=True)
    if missing:
        console.print(f"note: {missing} before the sweep", soft_wrap=True)
    return [_planned() for _ in jobs]


def _planned() -> JobReturn:
    result = JobReturn(status=JobStatus.COMPLETED)
    result.return_value = None
    return result


def table(task: Task, jobs: Sequence[Job], device: str) -> Table:
    """One row a run, and rows of totals; equal runs are one."""
    unique = list({job.identity: job for job in jobs}.values())
    labels, reports = {job.identity: job.label for job in unique}, _reports(unique)
    limited = any(job.request.timeout_min for job in unique)
    hours = {job.identity: _hours(task, job, device) for job in unique}
    result = _empty(task, len(unique), device, limited)
    for job in unique:
        limit, after = [_minutes(job)] if limited else [], labels.get(job.after or "", job.after or "")
        cost = (amount(hours[job.identity]), *_footprint(job, device))
        result.add_row(job.label, _state(reports[job.identity]), *_numbers(job), *limit, *cost, after)
    result.add_section()
    rest = [job for job in unique if reports[job.identity].standing is not Standing.finished]
    for name, runs in (("all", unique), ("to run", rest)):
        flops, tokens = f"{sum(job.flops for job in runs):.2e}", f"{sum(job.tokens for job in runs):.4g}"
        total = amount(sum(hours[job.identity] for job in runs))
        result.add_row(f"{name}: {len(runs)}", "", "", tokens, flops, "", *([""] if limited else []), total)
    return result


def _empty(task: Task, count: int, device: str, limited: bool) -> Table:
    """The table's title and columns."""
    result = Table(title=_title(task, count, device), box=box.SIMPLE, title_justify="left")
    result.add_column(task.noun, no_wrap=True)
    result.add_column("state")
    limit = [TIME_LIMIT] if limited else []
    for name in ("parameters", "tokens", "FLOPs", "nodes", *limit, "device hours", "micro-batch", "GiB"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("after", no_wrap=True)
    return result


def _title(task: Task, count: int, device: str) -> str:
    if not isinstance(task, Prices):
        return counted(count, task.noun)
    name = "this device" if device == "this" else device
    return f"{counted(count, task.noun)}; device hours: estimated for {name} at the throughput such runs usually reach"


def _reports(jobs: Sequence[Job]) -> dict[str, Report]:
    """How the runs stand; SLURM is asked only where one was submitted and it is at hand."""
    if shutil.which("squeue") and any(records.submission_of(job.folder) for job in jobs):
        return survey(jobs)
    reports = {}
    for job in jobs:
        state = read_state(job.folder)
        standing, reason, note = judge(state, None)
        reports[job.identity] = Report(standing, reason, note, step=state.step)
    return reports


def _state(report: Report) -> str:
    words = report.standing.value
    if report.step and report.standing in (Standing.new, Standing.queued):
        words += f", continues after step {report.step}"
    detail = report.reason or report.note
    return f"{words}: {detail}" if detail else words


def _numbers(job: Job) -> tuple[str, str, str, str]:
    flops = f"{job.flops:.2e}" if job.flops else ""
    return (
        f"{job.params:,}" if job.params else "",
        f"{job.tokens:,}" if job.tokens else "",
        flops,
        str(job.request.nodes),
    )


def _minutes(job: Job) -> str:
    return f"{job.request.timeout_min:,}" if job.request.timeout_min else ""


def _hours(task: Task, job: Job, device: str) -> float:
    return task.device_hours(job, device) if isinstance(task, Prices) else 0.0


def _footprint(job: Job, device: str) -> tuple[str, str]:
    """Sequences of a forward pass and GiB of a device at the peak of a step."""
    if job.footprint is None:
        return "", ""
    sequences, memory = job.footprint(device)
    return str(sequences), amount(memory / 2**30)
