"""One progress view of a sweep, from the state files of its jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from shapelaw.errors import UserError
from shapelaw.run_state import LOG_FILE, State, Status, read_state
from shapelaw.sweep.pace import Pace
from shapelaw.sweep.task import Job, Tells
from shapelaw.terminal import printable, terminal
from shapelaw.wording import SILENT_SECONDS, clock, counted

FAILED = Text("failed", "red")
NAMED = 3
"""Most running jobs that a line names."""


class View:
    """A line for every job that ends; in addition, bars on a terminal, or elsewhere a line at least every 30 s."""

    def __init__(
        self, noun: str, jobs: Sequence[Job], to_come: int = 0, done_before: int = 0, task: object = None
    ) -> None:
        """Jobs, and the number of further jobs that are not known yet; a task that `Tells` words their outcomes."""
        unique = {job.identity: job for job in jobs}
        self.todo = [job for job in unique.values() if not job.done]
        self.noun, self.done_before = noun, len(unique) - len(self.todo) + done_before
        self.expected = len(self.todo) + to_come
        self.tell: Callable[[Job], str] = task.told if isinstance(task, Tells) else _outcome
        self.pace = Pace([(job, _state(job) or State()) for job in self.todo], to_come)
        self.console = terminal(stderr=True)
        self.progress = _bars(self.console)
        self.live = Live(self.progress, console=self.console, refresh_per_second=2)
        self.rows: dict[str, tuple[TaskID, float]] = {}
        self.ended_count, self.spoken = 0, time.monotonic()

    def __enter__(self) -> View:
        skipped = f"; {self.done_before} already finished, skipped" if self.done_before else ""
        self._say(f"{counted(self.expected, self.noun)} to do{skipped}")
        self.total = self.progress.add_task(f"all {self.noun}s", total=None, note="", count="", left="")
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def started(self, job: Job) -> None:
        """Show that a job's process was started."""
        if job not in self.todo:
            self.todo.append(job)
            self.pace.add(job, _state(job) or State())
        row = self.progress.add_task(printable(job.label), total=None, note="", count="", left="")
        self.rows[job.identity] = row, time.monotonic()

    def lost(self, job: Job, what: str) -> None:
        """Show that a job's process was lost, and that the job starts again."""
        row, _ = self.rows.pop(job.identity, (None, None))
        if row is not None:
            self.progress.remove_task(row)
        self._say(f"{job.label}: {what}")

    def ended(self, job: Job, reason: str, log: Path | None = None) -> None:
        """Show that a job ended, with the reason if it failed; `log` is its log, if not its folder's log.txt."""
        row, begun = self.rows.pop(job.identity, (None, None))
        if row is not None:
            self.progress.remove_task(row)
        if job.identity in self.pace.parts:
            self.pace.ended(job, not reason)
        self._count()
        if reason:
            self.failed(job, reason, log or job.folder / LOG_FILE)
        else:
            took = "" if begun is None else f", {clock(time.monotonic() - begun)}"
            self._say(f"[{self.ended_count}/{self.expected}] {job.label} {self.tell(job)}{took}")

    def refused(self, what: str, reason: str) -> None:
        """Show that an intended job was refused."""
        self._count()
        self._say(FAILED, f"{what}: {reason}")

    def _say(self, *words: str | Text) -> None:
        self.spoken = time.monotonic()
        self.console.print(*words)

    def _count(self) -> None:
        self.ended_count += 1
        self._draw_total()

    def failed(self, job: Job, reason: str, log: Path) -> None:
        """Show why a job failed, and the end of its log."""
        self._say(FAILED, f"{job.label}: {reason}")
        for line in tail(log):
            if line not in reason:
                self.console.print(f"    {line}")
        if log.exists():
            self.console.print(f"  its log: {log}")

    def refresh(self) -> None:
        """Read the running jobs' states and draw them, or print them if no line appeared for 30 s."""
        if not self.console.is_terminal and time.monotonic() - self.spoken < SILENT_SECONDS:
            return
        running = [job for job in self.todo if job.identity in self.rows]
        lines = [self._moved(job, state) for job in running if (state := _state(job))]
        self._draw_total()
        if not self.console.is_terminal:
            self._say(self._said(lines))

    def _moved(self, job: Job, state: State) -> str:
        """Draw a running job's state; returns it in words."""
        self.pace.moved(job, state)
        part, (row, begun) = self.pace.parts[job.identity], self.rows[job.identity]
        left = (1 - part.share) / part.share * (time.monotonic() - begun) if part.share else None
        count = f"{state.step}/{state.steps}" if state.steps else ""
        note = _doing(state)
        self.progress.update(row, total=1, completed=part.share, count=count, note=note, left=_left(left))
        return " ".join(filter(None, (job.label, count and f"step {count}", note)))

    def _draw_total(self) -> None:
        pace, count = self.pace, f"{self.ended_count}/{self.expected}"
        left = _left(pace.seconds_left)
        self.progress.update(self.total, total=pace.total or None, completed=pace.done, count=count, left=left)

    def _said(self, lines: Sequence[str]) -> str:
        """The whole state in one line."""
        share = self.pace.done / self.pace.total if self.pace.total else 0.0
        more = [f"{len(lines) - NAMED} more"] if len(lines) > NAMED else []
        running = "; ".join([*lines[:NAMED], *more]) or "starting"
        begun = f"[{self.ended_count}/{self.expected}] {share:.0%} of the work"
        return ", ".join(filter(None, (begun, _left(self.pace.seconds_left)))) + f": {running}"


def _bars(console: Console) -> Progress:
    """Bars with the finished share, the state, and the elapsed and remaining time."""
    name = TextColumn("{task.description}", markup=False)
    count, note, left = (TextColumn(f"{{task.fields[{key}]}}", markup=False) for key in ("count", "note", "left"))
    return Progress(name, BarColumn(), count, note, TimeElapsedColumn(), left, console=console)


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{clock(seconds)} left"


def _state(job: Job) -> State | None:
    """The state of a job; None if its folder has none."""
    try:
        return read_state(job.folder)
    except (UserError, OSError):
        return None


def _doing(state: State) -> str:
    """Loss and speed of a state."""
    rate = f"{state.tokens_per_second:,.0f} tok/s" if state.tokens_per_second else ""
    loss = f"loss {state.train_loss:.3f}" if state.train_loss is not None else ""
    return f"{loss} {rate}".strip()


def _outcome(job: Job) -> str:
    """How a run ended."""
    state = _state(job)
    if state is None or state.val_loss is None:
        return "done"
    pruned = f"pruned after {state.tokens:,} tokens, " if state.status is Status.pruned else ""
    rate = f", {state.tokens_per_second:,.0f} tok/s" if state.tokens_per_second else ""
    return f"{pruned}loss {state.val_loss:.4f}{rate}"


def tail(log: Path, lines: int = 5) -> list[str]:
    """The last lines of a log, if there is one."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 10_000, 0))
        return file.read().decode(errors="replace").splitlines()[-lines:]
