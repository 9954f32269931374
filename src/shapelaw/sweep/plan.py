"""A dry run: it composes and checks every run and lists the expected cost. It creates and queues nothing."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig
from rich import box
from rich.table import Table

from shapelaw.errors import NotPrepared, UserError
from shapelaw.run_state import read_state
from shapelaw.sweep import records
from shapelaw.sweep.accounting import Report, Standing, judge, survey
from shapelaw.sweep.local import Adjusted, on_gpus
from shapelaw.sweep.resources import Resources, asked_of_ray, has_gpus, resources_of, said_of_ray
from shapelaw.sweep.settings import RaySettings, SiteSettings, SlurmSettings
from shapelaw.sweep.task import Footprint, Job, Prices, Task
from shapelaw.terminal import Terminal, terminal
from shapelaw.wording import amount, counted

WIDE = 180
"""Columns of the table if the output is not a terminal."""
UNKNOWN = Footprint()
TIME_LIMIT = "limit, min"
"""Column of resources.timeout_min, if runs have their own."""


def show(task: Task, configs: Sequence[DictConfig], device: str, site: SiteSettings | None = None) -> list[JobReturn]:
    """Print the table of all runs, and on a cluster their totals by nodes; one empty result per configuration.

    Raises:
        UserError: for the first invalid configuration. A note below the tables names what must still be prepared.
    """
    missing: NotPrepared | None = None
    if device != "this" or site:
        configs = Adjusted(configs, lambda config: _there(config, device, site))
    try:
        jobs = task.plan(configs)
    except NotPrepared as error:
        if not isinstance(task, Prices):
            raise
        jobs, missing = task.estimate(configs), error
    console = terminal()
    if not console.is_terminal:
        console = Terminal(width=WIDE, soft_wrap=False)
    rows = rows_of(task, jobs, device, site)
    for each in tables(task, rows, device, site):
        console.print(each)
    if isinstance(site, RaySettings):
        for line in asked_lines(rows, site, task.noun):
            console.print(line, soft_wrap=True)
    for job in {job.identity: job for job in jobs if job.command and not job.done}.values():
        console.print(f"{job.label}: {job.command}", soft_wrap=True)
    if missing:
        console.print(f"note: {missing} before the sweep", soft_wrap=True)
    if device != "this":
        refuse_too_large(rows, device)
    return [_planned() for _ in jobs]


def _there(config: DictConfig, device: str, site: SiteSettings | None) -> dict[str, Any]:
    """Settings of a run on the machine that it is planned for; all rated devices are GPUs."""
    if site is None or "resources" not in config:
        return on_gpus(config, device != "this")
    gpus, tasks = site.gpus_per_node, site.tasks_per_node or max(site.gpus_per_node, 1)
    wanted = {"gpus_per_node": gpus, "tasks_per_node": tasks}
    values = {f"resources.{key}": value for key, value in wanted.items() if config.resources[key] is None}
    return on_gpus(config, device != "this" or has_gpus(config, site)) | values


def _planned() -> JobReturn:
    result = JobReturn(status=JobStatus.COMPLETED)
    result.return_value = None
    return result


@dataclass(frozen=True)
class Row:
    """A run of the plan.

    Args:
        job: the run.
        report: its standing.
        after: label of the run that it continues, if any.
        device_hours: hours of one device.
        footprint: memory of a step on the device.
        resources: resources of one job of the cluster, if it is planned for one.
        signal_seconds: time before its limit at which such a job is told to checkpoint.
    """

    job: Job
    report: Report
    after: str
    device_hours: float
    footprint: Footprint = UNKNOWN
    resources: Resources | None = None
    signal_seconds: int = 0

    @property
    def nodes(self) -> int:
        """Nodes of one job."""
        return self.resources.nodes if self.resources else self.job.request.nodes

    @property
    def processes(self) -> int:
        """Devices that share the run."""
        return self.resources.tasks if self.resources else 1

    @property
    def wall_hours(self) -> float:
        """Hours from its first step to its last, without waiting and job starts."""
        return self.device_hours / self.processes

    @property
    def jobs(self) -> int:
        """Number of chained jobs; each trains until it is told to checkpoint.

        Raises:
            UserError: if a job would be told to checkpoint when it starts.
        """
        limit = self.resources.timeout_min if self.resources else 0
        if not limit:
            return 1
        seconds = 60 * limit - self.signal_seconds
        if seconds <= 0:
            raise UserError(
                f"{self.job.label}: its job may take {counted(limit, 'minute')} and is told to checkpoint "
                f"{self.signal_seconds} seconds before (the site's signal_seconds); give a longer resources.timeout_min"
            )
        return max(math.ceil(3600 * self.wall_hours / seconds), 1)


def tables(task: Task, rows: Sequence[Row], device: str, site: SiteSettings | None) -> Iterator[Table]:
    """The runs, and on a cluster their totals by nodes."""
    yield table(task, rows, device)
    if site and rows:
        yield by_nodes(task, [row for row in rows if row.report.standing is not Standing.finished])


def rows_of(task: Task, jobs: Sequence[Job], device: str, site: SiteSettings | None = None) -> list[Row]:
    """One row per run; equal runs share one."""
    unique = list({job.identity: job for job in jobs}.values())
    labels, reports = {job.identity: job.label for job in unique}, _reports(unique)
    return [
        Row(
            job,
            reports[job.identity],
            labels.get(job.after or "", job.after or ""),
            task.device_hours(job, device) if isinstance(task, Prices) else 0.0,
            job.footprint(device) if job.footprint else UNKNOWN,
            resources_of(job, site) if site else None,
            site.signal_seconds if isinstance(site, SlurmSettings) else 0,
        )
        for job in unique
    ]


def asked_lines(rows: Sequence[Row], site: RaySettings, noun: str) -> Iterator[str]:
    """The resources that each unfinished run asks of Ray; one line for all runs with the same request."""
    left = [row for row in rows if row.resources and row.report.standing is not Standing.finished]
    counts = Counter(said_of_ray(asked_of_ray(row.resources, site)) for row in left if row.resources)
    for asked, count in counts.items():
        yield f"{counted(count, noun)}, each of which asks Ray for {asked}"


Column = tuple[str, Callable[[Row], str], Callable[[Sequence[Row]], str]]
"""Its name, the cell of a run, and that of a total."""


def table(task: Task, rows: Sequence[Row], device: str) -> Table:
    """One row per run, and rows of totals."""
    columns = _columns(rows)
    result = Table(title=_title(task, len(rows), device), box=box.SIMPLE, title_justify="left")
    result.add_column(task.noun, no_wrap=True)
    result.add_column("state")
    for name, _, _ in columns:
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("after", no_wrap=True)
    for row in rows:
        result.add_row(row.job.label, _state(row.report), *(cell(row) for _, cell, _ in columns), row.after)
    result.add_section()
    rest = [row for row in rows if row.report.standing is not Standing.finished]
    for name, runs in (("all", rows), ("to run", rest)):
        result.add_row(f"{name}: {len(runs)}", "", *(total(runs) for _, _, total in columns))
    return result


def _columns(rows: Sequence[Row]) -> list[Column]:
    """The columns between the state and the run that each continues."""
    cluster = any(row.resources for row in rows)
    limit: list[Column] = [(TIME_LIMIT, _limit, _nothing)]
    layout: list[Column] = [("devices", lambda row: f"{row.processes:,}", _nothing)]
    chain: list[Column] = [("wall hours", lambda row: amount(row.wall_hours), _nothing), JOBS]
    return [
        ("parameters", lambda row: f"{row.job.params:,}" if row.job.params else "", _nothing),
        ("tokens", lambda row: f"{row.job.tokens:,}" if row.job.tokens else "", _tokens),
        ("FLOPs", lambda row: f"{row.job.flops:.2e}" if row.job.flops else "", _flops),
        ("nodes", lambda row: str(row.nodes), _nothing),
        *(layout if cluster else []),
        *(limit if cluster or any(row.job.request.timeout_min for row in rows) else []),
        ("device hours", lambda row: amount(row.device_hours), _device_hours),
        *(chain if cluster else []),
        ("micro-batch", lambda row: str(row.footprint.sequences) if row.footprint.sequences else "", _nothing),
        ("GiB", _memory, _nothing),
    ]


def _memory(row: Row) -> str:
    """A step's peak, and the limit if that is less."""
    one = row.footprint
    taken, allowed = amount(one.peak_bytes / 2**30), f"{one.limit_bytes / 2**30:.3g}"
    return f"{taken} > {allowed}" if one.exceeds else taken if one.sequences else ""


def refuse_too_large(rows: Sequence[Row], device: str) -> None:
    """Refuse a plan for a device on which some runs do not fit, even one sequence at a time.

    Raises:
        UserError: naming the largest one, and what to do.
    """
    left = [row for row in rows if row.footprint.exceeds and row.report.standing is not Standing.finished]
    if not left:
        return
    worst = max(left, key=lambda row: row.footprint.peak_bytes)
    step, more = worst.footprint, f" (and {len(left) - 1} more)" if len(left) > 1 else ""
    raise UserError(
        f"{worst.job.label}{more}: does not fit on {device}: a step takes {step.peak_bytes / 2**30:.1f} GiB of each device, "
        f"{counted(step.sequences, 'sequence')} at a time, and limits.memory_share allows {step.limit_bytes / 2**30:.1f}; "
        "split the model over several devices with parallel=fsdp, plan for a larger device, leave such runs out, or "
        "give force=true to plan them anyway"
    )


def by_nodes(task: Task, rows: Sequence[Row]) -> Table:
    """Totals of the unfinished runs: a row for each number of nodes, and one for all."""
    title = (
        f"{counted(len(rows), task.noun)} to run, by nodes; longest: hours of the longest run, however many run at once"
    )
    result = Table(title=title, box=box.SIMPLE, title_justify="left")
    for name in ("nodes", f"{task.noun}s", "tokens", "FLOPs", "device hours", "node hours", "longest, hours", "jobs"):
        result.add_column(name, justify="right", no_wrap=True)
    for nodes in sorted({row.nodes for row in rows}):
        result.add_row(str(nodes), *_together([row for row in rows if row.nodes == nodes]))
    result.add_section()
    result.add_row("all", *_together(rows))
    return result


def _together(rows: Sequence[Row]) -> Iterator[str]:
    yield from (str(len(rows)), _tokens(rows), _flops(rows), _device_hours(rows))
    yield amount(sum(row.wall_hours * row.nodes for row in rows))
    yield amount(max((row.wall_hours for row in rows), default=0.0))
    yield _jobs(rows)


def _nothing(rows: Sequence[Row]) -> str:
    return ""


def _tokens(rows: Sequence[Row]) -> str:
    return f"{sum(row.job.tokens for row in rows):.4g}"


def _flops(rows: Sequence[Row]) -> str:
    return f"{sum(row.job.flops for row in rows):.2e}"


def _device_hours(rows: Sequence[Row]) -> str:
    return amount(sum(row.device_hours for row in rows))


def _jobs(rows: Sequence[Row]) -> str:
    return f"{sum(row.jobs for row in rows):,}"


JOBS: Column = ("jobs", lambda row: f"{row.jobs:,}", _jobs)


def _limit(row: Row) -> str:
    minutes = row.resources.timeout_min if row.resources else row.job.request.timeout_min
    return f"{minutes:,}" if minutes else ""


def _title(task: Task, count: int, device: str) -> str:
    if not isinstance(task, Prices):
        return counted(count, task.noun)
    name = "this device" if device == "this" else device
    return f"{counted(count, task.noun)}; device hours: estimated for {name} at the throughput that such runs usually reach"


def _reports(jobs: Sequence[Job]) -> dict[str, Report]:
    """The standing of the runs; SLURM is asked only if a run was submitted and SLURM is available."""
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
