"""What every run leaves, whatever trains it: what it is, where it is recorded, and how it ended. Imports no torch."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace

from omegaconf import OmegaConf

from shapelaw.config import TrainConfig
from shapelaw.errors import Diverged, Interrupted, UserError
from shapelaw.files import write_sealed_text
from shapelaw.fingerprint import write_fingerprint
from shapelaw.planned_run import PlannedRun
from shapelaw.run_state import Status
from shapelaw.tracking import (
    DIVERGED_TAG,
    PRUNED_TAG,
    BothTracker,
    FolderTracker,
    MlflowTracker,
    OwnedTracker,
    RunInfo,
    Store,
    Tracker,
    WandbTracker,
)
from shapelaw.training.reporting import Report


def describe(config: TrainConfig, planned: PlannedRun) -> None:
    """Write what a run is into its folder."""
    write_fingerprint(planned.folder, planned.fingerprint)
    write_sealed_text(planned.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(asdict(config))))


def recorder(config: TrainConfig, planned: PlannedRun, info: RunInfo) -> Tracker:
    """Where a run is recorded: without a tracker in its folder alone."""
    settings = config.tracker
    store = Store.of(settings, config.suite.name)
    if settings.name == "none":
        return FolderTracker(replace(store, uri=""), info, planned.folder)
    if settings.name == "mlflow":
        return MlflowTracker(store, info, planned.folder, settings.finish_seconds)
    if settings.name == "both":
        return BothTracker(store, info, planned.folder, settings.finish_seconds, settings.offline)
    if settings.own:
        return OwnedTracker(store, info, planned.folder, settings.finish_seconds, settings.name, settings.options)
    return WandbTracker(replace(store, uri=""), info, planned.folder, settings.finish_seconds, settings.offline)


def record_error(report: Report, tracker: Tracker, error: BaseException) -> None:
    """What ended a run early; the error is on its way to whoever asked for the run."""
    interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
    reason = (str(error).splitlines() or [""])[0]
    diverged = error.step if isinstance(error, Diverged) else None
    with contextlib.suppress(OSError):  # a full disk takes no state either
        report.end(Status.interrupted if interrupted else Status.failed, reason, diverged)
    with contextlib.suppress(UserError):
        if diverged is not None:
            tracker.tag({DIVERGED_TAG: str(diverged)})
        tracker.finish("KILLED" if interrupted else "FAILED")


def record_end(report: Report, tracker: Tracker, pruned: bool) -> None:
    """That a run came to its end. The state comes last: a run that has it has nothing left to record."""
    if pruned:
        tracker.tag({PRUNED_TAG: f"after {report.state.tokens} tokens"})
    tracker.finish("KILLED" if pruned else "FINISHED")
    report.end(Status.pruned if pruned else Status.finished)
