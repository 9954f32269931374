"""Many settings of one size: a named rule reduces rows that share params and tokens to one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from shapelaw.errors import UserError
from shapelaw.runs.columns import CANONICAL, FURTHER_LOSS, is_canonical
from shapelaw.runs.names import plain_name

if TYPE_CHECKING:
    from shapelaw.runs.table import RunsTable

RULES = ("best", "last", "mean", "none")
SIZE = ("params", "tokens", "width", "depth")
"""Columns that rows of one size share, if the table has them."""
SET_ASIDE = "not the "
"""Start of the reason with which a rule excludes a row."""
WORLD = ("vocab_size", "seq_len", "head_size", "cooldown")
"""Numbers that, like every canonical text except a run's own, separate rows that no rule compares."""
OF_A_RUN = ("run", "mlflow_run_id", "status", "excluded")
"""Texts that differ from run to run."""
TUNED = re.compile(
    r"(^|_)(lr|learning_rate|eta|batch|bs|gbs|bsz|warmup|weight_decay|wd|beta1|beta2|momentum|dropout|clip|grad_clip|init_std)(_|$)"
)
"""Names of tuned settings, as `plain_name` gives them: people try several values and take the best."""
SETTING = re.compile(rf"{TUNED.pattern}|(^|_)(seed|trial|replicate|repeat)(_|$)")
MOST_SPREAD = 0.03
"""Median relative spread of the losses of one size above which its rows cannot be repeats of one setting."""


@dataclass(frozen=True)
class Settings:
    """The differences between rows of one size.

    Args:
        cells: number of sizes that several rows share.
        rows: number of rows of these sizes.
        most: number of rows of the size that has most.
        tuned: columns of settings in which they differ.
        apart: columns of text that separate them for another reason than settings.
        spread: median over the sizes of (largest - smallest loss) / smallest.
    """

    cells: int = 0
    rows: int = 0
    most: int = 0
    tuned: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    spread: float = 0.0

    @property
    def words(self) -> str:
        return f"{self.rows} rows share {self.cells} sizes and token counts (up to {self.most} rows each)"


def settings_of(table: RunsTable, by: list[str]) -> Settings:
    """The differences between kept rows that share some columns."""
    rows = table.rows
    shared = rows[rows.duplicated(by, keep=False)]
    if shared.empty:
        return Settings()
    cells = shared.groupby(by, sort=False, dropna=False)
    losses, varied = cells["loss"], cells.nunique(dropna=False).gt(1).any()
    tuned = tuple(str(name) for name, differs in varied.items() if differs and TUNED.search(plain_name(str(name))))
    apart = tuple(str(name) for name, differs in varied.items() if differs and _sets_apart(rows, str(name)))
    spread = float(((losses.max() - losses.min()) / losses.min()).median())
    return Settings(len(cells), len(shared), int(cells.size().max()), tuned, apart, spread)


def telling_apart(rows: pd.DataFrame) -> list[str]:
    """Columns of settings, or of text, which show that rows with the same run and token count belong to several runs."""
    groups = rows.groupby(["run", "tokens"], sort=False)
    varied = groups.nunique(dropna=False).gt(1).any()
    candidates = [
        str(name)
        for name, differs in varied.items()
        if differs and (SETTING.search(plain_name(str(name))) or _sets_apart(rows, str(name)))
    ]
    return [] if rows.duplicated(["run", "tokens", *candidates]).any() else candidates


def _sets_apart(rows: pd.DataFrame, name: str) -> bool:
    """Whether a column is text that names groups of rows, rather than each row."""
    if name in OF_A_RUN or pd.api.types.is_numeric_dtype(rows[name]):
        return False
    return bool(2 * rows[name].nunique() <= len(rows))


def reduced(table: RunsTable, rule: str, by: Sequence[str] = (), apart: Sequence[str] = ()) -> RunsTable:
    """The table with one kept row for each size and token count; the others are excluded with that reason.

    Args:
        table: the runs table.
        rule: `best` (lowest loss), `last` (most tokens, then latest step, then last in the table), `mean` (of the losses, on
            the first row), `none`, or `auto`: best if rows of one size differ in settings that are usually tuned (a rate, a
            batch), none if they do not differ in their settings.
        by: columns whose values the rows of one size share; by default params and tokens, the shape, and other columns that
            make losses incomparable (suite, vocabulary, context, cooldown), as far as the table has them.
        apart: further columns that such rows share, unless `by` names some.

    Raises:
        UserError: for an unknown column, or with `auto`, if no rule fits the columns in which rows differ.
    """
    known = list(map(str, table.rows.columns))
    if unknown := [name for name in by if name not in known]:
        raise UserError(f"runs.reduce_by: no column {', '.join(unknown)}; the table has {', '.join(known)}")
    if by and rule not in ("best", "last", "mean"):
        raise UserError(f"runs.reduce_by=[{', '.join(by)}]: needs runs.reduce=best, last or mean")
    key = list(by) or _default_key(known, apart)
    several = settings_of(table, key)
    taken = _chosen(table, several) if rule == "auto" else rule
    if taken == "none":
        left = settings_of(table, _default_key(known, [name for name in apart if not is_canonical(name)]))
        said = f"none: {left.words}; runs.reduce=best, last or mean keeps one" if left.cells else ""
        return table.noting("reduction", said) if said else table
    frame, said = collapse(table.frame, table.rows, taken, key)
    settings = ", ".join(dict.fromkeys((*several.tuned, *several.apart)))
    differing = f" (they differ in {settings})" if settings else ""
    return replace(table, frame=frame).noting("reduction", said + differing) if said else table


def every_setting(table: RunsTable, counting: str = "total") -> pd.DataFrame:
    """The kept rows and those that a rule dropped for them, with every column; `counting` sets how params are counted."""
    reasons = table.frame["excluded"]
    aside = reasons.str.startswith(SET_ASIDE)
    whole = replace(table, frame=table.frame.assign(excluded=reasons.where(~aside, "")))
    return whole.rows.assign(params=whole.params(counting))


def size_columns(rows: pd.DataFrame) -> list[str]:
    """The columns that rows of one size and token count share."""
    return _default_key(list(map(str, rows.columns)), ())


def _default_key(known: Sequence[str], apart: Sequence[str]) -> list[str]:
    texts = [name for name, column in CANONICAL.items() if column.text and name not in OF_A_RUN]
    return [name for name in dict.fromkeys((*SIZE, *WORLD, *texts, *apart)) if name in known]


def _chosen(table: RunsTable, several: Settings) -> str:
    """The rule that suits the differences between rows of one size."""
    if several.apart:
        name = several.apart[0]
        example = f"{name} == '{table.rows[name].mode()[0]}'"
        raise UserError(
            f"runs table: {several.words} and differ in {', '.join(several.apart)}; select some with subset.where, such as "
            f'"{example}", or give runs.reduce=best, last or mean (one row for each size), or runs.reduce=none (all rows)'
        )
    if several.tuned:
        return "best"
    if several.spread > MOST_SPREAD and not table.has("accuracy"):  # a law of accuracies has the loss as its predictor
        raise UserError(
            f"runs table: {several.words} whose losses differ by {several.spread:.1%}, more than for repeats of one "
            "setting; give runs.reduce=best, last or mean (one row for each size), or runs.reduce=none (all rows)"
        )
    return "none"


def collapse(frame: pd.DataFrame, rows: pd.DataFrame, rule: str, key: list[str]) -> tuple[pd.DataFrame, str]:
    """A frame in which one row of each group stays and the others are excluded with their reason; and a description.

    Args:
        frame: the frame, with the column excluded.
        rows: the kept rows, with the frame's index and every column that `key` names.
        rule: `best`, `last` or `mean`.
        key: columns that the rows of a group share.
    """
    groups = rows.groupby(key, sort=False, dropna=False)
    size = groups["loss"].transform("size")
    if not (size > 1).any():
        return frame, ""
    stays, by, out = _staying(rows, key, rule), ", ".join(key), frame.copy()
    if rule == "mean":
        losses = [name for name in frame if name in ("loss", "accuracy", "error") or FURTHER_LOSS.fullmatch(str(name))]
        out.loc[stays, losses] = groups[losses].transform("mean").loc[stays]
    reason = f"averaged into another row of its {by}" if rule == "mean" else f"{SET_ASIDE}{rule} row of its {by}"
    out.loc[rows.index.difference(stays), "excluded"] = reason
    many = int((size > 1).sum()), int((size.loc[stays] > 1).sum())
    return out, f"{rule} of the rows that share {by}: {many[0]} rows became {many[1]}"


def _staying(rows: pd.DataFrame, key: list[str], rule: str) -> pd.Index[Any]:
    """Index of the row of each group that stays."""
    if rule == "last":
        order = [name for name in ("tokens", "step") if name in rows]
        return rows.sort_values(order, kind="stable").drop_duplicates(key, keep="last").index
    ordered = rows.sort_values("loss", kind="stable") if rule == "best" else rows
    return ordered.drop_duplicates(key).index
