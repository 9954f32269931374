"""Progress bar of a single run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shapelaw.planned_run import PlannedRun
from shapelaw.run_state import State


@contextlib.contextmanager
def bar(planned: PlannedRun, enabled: bool) -> Iterator[Callable[[State], None]]:
    """A bar of steps with loss, tokens/s and the time left; on a terminal only."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not (enabled and console.is_terminal)) as progress:
        task = progress.add_task(planned.label, total=planned.last_step - planned.first_step, note="")

        def show(state: State) -> None:
            progress.update(task, completed=state.step - planned.first_step, note=describe(state))

        yield show


def describe(state: State) -> str:
    """Losses and speed of a state, for people."""
    parts = [
        f"loss {state.train_loss:.3f}" if state.train_loss is not None else "",
        f"val {state.val_loss:.3f}" if state.val_loss is not None else "",
        f"{state.tokens_per_second:,.0f} tok/s" if state.tokens_per_second else "",
    ]
    return "  ".join(part for part in parts if part)
