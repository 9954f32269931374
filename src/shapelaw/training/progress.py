"""What is seen of a single run: a line for every validation, and on a terminal a bar."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shapelaw.planned_run import PlannedRun
from shapelaw.run_state import State
from shapelaw.terminal import Terminal, printable
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


def describe(state: State) -> str:
    """Losses and speed of a state, for people."""
    parts = [
        f"loss {state.train_loss:.3f}" if state.train_loss is not None else "",
        f"held out {state.val_loss:.4f}" if state.val_loss is not None else "",
        f"{state.tokens_per_second:,.0f} tok/s" if state.tokens_per_second else "",
    ]
    return ", ".join(part for part in parts if part)
