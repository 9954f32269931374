"""TensorBoard's event files as runs: every folder with event files is a run, read by TensorBoard's own reader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from shapelaw.errors import UserError
from shapelaw.extras import installed
from shapelaw.runs.histories import Histories, wanted
from shapelaw.runs.logs import settings_beside

EVENTS = "*tfevents*"
HPARAMS = "_hparams_/session_start_info"
"""Where TensorBoard's plugin for hyperparameters keeps them."""


def read_tensorboard(path: Path, columns: Mapping[str, str]) -> Histories:
    """The runs under a folder of event files.

    A run is named after its folder. Its settings are those that `add_hparams` or Lightning recorded in it, above it, or in a
    folder below it that holds nothing else.

    Args:
        path: the folder, as TensorBoard's --logdir.
        columns: the user's mapping; only the metrics that a table needs are kept.

    Raises:
        UserError: if tensorboard is not installed, or there are no event files.
    """
    if not installed("tensorboard"):
        raise UserError(
            "runs=tensorboard needs tensorboard, which is not installed; run: pip install 'shapelaw[tensorboard]'"
        )
    folders = sorted({file.parent for file in path.rglob(EVENTS) if file.is_file()})
    if not folders:
        raise UserError(f"runs=tensorboard: no event files (*tfevents*) under {path}; give TensorBoard's --logdir")
    read = {folder: _accumulated(folder) for folder in folders}
    tags = {folder: _tags(events) for folder, events in read.items()}
    recorded = tuple(sorted({tag for own in tags.values() for tag in own}))
    settings = {folder: _settings(folder, events) for folder, events in read.items()}
    keep = set(wanted(recorded, columns))
    holders = [folder for folder in folders if keep & set(tags[folder])] or folders
    rows = [
        (number, value.step, tag, _number(value))
        for number, folder in enumerate(holders)
        for tag in sorted(keep & set(tags[folder]))
        for value in tags[folder][tag]
    ]
    known = [{"run": _name(path, folder), **_all_settings(folder, settings, holders)} for folder in holders]
    metrics = pd.DataFrame(rows, columns=["run", "step", "metric", "value"])
    return Histories(pd.DataFrame(known), metrics, recorded)


def _accumulated(folder: Path) -> Any:
    """TensorBoard's accumulator of a folder, which keeps every value except those that a restart made void."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def _tags(events: Any) -> dict[str, list[Any]]:
    """Tag -> its events: scalars, and the tensors that newer writers keep scalars in."""
    tags = events.Tags()
    out = {tag: events.Scalars(tag) for tag in tags["scalars"]}
    scalars = {tag for tag in tags["tensors"] if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"}
    return out | {tag: events.Tensors(tag) for tag in scalars}


def _number(event: Any) -> float:
    if hasattr(event, "value"):
        return float(event.value)
    from tensorboard.util.tensor_util import make_ndarray

    return float(make_ndarray(event.tensor_proto))


def _settings(folder: Path, events: Any) -> dict[str, Any]:
    """Hyperparameters that a folder itself holds."""
    own = settings_beside(folder)
    if HPARAMS not in events.summary_metadata:
        return own
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    data = HParamsPluginData.FromString(events.SummaryMetadata(HPARAMS).plugin_data.content)
    kept = {name: getattr(v, str(v.WhichOneof("kind"))) for name, v in data.session_start_info.hparams.items()}
    return own | {name: value for name, value in kept.items() if name.replace("/", ".") not in own}


def _all_settings(folder: Path, settings: Mapping[Path, Mapping[str, Any]], holders: list[Path]) -> dict[str, Any]:
    """A run's own settings; they precede those of a folder below it that is not a run, then those of the folders above."""
    below = [other for other in settings if other.parent == folder and other not in holders]
    above = [other for other in reversed(folder.parents) if other in settings]
    return {name: value for other in (*above, *below, folder) for name, value in settings[other].items()}


def _name(root: Path, folder: Path) -> str:
    name = folder.relative_to(root).as_posix()
    return folder.absolute().name if name == "." else name
