"""Tracking of runs: the Tracker protocol, and MLflow and wandb behind it. Nothing else imports mlflow.

A run records everything in a journal in its own folder and nowhere else; a thread delivers the journal to the store. So no
step waits for the store, an outage of the store loses nothing, and `shapelaw replay` delivers a run that ended meanwhile.
The launching process creates store and experiment (`open_store`).
"""

from shapelaw.tracking.delivery import deliver_left, deliver_to
from shapelaw.tracking.foreign import read_any
from shapelaw.tracking.mlflow_tracker import BothTracker, FolderTracker, MlflowTracker, OwnedTracker, WandbTracker
from shapelaw.tracking.own_delivery import OwnTracker, check_tracker, deliver_to_own
from shapelaw.tracking.pages import publish
from shapelaw.tracking.protocol import (
    DIVERGED_TAG,
    LR_SCALE,
    NOISE_GRAD_SQ,
    NOISE_SCALE,
    NOISE_TRACE,
    OWN,
    PRUNED_TAG,
    ROLLBACKS,
    SUITE_TAG,
    VAL_LOSS,
    NoTracker,
    RunInfo,
    Tracker,
    further_loss,
)
from shapelaw.tracking.reading import ON_THE_WAY, places, read_noise, read_runs, read_table
from shapelaw.tracking.store import (
    Store,
    begin,
    client,
    close_parent,
    close_search,
    close_stopped,
    open_search,
    open_store,
)
from shapelaw.tracking.wandb_delivery import check_login, deliver_to_wandb
from shapelaw.tracking.wandb_reading import OneTracked, read_wandb_runs

__all__ = [
    "DIVERGED_TAG",
    "LR_SCALE",
    "NOISE_GRAD_SQ",
    "NOISE_SCALE",
    "NOISE_TRACE",
    "ON_THE_WAY",
    "OWN",
    "PRUNED_TAG",
    "ROLLBACKS",
    "SUITE_TAG",
    "VAL_LOSS",
    "BothTracker",
    "FolderTracker",
    "MlflowTracker",
    "NoTracker",
    "OneTracked",
    "OwnTracker",
    "OwnedTracker",
    "RunInfo",
    "Store",
    "Tracker",
    "WandbTracker",
    "begin",
    "check_login",
    "check_tracker",
    "client",
    "close_parent",
    "close_search",
    "close_stopped",
    "deliver_left",
    "deliver_to",
    "deliver_to_own",
    "deliver_to_wandb",
    "further_loss",
    "open_search",
    "open_store",
    "places",
    "publish",
    "read_any",
    "read_noise",
    "read_runs",
    "read_table",
    "read_wandb_runs",
]
