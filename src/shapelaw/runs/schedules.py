"""Where in its schedule a row lies: only at a constant rate, or at a schedule's end, do losses of several lengths compare."""

from __future__ import annotations

import numpy as np
import pandas as pd

CONSTANT = ("constant", "none")
"""Schedules whose rate never falls."""
POSITION = ("total_tokens", "decay_fraction")
"""Columns that say where in its schedule a row lies; a law with a term for that reads one of them."""
ROUNDING = 1e-9
"""Relative difference of token counts that is rounding."""


def midway(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Reason -> mask of the rows of a runs table's frame at which the rate is on its way; nothing without a schedule's name.

    A schedule falls over the last `decay_fraction` of `total_tokens`: over all of them where the fraction is not named. Where
    the total is not named, a run's last row counts as its end.
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
    """Tokens of the whole run, of each row."""
    last = frame.groupby("run")["tokens"].transform("max")
    return _column(frame, "total_tokens").fillna(last)


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column of numbers; NaN where the table lacks it."""
    return frame[name].astype(np.float64) if name in frame else pd.Series(np.nan, index=frame.index)


def annealed(frame: pd.DataFrame) -> pd.Series:
    """`yes` of each row that lies at the end of a falling schedule or of a cooldown, `no` at a constant rate; else empty."""
    said = pd.Series("", index=frame.index, dtype=object)
    if "schedule" in frame:
        falls = (frame["schedule"] != "") & ~frame["schedule"].str.lower().isin(CONSTANT)
        said[frame["schedule"] != ""] = "no"
        said[falls & (frame["tokens"] >= _ends(frame) * (1 - ROUNDING))] = "yes"
    if "cooldown" in frame:
        said[(frame["cooldown"] == 0) & (said == "")] = "no"
        said[frame["cooldown"] > 0] = "yes"
    return said
