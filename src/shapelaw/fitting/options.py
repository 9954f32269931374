"""How a fit is made: plain values with their defaults, and the data as a law sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting.solve import Solution, solve
from shapelaw.laws import Law
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FitOptions:
    """Values of a parametric fit.

    Args:
        delta: where Huber's function turns linear, in units of log loss.
        counting: how params are counted; None takes the law's own, or `total` where the table cannot count that.
        flops: convention of FLOPs; None takes the recorded column, else exact, else 6n.
        solver: `newton`, `newton_torch` or `reference`.
        starts: `varpro` (variable projection and random starts) or `grid` (the authors' full grid).
        grid_size: number of starts of another grid.
        seed: of random starts and resampling.
    """

    delta: float = 1e-4
    counting: str | None = None
    flops: str | None = None
    solver: str = "newton"
    starts: str = "varpro"
    grid_size: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class FitData:
    """Kept rows as a law sees them.

    Args:
        law: the law.
        counting: how its params are counted.
        columns: predictor -> values, each (n,).
        loss: what the law predicts, (n,): nats per token, or a share of wrong answers.
        runs: run of each row, (n,).
    """

    law: Law
    counting: str
    columns: Mapping[str, Array]
    loss: Array
    runs: NDArray[np.str_]

    @classmethod
    def of(cls, table: RunsTable, law: Law, options: FitOptions) -> FitData:
        """The kept rows of a table.

        Raises:
            UserError: if the table lacks a predictor.
        """
        counting = resolve_counting(table, law, options.counting)
        kept = table.kept
        return cls(
            law,
            counting,
            table.columns_for(law, counting, options.flops),
            table.target(law),
            kept["run"].to_numpy(dtype=str),
        )

    def rows(self, mask: NDArray[np.bool_]) -> FitData:
        """Some of the rows."""
        columns = {name: values[mask] for name, values in self.columns.items()}
        return FitData(self.law, self.counting, columns, self.loss[mask], self.runs[mask])

    def solve(self, options: FitOptions) -> Solution:
        """The best optimum found.

        Raises:
            UserError: before the first start, for input that cannot be fitted.
        """
        return solve(
            self.law,
            self.columns,
            self.loss,
            delta=options.delta,
            starts=options.starts,
            grid_size=options.grid_size,
            solver=options.solver,
            seed=options.seed,
        )


def resolve_counting(table: RunsTable, law: Law, counting: str | None) -> str:
    """The counting asked for, else the law's own, else `total` for tables that cannot count that (no shapes)."""
    if counting is not None:
        return counting
    own = law.default_counting
    return own if "params" not in law.predictors or table.counts(own) else "total"
