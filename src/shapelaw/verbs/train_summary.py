"""What train prints at its end: what was trained, where it lies, and what comes next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from shapelaw.run_state import read_state
from shapelaw.sweep.task import Job
from shapelaw.terminal import terminal
from shapelaw.tracking_views import address
from shapelaw.verbs.ui import USUAL_PORT
from shapelaw.wording import clock, counted

USUAL_SUITE = "nano"
SERVE = "shapelaw ui"


def say(line: str) -> None:
    """Print to standard output without breaking long lines."""
    if line:
        terminal().print(line)


def of_run(job: Job, seconds: float, tracked: bool) -> str:
    """The result of one run, in words."""
    state = read_state(job.folder)
    loss = "" if state.val_loss is None else f"loss {state.val_loss:.4f}, "
    return f"{job.label}: {loss}{state.tokens:,} tokens in {clock(seconds)}; in {job.folder}{_next(tracked)}"


def of_sweep(jobs: Sequence[Job], failed: Sequence[str], tracked: bool, compared: str = SERVE) -> str:
    """Summary of a sweep: number of runs, their losses and places, and the commands that fit a law to them and compare them."""
    done = {job.identity: job for job in jobs if job.identity not in failed}
    found = [(read_state(job.folder).val_loss, job.label) for job in done.values()]
    known = sorted((loss, label) for loss, label in found if loss is not None)
    if not known:
        return ""
    (low, best), (high, worst) = known[0], known[-1]
    folder = next(iter(done.values())).folder.parent
    losses = f"loss {low:.4f} ({best})" + (f" to {high:.4f} ({worst})" if len(known) > 1 else "")
    return f"{counted(len(known), 'run')} finished: {losses}; in {folder}{_next(tracked, compared)}"


def compared(uri: str, experiment_id: str) -> str:
    """How to see the runs of an experiment side by side: a server's page, or the command that serves it, then the page."""
    served = uri.startswith(("http://", "https://"))
    if not experiment_id:
        return uri if served else SERVE
    page = address(uri if served else f"http://127.0.0.1:{USUAL_PORT}", experiment_id)
    return page if served else f"{SERVE}, then {page}"


def _next(tracked: bool, compared: str = SERVE) -> str:
    """The commands that fit a law to the suite's runs and show them; both find tracked runs."""
    suite = os.environ.get("SHAPELAW_SUITE", USUAL_SUITE)
    prefix = "" if suite == USUAL_SUITE else f"SHAPELAW_SUITE={shlex.quote(suite)} "
    return f"; next: {prefix}shapelaw fit; to compare runs: {compared}" if tracked else ""
