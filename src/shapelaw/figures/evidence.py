"""The data behind figures: tables by the name of a data set, their fits, and the number of refits for an interval."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pandas as pd

from shapelaw.config import BootstrapOptions
from shapelaw.errors import UserError
from shapelaw.fitting.fit import fit
from shapelaw.fitting.result import FitResult
from shapelaw.laws import get_law
from shapelaw.runs import RunsTable, load_runs
from shapelaw.runs.columns import NATS_PER_TOKEN
from shapelaw.runs.query import matches

T = TypeVar("T")
MAIN = "hot_100b+"
"""The data set of most figures: constant rate, all tokens."""

EVERY = "every row"
"""The user's whole table, as it was loaded."""


class CannotDraw(UserError):
    """A figure that the data cannot show; the message is the reason, for people."""


@dataclass(frozen=True)
class Evidence:
    """Tables and fits that figures share; each is computed once.

    Args:
        load: name of a data set of the paper (`hot_100b+`, `cool_end`, ...) -> its table; raises `UserError` with the reason
            if there is none.
        published: whether these are the paper's own runs, so that its numbers belong beside ours.
        bootstrap: refits of fits whose intervals are shown; None for no intervals.
        delta: delta of Huber's function, except in figures about another one.
        seed: seed of starts and resampling.
        models: models to show beside the runs, as from `industry.read`.
        mixture: `refuse` tables whose losses cannot be compared, or `allow` them.
    """

    load: Callable[[str], RunsTable]
    published: bool = False
    bootstrap: BootstrapOptions | None = None
    delta: float = 1e-4
    seed: int = 0
    mixture: str = "refuse"
    models: pd.DataFrame | None = None
    fits: dict[tuple[object, ...], FitResult] = field(default_factory=dict)
    made: dict[tuple[object, ...], Any] = field(default_factory=dict)
    tables: dict[str, RunsTable] = field(default_factory=dict)

    @property
    def level(self) -> float:
        """Share of refits inside an interval."""
        return (self.bootstrap or BootstrapOptions()).level

    @property
    def share(self) -> str:
        """The level, for people."""
        return f"{100 * self.level:g}%"

    @property
    def refits(self) -> str:
        """The meaning of bands and bars, for captions."""
        return f"{self.share} of refits on resampled {(self.bootstrap or BootstrapOptions()).by}"

    @property
    def loss_unit(self) -> str:
        """Unit of the losses in the loaded tables."""
        return next((table.loss_unit for table in self.tables.values()), NATS_PER_TOKEN)

    def runs(self, subset: str = MAIN) -> RunsTable:
        """The table of a data set.

        Raises:
            UserError: if there is none, with the reason.
        """
        if subset not in self.tables:
            self.tables[subset] = self.load(subset)
        return self.tables[subset]

    def fit(
        self,
        law: str = "interaction",
        subset: str = MAIN,
        *,
        delta: float | None = None,
        counting: str | None = None,
        method: str = "parametric",
        cost: str = "flops",
    ) -> FitResult:
        """A fit of a data set, with intervals if `bootstrap` is set.

        Raises:
            UserError: if the data set is missing, or cannot be fitted.
        """
        used = self.delta if delta is None else delta
        counting = None if counting == get_law(law).default_counting else counting
        key = (law if method == "parametric" else method, subset, used, counting, cost)
        if key not in self.fits:
            options: dict[str, Any] = {"method": method, "cost": cost, "bootstrap": self.bootstrap, "seed": self.seed}
            self.fits[key] = fit(self.runs(subset), law, used, counting, mixture=self.mixture, **options)
        return self.fits[key]

    def once(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """A result that several figures share; the first of them computes it."""
        if key not in self.made:
            self.made[key] = make()
        return cast(T, self.made[key])


def _published(subset: str) -> RunsTable:
    return load_runs("gemstones", subset=subset)


def of_the_paper(load: Callable[[str], RunsTable] = _published, **options: Any) -> Evidence:
    """The published runs, loaded by default or by another function."""
    return Evidence(load, published=True, **options)


def of_a_table(
    table: RunsTable, conditions: Mapping[str, str], assumed: Mapping[str, float] | None = None, **options: Any
) -> Evidence:
    """The user's own table; data sets with equal conditions share one table.

    Args:
        conditions: data set of the paper -> condition for the rows in its place, such as `cooldown == 0 and lr_base == 5`.
        assumed: values for conditions on columns that the table lacks, such as `cooldown` 0.
    """
    lacking = {name: value for name, value in (assumed or {}).items() if not table.has(name)}
    read = table.frame.assign(**lacking)

    @functools.cache
    def met(where: str) -> RunsTable:
        return table.exclude(~matches(read, where), f"outside the selection {where}")

    def load(subset: str) -> RunsTable:
        if subset == EVERY:
            return table
        if subset not in conditions:
            raise CannotDraw(f"there are no such runs as the paper's {subset} (report.tables names none)")
        try:
            found = met(conditions[subset])
        except UserError as error:
            raise CannotDraw(f"there are no such runs as the paper's {subset} (report.tables: {error})") from None
        if not len(found):
            raise CannotDraw(
                f"there are no such runs as the paper's {subset}: none meets {conditions[subset]}{_said(lacking)}"
            )
        return found

    return Evidence(load, **options)


def _said(lacking: Mapping[str, float]) -> str:
    """The assumptions about columns that a table lacks."""
    taken = ", ".join(f"{name} counts as {value:g}" for name, value in lacking.items())
    return f" (no such column: {taken})" if taken else ""
