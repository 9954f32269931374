"""A progress bar in the terminal for `prepare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shapelaw.terminal import terminal


@dataclass(frozen=True)
class PrepareStatus:
    """The progress of a preparation.

    Args:
        phase: `training the tokenizer`, `checking` (documents that an earlier, interrupted call had done) or
            `tokenising`.
        documents, text_bytes, tokens: finished so far.
        total_bytes: approximate bytes of text in total, or None if only reading would tell.
    """

    phase: str
    documents: int
    text_bytes: int
    tokens: int
    total_bytes: int | None


ProgressCallback = Callable[[PrepareStatus], None]


@contextmanager
def terminal_progress(console: Console | None = None) -> Iterator[ProgressCallback]:
    """A callback for `prepare` that draws a bar with rate and remaining time (on standard error by default)."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[counts]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console or terminal(stderr=True), refresh_per_second=4) as bar:
        task = bar.add_task("starting", total=None, counts="")

        def show(status: PrepareStatus) -> None:
            rate = status.tokens / max(bar.tasks[0].elapsed or 0.0, 1e-9) / 1e6
            counts = f"{status.documents:,} documents, {status.tokens:,} tokens, {rate:.1f}M tokens/s"
            bar.update(
                task, description=status.phase, completed=status.text_bytes, total=status.total_bytes, counts=counts
            )

        yield show
