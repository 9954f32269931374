"""A law of the best rate and batch in params N and tokens T, from the runs that `reduce` drops.

    lr = c N^a T^b,   B = d T^e

If rows of one size and token count differ in rate (and batch), a quadratic in their logarithms has its minimum at the best
values (`fitting.rates` if only the rate differs). Lines through the logarithms of these minima are the law.

Source: Li et al. 2025, Step Law (arXiv 2503.04715), eq 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.config import BootstrapOptions
from shapelaw.errors import UserError
from shapelaw.fitting.intervals import percentile
from shapelaw.fitting.rates import REACH, best_rate
from shapelaw.runs.names import plain_name
from shapelaw.runs.reduce import every_setting, size_columns
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]

AXES = {"lr": ("params", "tokens"), "batch_tokens": ("tokens",)}
"""Setting -> the quantities on which its best value depends."""
SYMBOLS = {"lr": "lr", "batch_tokens": "B", "params": "N", "tokens": "T"}
RATE = re.compile(r"(^|_)(lr|learning_rate)$")
FEWEST = 3
"""Values of a setting around the best one that a parabola needs."""
QUADRATIC = 6
"""Coefficients of a quadratic in two variables."""


@dataclass(frozen=True)
class SettingLaw:
    """One line through the logarithms of best settings.

    Args:
        setting: `lr` or `batch_tokens`.
        column: the column of the table that held it.
        vector: intercept, then an exponent of each of `AXES`, (k,).
        refits: the same for each refit to resampled sizes, where sizes that share runs stay together, (n, k).
        sizes: number of sizes and token counts behind it.
    """

    setting: str
    column: str
    vector: Array
    refits: Array
    sizes: int

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> SettingLaw:
        """From the result of `plain`."""
        vector = np.array(plain["vector"], dtype=np.float64)
        refits = np.array(plain["refits"], dtype=np.float64).reshape(-1, len(vector))
        return cls(plain["setting"], plain["column"], vector, refits, plain["sizes"])

    def plain(self) -> dict[str, Any]:
        """As JSON types."""
        arrays = {"vector": self.vector.tolist(), "refits": self.refits.tolist()}
        return {"setting": self.setting, "column": self.column, **arrays, "sizes": self.sizes}

    def at(self, sizes: Mapping[str, Array]) -> Array:
        """The best setting of sizes, (n,): the first by the law's own vector, the others by the refits in turn."""
        rows = np.vstack([self.vector, *([self.refits] if len(self.refits) else [])])
        n = len(sizes["tokens"])
        chosen = (
            rows[np.concatenate([[0], 1 + np.arange(n - 1) % len(self.refits)])] if len(self.refits) else rows[[0] * n]
        )
        return np.asarray(np.exp(np.sum(chosen * _design(self.setting, sizes), axis=1)))

    def told(self, bootstrap: BootstrapOptions | None) -> str:
        """The law in a line, with the interval of each exponent."""
        factors = [f"{SYMBOLS[self.setting]} = {math.exp(self.vector[0]):.4g}"]
        for place, axis in enumerate(AXES[self.setting], start=1):
            ends = percentile(self.refits[:, place], bootstrap.level) if bootstrap and len(self.refits) else None
            spread = f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
            factors.append(f"{SYMBOLS[axis]}^{self.vector[place]:.3f}{spread}")
        return f"{' '.join(factors)}, from {self.sizes} sizes and token counts (column {self.column})"


def setting_laws(
    runs: RunsTable, counting: str, bootstrap: BootstrapOptions | None = None, seed: int = 0
) -> tuple[tuple[SettingLaw, ...], str]:
    """The laws of the best settings that a table allows, or the reason why rows with different settings give none.

    Args:
        runs: the table, in which the rows that a rule reduced are excluded with that reason.
        counting: how params are counted.
        bootstrap: number of refits, and their level; None makes none.
        seed: seed of the draws.
    """
    names = [*runs, *([] if runs.further is None else map(str, runs.further))]
    if "lr_base" not in names and not any(RATE.search(plain_name(name)) for name in names):
        return (), ""
    rows = every_setting(runs, counting)
    column = _rate_column(rows)
    if column is None:
        return (), ""
    minima, several = _minima(rows, column)
    minima = minima.assign(cluster=_clusters(list(minima["runs"])))
    if not several:
        return (), ""
    draws = bootstrap.n if bootstrap else 0
    columns = {"lr": column, "batch_tokens": "batch_tokens"}
    laws = [_law(setting, columns[setting], minima, draws, seed) for setting in AXES]
    found = tuple(law for law in laws if law is not None)
    return found, "" if found else _why_none(minima, several, column)


def _why_none(minima: pd.DataFrame, several: int, column: str) -> str:
    return (
        f"no law of the best {column}: {len(minima)} of {several} sizes and token counts have their best value inside "
        "the tried range, and a law needs four or more that differ in params and in tokens; try more rates around the "
        "best of each"
    )


def _rate_column(rows: pd.DataFrame) -> str | None:
    """The one column of a rate that is constant within runs; none if the rate varies along runs."""
    if "lr_area" in rows:
        return None
    if "lr_base" in rows and rows["lr_base"].nunique() > 1:
        return "lr_base"
    named = [str(name) for name in rows if RATE.search(plain_name(str(name)))]
    numeric = [name for name in named if pd.api.types.is_numeric_dtype(rows[name]) and (rows[name] > 0).all()]
    return numeric[0] if len(numeric) == 1 else None


def _minima(rows: pd.DataFrame, column: str) -> tuple[pd.DataFrame, int]:
    """The best settings of each size and token count that has some, and the number that were tried with several."""
    found, several, key = [], 0, size_columns(rows)
    tried = rows.groupby(key, sort=False, dropna=False)[column].transform("nunique")
    for _, cell in rows[tried >= FEWEST].groupby(key, sort=False, dropna=False):
        several += 1
        batch = cell["batch_tokens"].to_numpy(np.float64) if "batch_tokens" in cell else np.ones(len(cell))
        best = _best(np.log(cell[column].to_numpy(np.float64)), np.log(batch), cell["loss"].to_numpy(np.float64))
        if best is not None:
            size = {"params": cell["params"].iloc[0], "tokens": cell["tokens"].iloc[0], "runs": frozenset(cell["run"])}
            found.append({**size, **best})
    return pd.DataFrame(found, columns=["params", "tokens", "runs", *AXES]), several


def _clusters(cells: Sequence[frozenset[str]]) -> list[int]:
    """The cluster of each size and token count; those that share runs form a cluster and are drawn together."""
    label: dict[str, int] = {}
    for place, own in enumerate(cells):
        joined = {label[run] for run in own if run in label}
        label |= {run: place for run, known in label.items() if known in joined} | dict.fromkeys(own, place)
    return [label[next(iter(own))] for own in cells]


def _best(x: Array, y: Array, loss: Array) -> dict[str, float] | None:
    """The minimum of the losses of one size; None if it does not lie inside the tried values."""
    at = int(np.argmin(loss))
    near = _near(x, x[at]) & _near(y, y[at])
    wide = len(np.unique(x[near])) >= FEWEST and len(np.unique(y[near])) >= FEWEST
    if wide and near.sum() > QUADRATIC:
        vertex = _vertex(x[near] - x[at], y[near] - y[at], loss[near])
        return None if vertex is None else {"lr": x[at] + vertex[0], "batch_tokens": y[at] + vertex[1]}
    own = y == y[at]
    try:
        return {"lr": math.log(best_rate(np.exp(x[own]), loss[own]).rate), "batch_tokens": math.nan}
    except UserError:
        return None


def _near(values: Array, lowest: float) -> NDArray[np.bool_]:
    """Values within reach of the best, and its neighbours in any case."""
    below, above = values[values < lowest], values[values > lowest]
    start = min([lowest - math.log(REACH), *([below.max()] if len(below) else [])])
    end = max([lowest + math.log(REACH), *([above.min()] if len(above) else [])])
    return np.asarray((start <= values) & (values <= end))


def _vertex(x: Array, y: Array, loss: Array) -> Array | None:
    """Minimum of the least-squares quadratic, if it has one inside the values."""
    design = np.column_stack([x * x, x * y, y * y, x, y, np.ones_like(x)])
    (xx, xy, yy, bx, by, _), _, rank, _ = np.linalg.lstsq(design, loss)
    bend = np.array([[2 * xx, xy], [xy, 2 * yy]])
    if rank < QUADRATIC or np.linalg.eigvalsh(bend)[0] <= 0:
        return None
    vertex = -np.linalg.solve(bend, [bx, by])
    inside = x.min() < vertex[0] < x.max() and y.min() < vertex[1] < y.max()
    return np.asarray(vertex) if inside else None


def _law(setting: str, column: str, minima: pd.DataFrame, draws: int, seed: int) -> SettingLaw | None:
    """The line through the minima; None if they are too few, or do not differ enough."""
    known = minima[minima[setting].notna()]
    values = known[setting].to_numpy(np.float64)
    design = _design(setting, {axis: known[axis].to_numpy(np.float64) for axis in AXES[setting]})
    needed = design.shape[1] + 1
    if len(known) < needed or np.linalg.matrix_rank(design - np.array([0, *design[:, 1:].mean(axis=0)])) < needed - 1:
        return None
    refits = [_line(design[rows], values[rows]) for rows in _drawn(known["cluster"].to_numpy(), draws, seed)]
    kept = [refit for refit in refits if refit is not None]
    vector = _line(design, values)
    return (
        None
        if vector is None
        else SettingLaw(setting, column, vector, np.array(kept).reshape(-1, len(vector)), len(known))
    )


def _drawn(clusters: NDArray[np.int64], draws: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Indices of the sizes of clusters drawn with replacement; nothing for a single cluster, which has no spread."""
    own = [np.flatnonzero(clusters == cluster) for cluster in np.unique(clusters)]
    rng = np.random.default_rng(seed)
    for _ in range(draws if len(own) > 1 else 0):
        yield np.concatenate([own[k] for k in rng.integers(0, len(own), len(own))])


def _line(design: Array, values: Array) -> Array | None:
    centre = np.array([0.0, *design[:, 1:].mean(axis=0)])
    vector, _, rank, _ = np.linalg.lstsq(design - centre, values)
    if rank < design.shape[1]:
        return None
    return np.array([vector[0] - vector[1:] @ centre[1:], *vector[1:]])


def _design(setting: str, sizes: Mapping[str, Array]) -> Array:
    logs = [np.log(sizes[axis]) for axis in AXES[setting]]
    return np.column_stack([np.ones_like(logs[0]), *logs])


def told(laws: Sequence[SettingLaw], why: str, bootstrap: BootstrapOptions | None) -> tuple[str, ...]:
    """The flags of a fit about them."""
    return (*(f"best_settings: {law.told(bootstrap)}" for law in laws), *((f"best_settings: {why}",) if why else ()))
