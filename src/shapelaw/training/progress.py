"""What is seen of a run: a line for every validation, in its log.txt too, and on a terminal a bar."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shapelaw.planned_run import PlannedRun
from shapelaw.run_state import LOG_FILE, State
from shapelaw.terminal import Spelling, Terminal, printable
from shapelaw.wording import SILENT_SECONDS


class Losses:
    """A line for every validation of a run; where there is no terminal also one at least every 30 s.

    Args:
        to: where the lines go.
    """

    def __init__(self, to: Terminal) -> None:
        self.to, self.spoken = to, time.monotonic()
        self.val_loss: float | None = None

    def show(self, state: State) -> None:
        """Say a state if there is something new in it."""
        silent = not self.to.is_terminal and time.monotonic() - self.spoken > SILENT_SECONDS
        if state.val_loss == self.val_loss and not silent:
            return
        self.spoken, self.val_loss = time.monotonic(), state.val_loss
        self.to.print(f"step {state.step}/{state.steps}, {state.tokens:,} tokens: {describe(state)}")


@contextlib.contextmanager
def bar(planned: PlannedRun, enabled: bool) -> Iterator[Callable[[State], None]]:
    """Losses as they are measured, and on a terminal a bar of steps with the time left; nothing if not enabled."""
    console = Terminal(stderr=True, quiet=not enabled)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not (enabled and console.is_terminal)) as progress:
        task = progress.add_task(printable(planned.label), total=planned.last_step - planned.first_step, note="")
        losses = Losses(console)

        def show(state: State) -> None:
            losses.show(state)
            progress.update(task, completed=state.step - planned.first_step, note=describe(state))

        yield show


def lines() -> Callable[[State], None]:
    """Losses as lines where standard error is a file or a pipe, such as the log.txt of a sweep's run; nothing on a terminal,
    which shows the sweep."""
    console = Terminal(stderr=True)
    return (lambda state: None) if console.is_terminal else Losses(console).show


@contextlib.contextmanager
def logged(folder: Path) -> Iterator[Callable[[State], None]]:
    """Losses, warnings, and what ends the run early, appended to its log.txt; a full disk costs the log and not the run."""
    folder.mkdir(parents=True, exist_ok=True)
    with _lasting(folder / LOG_FILE) as file:
        console = Terminal(file=file)
        losses = Losses(console)

        def show(state: State) -> None:
            with contextlib.suppress(OSError):
                losses.show(state)

        with _warnings_to(console):
            try:
                yield show
            except BaseException as error:
                with contextlib.suppress(OSError):
                    console.print(f"{type(error).__name__}: {error}")
                raise


@contextlib.contextmanager
def _lasting(path: Path) -> Iterator[TextIO]:
    """A log to append to, whose last words a full disk may cost."""
    file = path.open("a", encoding="utf-8", buffering=1)
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            file.close()


@contextlib.contextmanager
def _warnings_to(console: Terminal) -> Iterator[None]:
    """Warnings there, too; they reach the terminal as before."""
    root = logging.getLogger()
    # the last resort is asked only where there is no other
    added = [_Printed(console), *([] if root.handlers else [Spelling()])]
    for handler in added:
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in added:
            root.removeHandler(handler)


class _Printed(logging.Handler):
    """Warnings on a console, a line each."""

    def __init__(self, console: Terminal) -> None:
        super().__init__(logging.WARNING)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a warning."""
        with contextlib.suppress(OSError):
            self.console.print(self.format(record))


def describe(state: State) -> str:
    """Losses and speed of a state, for people."""
    parts = [
        f"loss {state.train_loss:.3f}" if state.train_loss is not None else "",
        f"held out {state.val_loss:.4f}" if state.val_loss is not None else "",
        f"{state.tokens_per_second:,.0f} tok/s" if state.tokens_per_second else "",
    ]
    return ", ".join(part for part in parts if part)
