"""The runs table: one validated row per validation of a run; excluded rows stay in it, with a reason."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from shapelaw.counting import PARAMS_CONVENTIONS, recount
from shapelaw.errors import UserError
from shapelaw.files import naming
from shapelaw.runs.columns import (
    CANONICAL,
    FURTHER_LOSS,
    NATS_PER_TOKEN,
    column_of,
    duplicates,
    faults,
    refuse_faults,
    tidy,
)
from shapelaw.runs.flops import flops_of
from shapelaw.runs.query import matches
from shapelaw.runs.schedules import falls_of
from shapelaw.runs.sealing import read_parquet, sealed_bytes
from shapelaw.runs.shown import Shown
from shapelaw.runs.worlds import facts
from shapelaw.suite import COLUMNS, Suite, agreed, pack, unpack, usual

if TYPE_CHECKING:
    from shapelaw.laws import Law

Floats = NDArray[np.float64]
log = logging.getLogger(__name__)

_METADATA = "shapelaw"
_SUITES = "shapelaw.suites"
WITHOUT_EMBEDDING = "without the embedding"


@dataclass(frozen=True, eq=False, repr=False)
class RunsTable(Shown):
    """A validated table of runs; two tables are equal when their hashes are.

    Args:
        frame: one row per validation of a run. Canonical columns (`shapelaw.runs.CANONICAL`) are kept, typed and
            ordered; others are dropped. Rows with a text in `excluded` stay in the table, but fits ignore them.
        about: facts of the whole table that a report names (source, evaluation set, unit and smoothing of the loss,
            counting, cut of early tokens, schedule).
        recorded: run -> the record of its suite, if one was tracked or published; `suites` has one for every run.
        further: other columns, by which rows can be selected and reduced; they are not part of the content.

    Raises:
        UserError: if a required column is missing, a kept row holds an invalid value, or two kept rows share their key
            (run, tokens).
    """

    frame: pd.DataFrame
    about: Mapping[str, str] = field(default_factory=dict)
    recorded: Mapping[str, Suite] = field(default_factory=dict)
    further: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        frame = tidy(self.frame)
        refuse_faults(frame, self.loss_unit)
        object.__setattr__(self, "frame", frame)
        object.__setattr__(self, "about", dict(self.about))
        object.__setattr__(self, "recorded", dict(self.recorded))

    @classmethod
    def excluding_faults(
        cls,
        frame: pd.DataFrame,
        about: Mapping[str, str],
        recorded: Mapping[str, Suite] | None = None,
        further: pd.DataFrame | None = None,
    ) -> RunsTable:
        """A table that excludes invalid rows and repeated keys, each with its reason, instead of refusing them."""
        tidied = tidy(frame)
        reasons = faults(tidied, about.get("loss_unit", NATS_PER_TOKEN))
        tidied["excluded"] = tidied["excluded"].where(tidied["excluded"] != "", reasons)
        repeated = duplicates(tidied)
        tidied.loc[repeated, "excluded"] = "repeats the run and tokens of an earlier row"
        return cls(tidied, about, recorded or {}, further)

    @property
    def kept(self) -> pd.DataFrame:
        """The rows that are not excluded, in the table's order, without the `excluded` column."""
        return self._kept.copy()  # the caller may change it

    @cached_property
    def _kept(self) -> pd.DataFrame:
        return self.frame[self.frame["excluded"] == ""].drop(columns="excluded").reset_index(drop=True)

    @property
    def rows(self) -> pd.DataFrame:
        """The rows that are not excluded, with the frame's index and the further columns."""
        return self._all_columns[self.frame["excluded"] == ""].drop(columns="excluded")

    @property
    def _all_columns(self) -> pd.DataFrame:
        return self.frame if self.further is None else self.frame.join(self.further)

    @property
    def loss_unit(self) -> str:
        """Unit of the losses, such as nats per token."""
        return self.about.get("loss_unit", NATS_PER_TOKEN)

    def noting(self, key: str, value: str) -> RunsTable:
        """The table with a further fact about it, which a fit's checklist includes."""
        return dataclasses.replace(self, about={**self.about, key: value})

    @property
    def exclusions(self) -> dict[str, int]:
        """Reason -> number of rows left out for it, most frequent first."""
        reasons = self.frame.loc[self.frame["excluded"] != "", "excluded"]
        return {str(reason): int(count) for reason, count in reasons.value_counts().items()}

    @cached_property
    def suites(self) -> dict[str, Suite]:
        """Run -> the record of its suite: the recorded one, completed from the columns."""
        said: dict[str, list[Suite]] = {}
        names = ["run", *(name for name in COLUMNS if name in self.frame)]
        for row in self.frame[names].drop_duplicates().to_dict("records"):
            said.setdefault(str(row["run"]), []).append(Suite.of_columns(row))
        unknown = Suite()
        return {run: self.recorded.get(run, unknown).completed(agreed(own)) for run, own in said.items()}

    @property
    def suite_rows(self) -> list[tuple[Suite, int]]:
        """The records of the kept rows, with the number of rows of each run."""
        rows = self.frame.loc[self.frame["excluded"] == "", "run"].value_counts(sort=False)
        return [(self.suites[str(run)], int(count)) for run, count in rows.items()]

    @property
    def suite(self) -> Suite:
        """The record of the kept rows; where they differ, the most frequent values (`shapelaw.suite.usual`)."""
        return usual(self.suite_rows)

    @cached_property
    def facts(self) -> pd.DataFrame:
        """How the kept rows were trained and measured (`shapelaw.runs.worlds`), in the order of `kept`."""
        return facts(self.frame, self.suites, self.frame["excluded"] == "")

    @property
    def has_shapes(self) -> bool:
        """Whether every kept row names its width and depth."""
        kept = self._kept
        return {"width", "depth"} <= set(kept) and not kept[["width", "depth"]].isna().to_numpy().any()

    def has(self, name: str) -> bool:
        """Whether the table has a column."""
        return name in self.frame

    def __len__(self) -> int:
        """Number of kept rows."""
        return int((self.frame["excluded"] == "").sum())

    def __iter__(self) -> Iterator[str]:
        """Column names."""
        return iter(map(str, self.frame.columns))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunsTable) and self.hash == other.hash

    def __hash__(self) -> int:
        return int(self.hash[:15], 16)

    @property
    def hash(self) -> str:
        """SHA-256 of the content: names, values and exclusions, independent of the order of rows and of `about`."""
        columns = sorted(self)
        digests = sorted(_row_bytes(row) for row in self.frame[columns].itertuples(index=False, name=None))
        content = hashlib.sha256(json.dumps(columns).encode())
        for digest in digests:
            content.update(digest)
        return content.hexdigest()

    def select(self, where: str) -> RunsTable:
        """The table with every row excluded that does not meet the condition; the condition becomes the reason.

        Args:
            where: comparisons of columns, such as `width == 512 and tokens <= 1e11`; facts of the suites' records
                count as columns, such as `corpus == "0123456789ab"`.

        Raises:
            UserError: for an unknown column, anything but comparisons and arithmetic, or an empty selection.
        """
        said = facts(self.frame, self.suites)
        rows = matches(self._all_columns.assign(**said), where)
        table = self.exclude(~rows, f"outside the selection {where.strip()}")
        if not len(table):
            ranges = ", ".join(f"{n} {lo:.6g} to {hi:.6g}" for n, (lo, hi) in self.ranges().items())
            raise UserError(f"where={where!r}: selects none of the {len(self)} rows; the table has {ranges}")
        return table

    def with_loss(self, name: str) -> RunsTable:
        """The table with a further loss, the column loss_NAME, as its loss; rows without it are excluded.

        Raises:
            UserError: if no column has this name, or no kept row has a value in it.
        """
        column = f"loss_{name}"
        if column not in self.frame:
            further = [one.removeprefix("loss_") for one in self if FURTHER_LOSS.fullmatch(one)]
            raise UserError(
                f"loss={name}: the table has no column {column}; further losses are {', '.join(further) or 'none'}"
            )
        table = self.exclude(self.frame[column].isna(), f"no {column}")
        if not len(table):
            raise UserError(f"loss={name}: none of the {len(self)} rows has {column}")
        frame = table.frame.assign(loss=table.frame[column]).drop(columns=column)
        unit = self.about.get(f"{column}_unit", NATS_PER_TOKEN)
        return dataclasses.replace(table, frame=frame, about={**self.about, "evaluation_set": name, "loss_unit": unit})

    def exclude(self, mask: ArrayLike, reason: str) -> RunsTable:
        """The table with the masked rows (a boolean per row of `frame`) excluded; earlier reasons stay.

        Raises:
            UserError: if the reason is empty or the mask does not fit the table.
        """
        flags = np.asarray(mask, dtype=bool)
        if not reason.strip():
            raise UserError("exclude: the reason is empty; say why these rows are left out")
        if flags.shape != (len(self.frame),):
            raise UserError(f"exclude: a mask of shape {flags.shape} does not fit a table of {len(self.frame)} rows")
        frame = self.frame.copy()
        frame.loc[flags & (frame["excluded"] == "").to_numpy(), "excluded"] = reason
        return dataclasses.replace(self, frame=frame)

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest kept value of every numeric column."""
        kept = self.kept
        if kept.empty:
            return {}
        numeric = [name for name in kept if name in CANONICAL and not CANONICAL[name].text]
        return {name: (float(kept[name].min()), float(kept[name].max())) for name in numeric}

    def params(self, counting: str = "total") -> Floats:
        """Parameters of the kept rows by a counting convention of `shapelaw.counting`.

        Raises:
            UserError: if the convention is unknown, or it omits matrices and the table lacks width or vocab_size.
        """
        if counting == "total":
            return self.column("params", "counting=total")
        if counting not in PARAMS_CONVENTIONS:
            raise UserError(f"counting={counting}: allowed values are {', '.join(PARAMS_CONVENTIONS)}")
        if self.about.get("params_counting", "").startswith(WITHOUT_EMBEDDING):
            raise UserError(
                f"counting={counting}: the table's params are {self.about['params_counting']}; give counting=total"
            )
        purpose = f"counting={counting}"
        sizes = [self.column(name, purpose) for name in ("params", "width", "vocab_size")]
        counted = np.asarray(recount(sizes[0], sizes[1], sizes[2], counting), dtype=np.float64)
        if self.further is not None and (counts := f"params_{counting}") in self.further:
            own = self.rows[counts].to_numpy(dtype=np.float64)  # models of another architecture than this program's
            counted = np.where(np.isnan(own), counted, own)
        if (counted <= 0).any():
            raise UserError(
                f"{purpose}: leaves {int((counted <= 0).sum())} rows without parameters; params must count the "
                "embedding and the head, and vocab_size must be the padded vocabulary"
            )
        return counted

    def counts(self, counting: str) -> bool:
        """Whether the table has the columns that a counting convention needs."""
        try:
            self.params(counting)
        except UserError:
            return False
        return True

    def flops(self, convention: str | None = None) -> Floats:
        """Training FLOPs of the kept rows.

        Args:
            convention: `recorded` (the column), `exact`, `6n` or `kaplan` (`shapelaw.counting`); None takes the column
                if every row has it, else `exact` if every row names its shape and vocabulary, else `6n`.

        Raises:
            UserError: if the convention is unknown or needs columns that the table lacks.
        """
        return flops_of(self, convention)

    def column(self, name: str, purpose: str) -> Floats:
        """Kept values of one column as floats.

        Raises:
            UserError: if the table lacks the column or some of its values.
        """
        kept = self._kept
        if name not in kept:
            known = ", ".join(n for n in self if n != "excluded")
            remedy = getattr(CANONICAL.get(name), "remedy", "")
            raise UserError(
                f"{purpose}: needs the column {name}, which is missing from the table; it has {known}{remedy}"
            )
        values = kept[name].to_numpy(dtype=np.float64)
        missing = int(np.isnan(values).sum())
        if missing:
            raise UserError(f"{purpose}: needs the column {name}, which {missing} of {len(values)} rows lack")
        return values

    def target(self, law: Law) -> Floats:
        """The quantity that a law predicts, for the kept rows: the loss, or the share of wrong answers.

        Raises:
            UserError: if the law predicts accuracies and the table has none.
        """
        if law.target not in self._kept:
            raise UserError(
                f"law={law.name}: is fitted to accuracies, and the table has none; give runs=csv runs.path=FILE with a "
                f"column accuracy, or name it with runs.columns={{accuracy: NAME}}"
            )
        return self.column(law.target, f"law={law.name}")

    def columns_for(self, law: Law, counting: str | None = None, flops: str | None = None) -> dict[str, Floats]:
        """Predictors of a law for the kept rows.

        Args:
            law: names its predictors and its own counting.
            counting: how `params` are counted; None takes the law's own.
            flops: how `flops` are counted (see `flops`).

        Returns:
            predictor -> values, each of shape (kept rows,); lr_falls as `shapelaw.runs.schedules.falls` gives them.

        Raises:
            UserError: if the table lacks a predictor.
        """
        convention = counting or law.default_counting
        special = {
            "params": lambda: self.params(convention),
            "flops": lambda: self.flops(flops),
            "lr_falls": lambda: self._falls(f"law={law.name}"),
        }
        return {
            name: special[name]() if name in special else self.column(column_of(name), f"law={law.name}")
            for name in law.predictors
        }

    def _falls(self, purpose: str) -> Floats:
        """By how much the rate fell up to each kept row, along all rows of its run."""
        for name in ("lr_area", "lr_step"):
            self.column(name, purpose)
        return falls_of(self.frame)[(self.frame["excluded"] == "").to_numpy()]

    def to_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Write the whole table, sealed, with exclusions, `about` and records of suites: first aside, then renamed."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        frame = self.frame.copy()
        frame.attrs = {_METADATA: dict(self.about), _SUITES: pack(self.recorded)}
        try:
            with naming(target):
                aside.write_bytes(sealed_bytes(frame))
                aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)
        return target

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> RunsTable:
        """Read a table written by `to_parquet`.

        Raises:
            UserError: if the file is missing, is not a runs table, or was changed after it was written.
        """
        try:
            frame, sealed = read_parquet(Path(path))
        except UserError:
            raise
        except (OSError, ValueError) as error:
            raise UserError(f"path={path}: cannot be read as a Parquet runs table ({error})") from None
        if not sealed:
            log.warning(
                "note: %s was written by a version without seals, so later changes to it cannot be detected", path
            )
        about: Any = frame.attrs.get(_METADATA, {})
        return cls(frame, about, unpack(frame.attrs.get(_SUITES, []), str(path)))


def _row_bytes(row: tuple[Any, ...]) -> bytes:
    """Digest of one row, numbers as hexadecimal 64-bit floats so that whole and real spellings agree."""
    cells = [cell if isinstance(cell, str) else float(cell).hex() for cell in row]
    return hashlib.sha256(json.dumps(cells).encode()).digest()
