"""One progress view of a sweep, read from the state files of its jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

from shapelaw.errors import UserError
from shapelaw.run_state import Status, read_state
from shapelaw.sweep.task import Job
from shapelaw.wording import counted


class View:
    """Progress bars on a terminal; elsewhere a line for every job that ends."""

    def __init__(self, noun: str, jobs: Sequence[Job], to_come: int = 0, done_before: int = 0) -> None:
        """Jobs, and how many more will come that are not known yet."""
        unique = {job.identity: job for job in jobs}
        self.todo = [job for job in unique.values() if not job.done]
        self.noun, self.done_before = noun, len(unique) - len(self.todo) + done_before
        self.expected = len(self.todo) + to_come
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            Remaining(),
            console=self.console,
        )
        self.live = Live(self.progress, console=self.console, refresh_per_second=2)
        self.rows: dict[str, TaskID] = {}
        self.ended_count = 0

    def __enter__(self) -> View:
        skipped = f"; {self.done_before} already finished, skipped" if self.done_before else ""
        self.console.print(f"{counted(self.expected, self.noun)} to do{skipped}")
        self.total = self.progress.add_task(f"all {self.noun}s", total=self.expected, note="")
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def started(self, job: Job) -> None:
        """A job's process was started."""
        if job not in self.todo:
            self.todo.append(job)
        self.rows[job.identity] = self.progress.add_task(job.label, total=None, note="")

    def ended(self, job: Job, reason: str, log: Path | None = None) -> None:
        """A job ended, with the reason if it failed; `log` is where it wrote, if not its folder's log.txt."""
        if job.identity in self.rows:
            self.progress.remove_task(self.rows.pop(job.identity))
        self._count()
        if reason:
            self.failed(job, reason, log or job.folder / "log.txt")
        elif not self.console.is_terminal:
            self.console.print(f"[{self.ended_count}/{self.expected}] {job.label} {self._outcome(job)}")

    def refused(self, what: str, reason: str) -> None:
        """What was to be a job cannot be one."""
        self._count()
        self.console.print(f"[red]failed[/red] {escape(what)}: {escape(reason)}")

    def _count(self) -> None:
        self.ended_count += 1
        self.progress.update(self.total, completed=self.ended_count)

    def failed(self, job: Job, reason: str, log: Path) -> None:
        """Say why a job failed, and the end of its log."""
        self.console.print(f"[red]failed[/red] {job.label}: {escape(reason)}")
        for line in tail(log):
            if line not in reason:
                self.console.print(f"    {line}", markup=False)
        if log.exists():
            self.console.print(f"  its log: {log}", markup=False)

    def refresh(self) -> None:
        """Read the running jobs' states and draw them."""
        if not self.console.is_terminal:
            return
        for job in self.todo:
            if job.identity in self.rows:
                self._draw(job)

    def _draw(self, job: Job) -> None:
        try:
            state = read_state(job.folder)
        except (UserError, OSError):
            return
        rate = f"{state.tokens_per_second:,.0f} tok/s" if state.tokens_per_second else ""
        loss = f"loss {state.train_loss:.3f}" if state.train_loss is not None else ""
        self.progress.update(
            self.rows[job.identity], total=state.steps or None, completed=state.step, note=f"{loss} {rate}".strip()
        )

    def _outcome(self, job: Job) -> str:
        try:
            state = read_state(job.folder)
        except (UserError, OSError):
            return "done"
        pruned = f"pruned after {state.tokens:,} tokens, " if state.status is Status.pruned else ""
        return f"{pruned}loss {state.val_loss:.4f}" if state.val_loss is not None else "done"


def tail(log: Path, lines: int = 5) -> list[str]:
    """The last lines of a log, if there is one."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 10_000, 0))
        return file.read().decode(errors="replace").splitlines()[-lines:]
