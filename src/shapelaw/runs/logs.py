"""Logs of training scripts: one file per run, whose rows hold only the measurements of that step."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.runs import names
from shapelaw.runs.histories import at_losses, flattened
from shapelaw.runs.readers import RawTable, read_raw

SETTINGS = "hparams.yaml"
"""File in which Lightning's loggers keep a run's settings, beside its metrics."""
METRIC = ("metric", "tag", "key", "variable", "metric_name", "metric_key")
VALUE = ("value", "metric_value", "scalar")
_TIME = re.compile("time|date|created")
_OF_SAMPLES = re.compile(r"^Train_Samples_\w+\.csv")
"""Files of DeepSpeed's CSV monitor, whose column step counts samples."""
_OF_STEP = re.compile(r"^metrics_step([0-9]+)$")
"""Files that OLMo-core's MetricSaverCallback writes."""
FILE = "file"
"""Column with the part of a file's name that differs from the others."""


def read_logs(path: str | os.PathLike[str], sheet: str | None, columns: Mapping[str, str]) -> RawTable:
    """One file, or all files of a pattern such as `logs/*/metrics.csv`; each file is a run unless a column names the runs.

    Raises:
        UserError: if no such file exists, or one cannot be read.
    """
    files = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))] if _is_pattern(path) else [Path(path)]
    if not files or not files[0].exists():
        raise UserError(
            f"runs.path={path}: there is no such file; give a file, or a pattern such as logs/*/metrics.csv"
        )
    files = [file for file in files if not (_OF_STEP.search(file.stem) and file.read_text().strip() == "{}")] or files
    raws = [_known(file, spread(read_raw(file, sheet))) for file in files]
    raw = raws[0] if not _is_pattern(path) else _joined(files, raws)
    if all(_OF_STEP.search(file.stem) for file in files) and columns.get("loss") in raw.frame and "run" in raw.frame:
        return replace(raw, reasons=_stale(raw.frame, columns["loss"]))
    return condensed(raw, columns)


def _stale(frame: pd.DataFrame, loss: str) -> pd.Series:
    """Why a step holds no new loss: OLMo-core's files repeat the last measurement exactly."""
    ordered = frame.sort_values(["run", "step"])
    again = ordered[loss] == ordered.groupby("run")[loss].shift()
    return pd.Series(np.where(again.sort_index(), "the loss of an earlier step", ""), index=frame.index, dtype=object)


def spread(raw: RawTable) -> RawTable:
    """A tidy table (one row per value, with the name of its metric) with a column for each metric; others unchanged."""
    plain = {names.plain_name(str(name)): name for name in raw.frame}
    metric, value = (next((plain[one] for one in known if one in plain), None) for known in (METRIC, VALUE))
    if metric is None or value is None or raw.frame[metric].nunique() < 2 or not raw.frame.columns.is_unique:
        return raw
    beside = [own for one, own in plain.items() if own not in (metric, value) and not _TIME.search(one)]
    keys = raw.frame[[*beside, metric]]
    if not beside or keys.duplicated().any() or set(map(str, raw.frame[metric])) & set(map(str, beside)):
        return raw
    wide = raw.frame.pivot(index=beside, columns=metric, values=value).rename_axis(columns=None).reset_index()
    said = f"a row a value of {metric}: {', '.join(sorted(map(str, raw.frame[metric].unique())))}"
    return replace(raw, frame=wide.rename(columns=str), reasons=None, notes=(*raw.notes, said))


def _known(file: Path, raw: RawTable) -> RawTable:
    """Facts that only file names of some programs tell: DeepSpeed counts samples; OLMo-core's metrics belong to a step."""
    frame = raw.frame
    if _OF_SAMPLES.search(file.name) and "step" in frame:
        return replace(raw, frame=frame.rename(columns={"step": "samples"}))
    if (match := _OF_STEP.search(file.stem)) and "step" not in frame:
        return replace(raw, frame=frame.assign(step=int(match[1])))
    return raw


def condensed(raw: RawTable, columns: Mapping[str, str]) -> RawTable:
    """A log whose rows with a loss lack the values of its other rows, with one complete row per loss; others unchanged."""
    frame = raw.frame
    sources = {**names.taken(map(str, frame.columns)), **columns}
    loss, step = sources.get("loss", ""), sources.get("step", "")
    if not {loss, step} <= set(frame) or not frame.columns.is_unique:
        return raw
    there = ~(frame.isna() | frame.astype(str).apply(lambda values: values.str.strip()).isin(["", "nan"]))
    wide = _numbers(frame.where(there))
    if not _split(there, there[loss]) or not pd.api.types.is_numeric_dtype(wide[step]):
        return raw
    runs, labels = _runs(frame, sources.get("run", ""))
    out, notes = at_losses(wide.assign(run=runs).groupby(["run", step], as_index=False).last(), sources, step)
    rows = out.assign(run=labels[out["run"]]) if "run" in frame else out.drop(columns="run")
    said = f"a log: {len(rows)} losses in {len(frame)} rows"
    return replace(raw, frame=rows, reasons=None, notes=(*raw.notes, said, *notes))


def _runs(frame: pd.DataFrame, run: str) -> tuple[NDArray[np.intp], NDArray[np.object_]]:
    """Number of each row's run, and the names of the runs."""
    parts = [name for name in ([run] if run in frame else run.split("+")) if name in frame]
    called = frame[parts].astype(str).agg(" ".join, axis=1) if parts else pd.Series("", index=frame.index)
    numbers, labels = pd.factorize(called)
    return numbers, np.asarray(labels, dtype=object)


def settings_beside(folder: Path) -> dict[str, Any]:
    """The settings of a run that Lightning wrote into its folder, flat; empty if it wrote none."""
    import yaml

    file = folder / SETTINGS
    try:
        return flattened(yaml.safe_load(file.read_text()) or {}) if file.exists() else {}
    except yaml.YAMLError as error:
        raise UserError(
            f"{file}: cannot be read ({str(error).splitlines()[0]}); correct it, or move it elsewhere"
        ) from None


def _split(there: pd.DataFrame, rows: pd.Series) -> bool:
    """Whether some column is filled only in rows without a loss: the sign of a log that writes a row per kind of metric."""
    return bool(rows.any() and (there[~rows].any() & ~there[rows].any()).any())


def _numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of numbers as numbers; others unchanged."""
    numbers = {name: pd.to_numeric(values, errors="coerce") for name, values in frame.items()}
    return frame.assign(**{str(name): v for name, v in numbers.items() if (v.notna() == frame[name].notna()).all()})


def _is_pattern(path: str | os.PathLike[str]) -> bool:
    return not Path(path).exists() and glob.has_magic(str(path))


def _joined(files: list[Path], raws: list[RawTable]) -> RawTable:
    """The rows of all files together, with the name of the file and the settings beside it."""
    of_steps = all(_OF_STEP.search(file.stem) for file in files)
    called = [str(file.parent.name) for file in files] if of_steps else _told_apart(files)
    frames = [
        raw.frame.assign(
            **{FILE: name, **{k: v for k, v in settings_beside(file.parent).items() if k not in raw.frame}}
        )
        for file, name, raw in zip(files, called, raws, strict=True)
    ]
    reasons = [pd.Series("", index=r.frame.index, dtype=object) if r.reasons is None else r.reasons for r in raws]
    frame = pd.concat(frames, ignore_index=True)
    frame = frame if {names.plain_name(str(name)) for name in frame} & {"run"} else frame.rename(columns={FILE: "run"})
    return replace(
        raws[0],
        frame=frame,
        reasons=pd.concat(reasons, ignore_index=True),
        notes=(*dict.fromkeys(note for raw in raws for note in raw.notes), f"{len(files)} files"),
    )


def _told_apart(files: list[Path]) -> list[str]:
    """The parts of their paths in which files differ.

    >>> _told_apart([Path("logs/a/metrics.csv"), Path("logs/b/metrics.csv")])
    ['a', 'b']
    """
    parts = [file.with_suffix("").parts for file in files]
    if len(parts) == 1:
        return [files[0].stem]
    first = _shared(parts)
    last = _shared([own[first:][::-1] for own in parts])
    return ["/".join(own[first : len(own) - last]) or files[k].stem for k, own in enumerate(parts)]


def _shared(parts: list[tuple[str, ...]]) -> int:
    """Number of leading parts that all have in common."""
    shortest = min(map(len, parts))
    differ = [k for k in range(shortest) if len({own[k] for own in parts}) > 1]
    return differ[0] if differ else shortest
