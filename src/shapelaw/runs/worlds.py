"""One fit, one world: whether the losses of a table can be compared, and the settings that vary on purpose.

A fact comes from a column of the table or, without one, from the record of a run's suite. Losses on two corpora, tokenizers,
vocabularies or held-out samples, or measured by two programs, follow no common law, so such a mixture is refused. Settings that
a study varies on purpose (batch, rate, context, ...) are fitted and flagged. A fact that a row lacks is no difference, but it
is flagged if other rows have it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from shapelaw.errors import UserError
from shapelaw.runs.schedules import POSITION, ROUNDING, annealed, midway
from shapelaw.suite import FIELDS, Suite, exactly
from shapelaw.wording import counted

if TYPE_CHECKING:
    from shapelaw.runs.table import RunsTable

INCOMPARABLE = ("corpus", "tokenizer", "vocab_size", "evaluation_set", "validation_tokens", "loss_unit", "trainer")
"""Facts that losses must share to be comparable."""
ON_PURPOSE = (
    *("suite", "seq_len", "batch_tokens", "lr_base", "lr_rule", "width_unit", "patch", "lr_batch_scaling"),
    *("schedule", "decay_fraction", "warmup_tokens", "cooldown", "annealed"),
    *("optimizer", "precision", "architecture", "head_size", "sweep"),
)
"""Facts that a study may vary."""
SCHEDULED = ("schedule", "decay_fraction", "annealed")
"""Facts that a law with a term for the schedule accounts for."""
RECORDED = {"suite": "name"} | {
    name: name for name in (*INCOMPARABLE, *ON_PURPOSE) if name in FIELDS and name != "suite"
}
"""Fact -> the field of a suite's record that holds it."""
MIXTURES = ("refuse", "allow")
MOST_VALUES = 4
"""Values of a fact that a flag lists."""
MOST_PARTS = 12
"""Parts of a mixture that a refusal lists."""


@dataclass(frozen=True)
class Share:
    """The number of rows, and of their runs, with a value of a fact; None counts those that lack it."""

    value: str | float | None
    rows: int
    runs: int

    def __str__(self) -> str:
        said = "not said" if self.value is None else self.value if isinstance(self.value, str) else _number(self.value)
        return f"{said} ({self.size})"

    @property
    def size(self) -> str:
        """Rows and runs, in words."""
        return f"{counted(self.rows, 'row')} of {counted(self.runs, 'run')}"


def facts(frame: pd.DataFrame, suites: Mapping[str, Suite], rows: pd.Series | None = None) -> pd.DataFrame:
    """Every fact that some row has: text, empty if unknown, or numbers, NaN if unknown.

    Args:
        frame: frame of a runs table.
        suites: run -> the record of its suite.
        rows: mask of the rows; None means all.
    """
    chosen = slice(None) if rows is None else rows.to_numpy(dtype=bool)
    found = {name: _fact(name, frame, suites) for name in (*INCOMPARABLE, *ON_PURPOSE)}
    kept = {
        name: values[chosen] for name, values in found.items() if values is not None and _known(values[chosen]).any()
    }
    return pd.DataFrame(kept, index=frame.index[chosen]).reset_index(drop=rows is not None)


def _fact(name: str, frame: pd.DataFrame, suites: Mapping[str, Suite]) -> pd.Series | None:
    """The column of a fact, completed from the records; None if neither has it."""
    if name == "annealed":
        return annealed(frame)
    recorded = {run: getattr(suite, RECORDED[name]) for run, suite in suites.items()} if name in RECORDED else {}
    said = frame["run"].map(recorded) if any(value is not None for value in recorded.values()) else None
    if name not in frame:
        return None if said is None else _tidy(said)
    return frame[name] if said is None else _tidy(frame[name].where(_known(frame[name]), said))


def _tidy(values: pd.Series) -> pd.Series:
    """Numbers as floats, anything else as text."""
    known = values[_known(values)]
    if all(isinstance(value, int | float | np.number) for value in known):
        return values.astype(np.float64)
    return values.where(_known(values), "").map(str)


def _known(values: pd.Series) -> pd.Series:
    return values.notna() if is_numeric_dtype(values) else values.notna() & (values != "")


def shares(values: pd.Series, runs: pd.Series) -> list[Share]:
    """The values of a fact by rows, most frequent first; missing values come last.

    Args:
        values: values of a fact, one per row.
        runs: runs of the same rows.
    """
    known = _known(values)
    grouped = runs[known].groupby(values[known], sort=True)
    found = [Share(_plain(value), len(own), own.nunique()) for value, own in grouped]
    found.sort(key=lambda share: -share.rows)
    unknown = runs[~known]
    return [*found, *([Share(None, len(unknown), unknown.nunique())] if len(unknown) else [])]


def refuse_mixture(table: RunsTable, given: str | None = None) -> None:
    """Refuse a table whose losses cannot be compared.

    Args:
        table: the runs table; only kept rows are checked.
        given: the condition that selected them; the conditions for each part repeat it.

    Raises:
        UserError: with the counts of each part and the condition that selects it.
    """
    known = table.facts
    apart = incomparable(known)
    if not apart:
        return
    parts = list(_parts(table.kept["run"], known[apart]))
    listed = [f"{_override(condition, given)} ({size})" for condition, size in parts[:MOST_PARTS]]
    more = [f"and {len(parts) - MOST_PARTS} more"] if len(parts) > MOST_PARTS else []
    raise UserError(
        f"runs: the rows differ in {', '.join(apart)}, so no single law fits their losses; fit one part: "
        f"{', '.join([*listed, *more])}; or give mixture=allow to fit all rows"
    )


def incomparable(known: pd.DataFrame) -> list[str]:
    """Facts that losses must share but in which rows differ; a suite stands for its corpus if that is unknown."""
    said = "corpus" in known and bool(_known(known["corpus"]).all())
    names = INCOMPARABLE if said else (*INCOMPARABLE, "suite")
    return [name for name in names if name in known and known[name][_known(known[name])].nunique() > 1]


def differences(table: RunsTable) -> dict[str, list[Share]]:
    """Fact -> its values, for facts in which kept rows differ, or that only some of them have."""
    runs = table.kept["run"]
    every = {str(name): shares(values, runs) for name, values in table.facts.items()}
    return {name: found for name, found in every.items() if len(found) > 1}


def flags(table: RunsTable, read: Collection[str] = ()) -> tuple[str, ...]:
    """The differences between the rows of a fit, with counts: a flag for each fact.

    Args:
        table: the runs table; only kept rows are checked.
        read: columns that the law reads, which may differ.
    """
    apart = incomparable(table.facts)
    found = differences(table).items()
    answered = {*read, *(SCHEDULED if {"lr_annealed", "lr_falls"} & {*read} else ())}
    return (
        *(_flag(name, values, name in apart) for name, values in found if name not in answered or name in apart),
        *_midway_flags(table, read),
        *_repeat_flags(table, read),
    )


def _repeat_flags(table: RunsTable, read: Collection[str]) -> Iterator[str]:
    """Flags for kept rows of runs that repeat their text, unless the law has a term for that."""
    if "unique_tokens" in read or "unique_tokens" not in table.kept:
        return
    repeated = table.kept["tokens"] > table.kept["unique_tokens"] * (1 + ROUNDING)
    if repeated.any():
        yield (
            f"repeated_rows: {counted(int(repeated.sum()), 'kept row')} beyond its run's unique_tokens, where text "
            "repeats; law=data_constrained has a term for repetition, subset.where='tokens <= unique_tokens' leaves them out"
        )


def _midway_flags(table: RunsTable, read: Collection[str]) -> Iterator[str]:
    """Flags for kept rows at which the rate is changing, unless the law has a term for that."""
    if set(POSITION) & set(read):
        return
    kept = table.frame["excluded"] == ""
    for reason, rows in midway(table.frame).items():
        if (rows & kept).any():
            yield f"midway_rows: {counted(int((rows & kept).sum()), 'kept row')} {reason}; runs.midway=exclude leaves them out"


def _flag(name: str, found: Sequence[Share], mixed: bool) -> str:
    listed = ", ".join(map(str, found[:MOST_VALUES])) + (", ..." if len(found) > MOST_VALUES else "")
    if mixed:
        return f"mixture: the rows differ in {name}, so their losses cannot be compared: {listed}"
    values = [share for share in found if share.value is not None]
    if len(values) > 1:
        return f"differing_{name}: the rows differ in {name}: {listed}"
    return f"unrecorded_{name}: some rows do not name their {name}: {listed}"


def _parts(runs: pd.Series, known: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """For each combination of values, the condition that selects it, and its rows and runs; the largest first."""
    names = _telling(known)
    grouped = sorted(runs.groupby([known[name] for name in names], dropna=False), key=lambda part: -len(part[1]))
    for values, own in grouped:
        yield _condition(dict(zip(names, values, strict=True))), Share(None, len(own), own.nunique()).size


def _telling(known: pd.DataFrame) -> list[str]:
    """The first facts that separate as many parts as all of them together."""
    names = list(map(str, known))
    chosen = names[:1]
    for name in names[1:]:
        if known.groupby([*chosen, name], dropna=False).ngroups > known.groupby(chosen, dropna=False).ngroups:
            chosen.append(name)
    return chosen


def _condition(values: dict[str, object]) -> str:
    """The comparison of columns that holds for rows of some values.

    >>> _condition({"corpus": "a", "vocab_size": 256.0})
    'corpus == "a" and vocab_size == 256'
    """
    return " and ".join(_comparison(name, _plain(value)) for name, value in values.items())


def _comparison(name: str, value: str | float) -> str:
    """Comparison of a column with a value; of the column with itself if the value is NaN, which alone differs from itself."""
    return f"{name} != {name}" if value != value else f"{name} == {_literal(value)}"


def _literal(value: str | float) -> str:
    """A value in the form for a condition; text without a dollar sign, which a configuration would resolve."""
    return json.dumps(value).replace("$", "\\u0024") if isinstance(value, str) else exactly(value)


def _override(condition: str, given: str | None) -> str:
    """A condition, quoted for a shell as an option of fit.py, combined with a given one.

    >>> print(_override('corpus == "a"', None))
    'subset.where="corpus == \\"a\\""'
    """
    both = f"({given}) and {condition}" if given else condition
    quoted = re.sub(r'(\\*)"', lambda found: found.group(1) * 2 + '\\"', both)  # as Hydra reads quoted text
    return shlex.quote(f'subset.where="{quoted}"')


def _plain(value: object) -> str | float:
    return value if isinstance(value, str) else float(value)  # type: ignore[arg-type]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.6g}"
