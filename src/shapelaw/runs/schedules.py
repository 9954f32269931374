"""The place of a row in its schedule: losses of several lengths compare only at a constant rate or at a schedule's end."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from shapelaw.courses import Course

Floats = NDArray[np.float64]

CONSTANT = ("constant", "none")
"""Schedules whose rate never falls."""
POSITION = ("total_tokens", "decay_fraction", "lr_annealed", "lr_falls")
"""Columns with the place of a row in its schedule; a law with a term for that reads one of them."""
RATES = ("lr_area", "lr_annealed", "lr_falls")
"""Columns that laws of whole curves read."""
COURSE = "rate_course"
"""Further column of tracked runs: the rate of every step, as in `shapelaw.courses.Course`; missing if unknown."""
ROUNDING = 1e-9
"""Relative difference of token counts that counts as rounding."""
MEMORY = 0.999
"""Share of a fall of the rate that still acts one step later, by the law of Tissue et al. 2024 (arXiv 2408.11029);
docs/laws.md explains the choice."""


def midway(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Reason -> mask of the rows of a runs table's frame at which the rate is changing; nothing without a schedule's name.

    A schedule falls over the last `decay_fraction` of `total_tokens`, or over all of them if the fraction is unknown. If the
    total is unknown, a run's last row counts as its end.
    """
    found: dict[str, pd.Series] = {}
    if "warmup_tokens" in frame:
        found["during the warm-up"] = frame["tokens"] <= frame["warmup_tokens"]
    if "schedule" not in frame:
        return found
    ends = _ends(frame)
    begins = ends * (1.0 - _column(frame, "decay_fraction").fillna(1.0))
    inside = (frame["tokens"] > begins * (1 + ROUNDING)) & (frame["tokens"] < ends * (1 - ROUNDING))
    kind = frame["schedule"].str.lower()
    for name in sorted(set(kind[inside & (kind != "") & ~kind.isin(CONSTANT)])):
        found[f"midway through a schedule ({name})"] = inside & (kind == name)
    return found


def _ends(frame: pd.DataFrame) -> pd.Series:
    """Tokens of the whole run, for each row."""
    last = frame.groupby("run")["tokens"].transform("max")
    return _column(frame, "total_tokens").fillna(last)


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column of numbers; NaN if the table lacks it."""
    return frame[name].astype(np.float64) if name in frame else pd.Series(np.nan, index=frame.index)


def annealed(frame: pd.DataFrame) -> pd.Series:
    """`yes` for each row at the end of a falling schedule or of a cooldown, `no` at a constant rate; else empty."""
    said = pd.Series("", index=frame.index, dtype=object)
    if "schedule" in frame:
        falls = (frame["schedule"] != "") & ~frame["schedule"].str.lower().isin(CONSTANT)
        said[frame["schedule"] != ""] = "no"
        said[falls & (frame["tokens"] >= _ends(frame) * (1 - ROUNDING))] = "yes"
    if "cooldown" in frame:
        said[(frame["cooldown"] == 0) & (said == "")] = "no"
        said[frame["cooldown"] > 0] = "yes"
    return said


def areas(steps: Floats, lr: Floats) -> tuple[Floats, Floats]:
    """Sums over the steps of one run up to each of its rows: of the rate, S1, and of the decaying effect of its falls, S2.

        S1(s) = sum_{i <= s} lr_i,   S2(s) = sum_{i <= s} m_i,   m_i = MEMORY m_{i-1} + max(lr_{i-1} - lr_i, 0)

    The rate is interpolated between rows, and constant before the first row: a warm-up is ignored.

    Args:
        steps: steps of the rows, ascending, (n,).
        lr: rate at these steps, (n,).

    Source: Tissue et al. 2024 (arXiv 2408.11029), section 3.

    >>> [values.round(6).tolist() for values in areas(np.array([10.0, 12.0]), np.array([1.0, 0.8]))]
    [[10.0, 11.7], [0.0, 0.2999]]
    """
    n, start = np.diff(steps, prepend=0.0), np.concatenate([lr[:1], lr[:-1]])
    area = np.cumsum(n * start + (lr - start) * (n + 1) / 2)
    fall = np.divide(np.maximum(start - lr, 0.0), n, out=np.zeros_like(lr), where=n > 0)
    left, total = MEMORY**n, 1.0 / (1.0 - MEMORY)
    annealed, memory = np.zeros_like(lr), 0.0
    for i in range(len(lr)):  # n steps in closed form: geometric sums of earlier memory and of each step's fall
        worn = MEMORY * (1.0 - left[i]) * total
        annealed[i] = memory * worn + fall[i] * (n[i] - worn) * total
        memory = left[i] * memory + fall[i] * (1.0 - left[i]) * total
    return area, np.cumsum(annealed)


GROUPS = np.concatenate([np.arange(2), *(2 ** (k + 1) + 2**k * np.arange(2) for k in range(20))])
"""Starts of the groups of falls, counted back from a row: four of one fall each, then two of 2, 4, 8, ... falls."""


def falls(area: Floats, lr: Floats) -> Floats:
    """Falls of one run's rate up to each of its rows, in groups that are coarser the longer ago they are: (n, groups, 3).

    A group holds the sum of its falls (a rise counts as a negative fall), the resulting rate, and the rate summed since; the
    latter two as means weighted by the falls. A fall counts half-way between its rows. Groups without a fall are 0.

    Args:
        area: S1 of `areas`, at rows in the order of steps, (n,).
        lr: rate at these rows, (n,).
    """
    fall, middle = lr[:-1] - lr[1:], (area[:-1] + area[1:]) / 2
    moved = np.flatnonzero(fall)
    out = np.zeros((len(lr), len(GROUPS), 3))
    for row in range(1, len(lr)):
        past = moved[: np.searchsorted(moved, row)][::-1]
        begins = GROUPS[len(past) > GROUPS]
        if len(past):
            weight = np.abs(fall[past])
            parts = fall[past], weight * lr[past + 1], weight * (area[row] - middle[past])
            sums, rates, since = (np.add.reduceat(part, begins) for part in parts)
            share = np.add.reduceat(weight, begins)
            out[row, : len(begins)] = np.stack([sums, rates / share, since / share], axis=1)
    return out


def falls_of(frame: pd.DataFrame) -> Floats:
    """`falls` of every row of a runs table's frame, whose columns lr_step and lr_area hold the rate and its sum."""
    out = np.zeros((len(frame), len(GROUPS), 3))
    area, rate = (frame[name].to_numpy(dtype=np.float64) for name in ("lr_area", "lr_step"))
    for own in frame.groupby("run", sort=False).indices.values():
        known = own[np.isfinite(area[own]) & np.isfinite(rate[own])]
        ordered = known[np.argsort(area[known], kind="stable")]
        out[ordered] = falls(area[ordered], rate[ordered])
    used = np.flatnonzero(out.any(axis=(0, 2)))
    return out[:, : used[-1] + 1 if len(used) else 1]


def with_areas(frame: pd.DataFrame, lr: pd.Series) -> pd.DataFrame:
    """A frame with lr_area, lr_annealed and lr_step; unchanged if the rate varies along no run, or steps are unknown.

    Args:
        frame: canonical columns, including run, and step, or tokens and batch_tokens.
        lr: rate of each row; a row without a rate, and the rest of its run, gets no areas.
    """
    rates = pd.to_numeric(lr, errors="coerce").astype(np.float64)
    if not (rates.groupby(frame["run"]).nunique() > 1).any():
        return frame
    if "step" in frame:
        steps = _column(frame, "step")
    elif {"tokens", "batch_tokens"} <= set(frame):
        steps = _column(frame, "tokens") / _column(frame, "batch_tokens")
    else:
        return frame
    if pd.DataFrame({"run": frame["run"], "step": steps}).duplicated().any():  # several runs under one name
        return frame
    out = pd.DataFrame({"lr_area": np.nan, "lr_annealed": np.nan}, index=frame.index)
    for _, own in steps.groupby(frame["run"], sort=False):
        ordered = own.sort_values(kind="stable").index
        out.loc[ordered] = np.stack(areas(np.asarray(steps[ordered]), np.asarray(rates[ordered])), axis=1)
    return frame.assign(**out, lr_step=rates)


def with_course_areas(frame: pd.DataFrame, courses: pd.Series) -> pd.DataFrame:
    """A frame with lr_area, lr_annealed and lr_step, summed over every step of the recorded courses of the rate.

    Args:
        frame: canonical columns, including step.
        courses: course of each row; a row without one gets none of the three.
    """
    out = pd.DataFrame(np.nan, frame.index, ["lr_area", "lr_annealed", "lr_step"])
    steps = _column(frame, "step")
    for course, own in steps[courses.notna() & (steps > 0)].groupby(courses, sort=False):
        done = own.to_numpy(dtype=np.int64)
        rates = np.array(Course.of(str(course)).rates(int(done.max())))
        out.loc[own.index] = np.stack([*sums(rates), rates], axis=1)[done - 1]
    return frame.join(out)


def sums(rates: Floats) -> tuple[Floats, Floats]:
    """S1 and S2 of `areas` after each step, from the rate of every step, each (steps,).

    >>> [values.round(6).tolist() for values in sums(np.array([1.0, 1.0, 0.8]))]
    [[1.0, 2.0, 2.8], [0.0, 0.0, 0.2]]
    """
    fallen = np.maximum(-np.diff(rates, prepend=rates[:1]), 0.0)
    return np.cumsum(rates), np.cumsum(scipy.signal.lfilter([1.0], [1.0, -MEMORY], fallen))
