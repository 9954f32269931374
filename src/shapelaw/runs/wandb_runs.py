"""Runs of Weights & Biases: those of a project, by its public API, or the folders that it writes to disk."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from shapelaw.errors import UserError
from shapelaw.extras import installed
from shapelaw.runs.histories import Histories, called, flattened, wanted

STEP = "_step"
FILES = "run-*.wandb"
HEADER, MAGIC, BLOCK = 7, b":W&B", 32_768
"""A file is a log of LevelDB's format after a header: records cut into blocks, each piece with its CRC-32, length and kind."""
PIECE = struct.Struct("<IHB")
WHOLE, LAST = 1, 4
"""Kinds of pieces that end a record."""
PAGE = 10_000
OURS = "shapelaw"
"""Setting of a run that shapelaw recorded."""


@dataclass
class OneRun:
    """A run as read from wandb.

    Args:
        id, name, state: those of the run.
        config: its settings, nested.
        history: (step, metric, value) in the order of recording.
        metrics: names of all its metrics.
    """

    id: str = ""
    name: str = ""
    state: str = "crashed"
    config: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[int, str, float]] = field(default_factory=list)
    metrics: set[str] = field(default_factory=set)


def runs_of(path: Path | None, project: str | None, columns: Mapping[str, str]) -> list[OneRun]:
    """The runs of a project, or those under a folder (`wandb/`, with offline and synchronised runs alike).

    Args:
        path: the folder, or one run's file.
        project: ENTITY/PROJECT on the server; read instead of a folder.
        columns: the user's mapping; only the metrics that a table needs are kept.

    Raises:
        UserError: if wandb is not installed, there are no runs, or the server does not answer.
    """
    if not installed("wandb"):
        raise UserError("runs=wandb needs wandb, which is not installed; run: pip install 'shapelaw[wandb]'")
    if (path is None) == (project is None):
        raise UserError("runs=wandb: give runs.path=FOLDER (its folder wandb/), or runs.project=ENTITY/PROJECT")
    return _of_folder(path, columns) if path is not None else _of_project(str(project), columns)


def histories_of(runs: Sequence[OneRun], columns: Mapping[str, str]) -> Histories:
    """Settings and metrics of runs, in the form for a table."""
    recorded = tuple(sorted({name for run in runs for name in run.metrics}))
    keep = set(wanted(recorded, columns))
    names = called([run.name for run in runs], [run.id for run in runs])
    settings = [
        {"run": name, "run_id": run.id, "status": run.state, **flattened(run.config)}
        for name, run in zip(names, runs, strict=True)
    ]
    rows = [(n, *value) for n, run in enumerate(runs) for value in run.history if value[1] in keep]
    metrics = pd.DataFrame(rows, columns=["run", "step", "metric", "value"])
    note = f"{STEP} counts wandb's own steps: optimizer steps only if the runs logged with step="
    uses_step = STEP in columns.values() or not {"step", "tokens"} & {*recorded, *columns}
    return Histories(pd.DataFrame(settings), metrics, recorded, STEP, (note,) if uses_step else ())


def _of_project(project: str, columns: Mapping[str, str]) -> list[OneRun]:
    import wandb

    try:
        return [_of_server(run, columns) for run in wandb.Api(timeout=60).runs(project)]
    except (wandb.errors.CommError, wandb.errors.UsageError, wandb.errors.AuthenticationError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"runs.project={project}: cannot be read ({said}); log in with `wandb login`, check ENTITY/PROJECT, or give "
            "runs.path=FOLDER of runs on disk"
        ) from error


def _of_server(run: Any, columns: Mapping[str, str]) -> OneRun:
    """A run of the server, with the whole history of each needed metric. Each metric takes one request, because the server
    drops rows that lack one of several."""
    recorded = {name for name in run.summary.keys() if not name.startswith("_")}  # noqa: SIM118  (no mapping)
    own = OURS in run.config  # then every metric is read
    history = [
        (int(row[STEP]), name, float(row[name]))
        for name in (sorted(recorded) if own else wanted(recorded, columns))
        for row in run.scan_history(keys=[STEP, name], page_size=PAGE)
        if isinstance(row.get(name), int | float)
    ]
    config = {name: value for name, value in run.config.items() if not name.startswith("_")}
    return OneRun(run.id, run.name, run.state, config, history, recorded)


def _of_folder(path: Path, columns: Mapping[str, str]) -> list[OneRun]:
    files = [path] if path.is_file() else sorted({file.resolve() for file in path.rglob(FILES)})
    if not files:
        raise UserError(f"runs=wandb: no runs ({FILES}) under {path}; give the folder wandb/ of the training script")
    return _joined(map(_of_file, files))


def _joined(runs: Iterable[OneRun]) -> list[OneRun]:
    """One run per id: a run that was continued offline has a file for each part."""
    found: dict[str, OneRun] = {}
    for run in runs:
        before = found.setdefault(run.id, run)
        if before is not run:
            before.name, before.state, before.config = run.name, run.state, {**before.config, **run.config}
            before.history, before.metrics = before.history + run.history, before.metrics | run.metrics
    return list(found.values())


def rows_of(run: OneRun) -> list[dict[str, float]]:
    """The rows of a run in the order of their steps, metric -> value; if a row was sent twice, the last one."""
    rows: dict[int, dict[str, float]] = {}
    for step, name, value in run.history:
        rows.setdefault(step, {})[name] = value
    return [rows[step] for step in sorted(rows)]


def _of_file(file: Path) -> OneRun:
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    run = OneRun(id=file.stem.removeprefix("run-"))
    for content in _records(file):
        record = Record()
        try:
            record.ParseFromString(content)
        except DecodeError:
            break
        _take(run, record)
    return run


def _take(run: OneRun, record: Any) -> None:
    """Add the content of one record to its run."""
    kind = record.WhichOneof("record_type")
    if kind == "run":
        run.id, run.name = record.run.run_id, record.run.display_name
        _configure(run, record.run.config)
    elif kind == "config":
        _configure(run, record.config)
    elif kind == "history":
        _remember(run, record.history)
    elif kind == "exit":
        run.state = "failed" if record.exit.exit_code else "finished"


def _configure(run: OneRun, config: Any) -> None:
    for item in config.update:
        keys, values = list(item.nested_key) or [item.key], run.config
        for key in keys[:-1]:
            values = values.setdefault(key, {})
        if not keys[0].startswith("_"):
            values[keys[-1]] = json.loads(item.value_json)
    for item in config.remove:
        run.config.pop(item.key, None)


def _remember(run: OneRun, history: Any) -> None:
    values = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in history.item}
    step = int(values.get(STEP, history.step.num))
    flat = {name: v for name, v in flattened(values).items() if not name.startswith("_")}
    numbers = {name: float(v) for name, v in flat.items() if _is_number(v)}
    run.metrics |= set(numbers)
    run.history += [(step, name, value) for name, value in numbers.items()]


def _is_number(value: Any) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)) or value in ("NaN", "Infinity", "-Infinity")


def _records(file: Path) -> Iterator[bytes]:
    """The complete records of a run's file; a killed run leaves a torn last one.

    Raises:
        UserError: if the file is not one of wandb's.
    """
    content = file.read_bytes()
    if content[: len(MAGIC)] != MAGIC:
        raise UserError(f"runs=wandb: {file} does not begin like wandb's files; give the folder wandb/")
    place, pieces = HEADER, b""
    while place + PIECE.size <= len(content):
        if (left := BLOCK - place % BLOCK) < PIECE.size:
            place += left
            continue
        crc, length, kind = PIECE.unpack_from(content, place)
        piece = content[place + PIECE.size : place + PIECE.size + length]
        if zlib.crc32(piece, zlib.crc32(bytes([kind]))) != crc:
            return
        place, pieces = place + PIECE.size + length, pieces + piece
        if kind in (WHOLE, LAST):
            yield pieces
            pieces = b""
