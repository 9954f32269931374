"""One table from runs as trackers keep them, with settings and histories of metrics apart: a row for each measured loss.

A tracker records different metrics at different steps. At the step of a loss, a count that grows with training (tokens, FLOPs,
hours) is interpolated between its neighbouring records, and everything else has its last recorded value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.runs import names
from shapelaw.runs.columns import FURTHER_LOSS
from shapelaw.runs.readers import RawTable

Array = NDArray[np.float64]
GROWING = ("tokens", "flops", "device_hours")
"""Counts of training so far, which are interpolated between the steps at which they were recorded."""
MEASURED = ("loss", "accuracy", "error")
"""Measurements that make up a row, each taken at its own step only."""
HELD_OUT = frozenset(names.USUAL["loss"]) - {"l", "train_loss", "lm_loss", "ce_loss", "cross_entropy"}
"""Names of losses that are apparently measured on held-out text."""
BEFORE = "before the first step"
SETTING = "config."
"""Prefix of a setting whose name a metric also has."""
_SHOWN = 12


@dataclass(frozen=True)
class Histories:
    """The runs of a tracker.

    Args:
        settings: one row per run: `run` (its name), and all facts of the run as a whole.
        metrics: one row per value: run (number of its row in `settings`), step, metric and value, in the order of recording.
        recorded: names of all metrics that the runs recorded, including those that were not read.
        step: the tracker's name for the step.
        notes: notes for a reader of the fit.
    """

    settings: pd.DataFrame
    metrics: pd.DataFrame
    recorded: tuple[str, ...]
    step: str = "step"
    notes: tuple[str, ...] = ()

    def table(self, place: str, columns: Mapping[str, str]) -> RawTable:
        """One row per loss, with the run's settings and the values of the metrics at that time.

        Args:
            place: where the runs lie, for messages.
            columns: canonical name -> metric or setting, as the user mapped them; canonical names need no entry.

        Raises:
            UserError: if no loss is named, or a name belongs to neither a metric nor a setting.
        """
        settings = self._settings()
        sources = {**names.taken([*self.recorded, *settings.columns]), **columns}
        self._refuse_unclear(place, sources, settings, named="loss" in columns)
        wide, notes = at_losses(self._wide(), sources, self.step)
        lost = len(settings) - wide["run"].nunique()
        if lost == len(settings):
            raise UserError(f"{place}: no run recorded a value of {sources['loss']}")
        said = f"{lost} of {len(settings)} runs recorded no {sources['loss']}" if lost else ""
        frame = settings.loc[wide["run"]].reset_index(drop=True).join(wide.drop(columns="run"))
        reasons = _untimely(frame, sources, self.step)
        return RawTable(
            frame, reasons=reasons, notes=(*self.notes, *filter(None, (said, *notes))), holder="the runs have"
        )

    def _settings(self) -> pd.DataFrame:
        taken = {name: SETTING + name for name in self.settings.columns if name in {*self.recorded, self.step}}
        return self.settings.rename(columns=taken)

    def _refuse_unclear(self, place: str, sources: Mapping[str, str], settings: pd.DataFrame, named: bool) -> None:
        known = {*self.recorded, *settings.columns, self.step}
        unknown = [f"{ours}={theirs}" for ours, theirs in sources.items() if not set(theirs.split("+")) & known]
        rivals = [name for name in self.recorded if names.plain_name(name) in HELD_OUT and name != sources.get("loss")]
        if not unknown and "loss" in sources and (named or not rivals):
            return
        there = f"the runs recorded {_listed(self.recorded)}; their settings are {_listed(settings.columns)}"
        if unknown:
            raise UserError(f"{place}: runs.columns: {', '.join(unknown)} is not a metric or setting; {there}")
        if "loss" in sources:
            raise UserError(
                f"{place}: {', '.join([sources['loss'], *rivals])} may be the loss; give 'runs.columns={{loss: {rivals[0]}}}'"
            )
        trained = [name for name in known if rivals and "train" in names.plain_name(name)]
        free = sorted(known - {*sources.values(), *trained})
        missing = [ours for ours in ("params", "tokens", "loss") if ours not in sources]
        raise UserError(f"{place}: no metric loss; {there}; map them: {names.mapping(missing, free)}")

    def _wide(self) -> pd.DataFrame:
        """One row per run and step, one column per metric; of several values at a step, the last counts."""
        last = self.metrics.drop_duplicates(["run", "step", "metric"], keep="last")
        wide = last.pivot(index=["run", "step"], columns="metric", values="value").sort_index()
        return wide.rename_axis(columns=None).reset_index().rename(columns={"step": self.step})


def wanted(recorded: Iterable[str], columns: Mapping[str, str]) -> list[str]:
    """The metrics for a table: those that the user named, and those with a canonical name."""
    listed = list(recorded)
    named = {part for theirs in columns.values() for part in (theirs, *theirs.split("+"))}
    return sorted(({*names.taken(listed).values()} | named) & set(listed))


def flattened(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings under dotted names; lists as JSON.

    >>> flattened({"model": {"width": 64}, "betas": [0.9, 0.95]})
    {'model.width': 64, 'betas': '[0.9, 0.95]'}
    """
    out: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            out |= flattened(value, f"{before}{name}.")
        else:
            out[f"{before}{name}"] = json.dumps(value) if isinstance(value, list | tuple) else value
    return out


def called(run_names: Sequence[str], ids: Sequence[str]) -> list[str]:
    """Names of runs, with their ids if several runs share a name.

    >>> called(["a", "a", "b"], ["1", "2", "3"])
    ['a 1', 'a 2', 'b']
    """
    shared = {name for name, count in pd.Series(run_names, dtype=object).value_counts().items() if count > 1}
    return [
        f"{name} {own}".strip() if name in shared or not name else name
        for name, own in zip(run_names, ids, strict=True)
    ]


def at_losses(wide: pd.DataFrame, sources: Mapping[str, str], step: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows at which the loss was measured, with every other column filled from the steps around them; and notes."""
    if sources["loss"] not in wide:
        return wide.iloc[:0], []
    out, notes = wide.copy(), []
    measured = {theirs for ours, theirs in sources.items() if ours in MEASURED or FURTHER_LOSS.fullmatch(ours)}
    growing = {sources[ours]: ours for ours in GROWING if ours in sources}
    rows = out[sources["loss"]].notna().to_numpy()
    for name in [name for name in wide.columns if name not in ("run", step, *measured)]:
        if name in growing and name != step:
            out[name] = _interpolated(wide["run"].to_numpy(), wide[step].to_numpy(float), wide[name].to_numpy(float))
            between = int((rows & wide[name].isna().to_numpy() & out[name].notna().to_numpy()).sum())
            notes += [f"{growing[name]}: {name}, interpolated between its records at {between} rows"] if between else []
        elif name not in growing:
            out[name] = wide.groupby("run")[name].transform(lambda values: values.ffill().bfill())
    return out[rows].reset_index(drop=True), notes


def _untimely(frame: pd.DataFrame, sources: Mapping[str, str], step: str) -> pd.Series | None:
    """Why a row has no tokens: nothing was trained yet, or no step around it recorded them."""
    if sources.get("tokens") not in frame or sources["tokens"] == step:
        return None
    tokens = pd.to_numeric(frame[sources["tokens"]], errors="coerce")
    start = (tokens == 0) | (tokens.isna() & (frame[step] == 0))
    reasons = np.where(start, BEFORE, np.where(tokens.isna(), f"{sources['tokens']} is recorded at no step around", ""))
    return pd.Series(reasons, dtype=object)


def _interpolated(run: NDArray[np.int64], step: Array, values: Array) -> Array:
    """Values at every row, (n,), with rows sorted by run and step: recorded, or interpolated between the records around them.

    After its last record, a count continues at its last pace, for as many steps as lie between its last two records.
    """
    out = values.copy()
    for rows in np.split(np.arange(len(run)), np.flatnonzero(np.diff(run)) + 1):
        there = rows[np.isfinite(values[rows])]
        if len(there) < 2:
            continue
        (before, last), steps = there[-2:], step[rows]
        out[rows] = np.interp(steps, step[there], values[there], left=np.nan, right=np.nan)
        gap = step[last] - step[before]
        after = (steps > step[last]) & (steps <= step[last] + gap)
        out[rows[after]] = values[last] + (values[last] - values[before]) / gap * (steps[after] - step[last])
    return out


def _listed(all_names: Iterable[str]) -> str:
    listed = sorted(all_names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return (", ".join(listed[:_SHOWN]) or "none") + more
