"""Power laws of the compute-optimal size, straight lines in log space: the results of approaches 1 and 2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shapelaw.errors import UserError
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

COSTS = ("flops", "device_hours")
TARGETS = ("params", "tokens", "tokens_per_param")
"""Quantities that are regressed on the cost."""
LOSS = "loss"
"""The loss of the best size, whose line has an irreducible loss beside it."""
FALLS = np.geomspace(0.01, 1.0, 120)
"""Exponents of FLOPs to try for it."""
FEWEST_COSTS = 4
"""Fewest different costs that can separate an irreducible loss from a power."""


@dataclass(frozen=True)
class PowerLine:
    """log (target - floor) = slope * log cost + intercept, natural logs."""

    slope: float
    intercept: float
    floor: float = 0.0

    def at(self, cost: ArrayLike) -> Array:
        """The target at a cost: floor + exp(intercept) * cost^slope."""
        rising = np.exp(self.intercept + self.slope * np.log(np.asarray(cost, dtype=np.float64)))
        return np.asarray(self.floor + rising)


@dataclass(frozen=True)
class LineData:
    """Points of a table as approaches 1 and 2 read them, all natural logs, each of shape (n,)."""

    log_cost: Array
    log_loss: Array
    log_params: Array
    log_tokens: Array
    runs: NDArray[np.str_]

    def log_target(self, target: str) -> Array:
        """Log of params, tokens or tokens_per_param."""
        values = {
            "params": self.log_params,
            "tokens": self.log_tokens,
            "tokens_per_param": self.log_tokens - self.log_params,
            LOSS: self.log_loss,
        }
        return values[target]

    def take(self, rows: Rows, runs: NDArray[np.str_] | None = None) -> LineData:
        """Some rows, with other names of their runs if given."""
        logs = (self.log_cost, self.log_loss, self.log_params, self.log_tokens)
        cost, loss, params, tokens = (values[rows] for values in logs)
        return LineData(cost, loss, params, tokens, self.runs[rows] if runs is None else runs)

    def line(self, rows: Rows, target: str) -> PowerLine:
        """Least squares of a target on the cost over some rows.

        Raises:
            UserError: if the rows do not span two costs.
        """
        fitted = loss_line if target == LOSS else regress
        return fitted(self.log_cost[rows], self.log_target(target)[rows])


def regress(log_cost: Array, log_target: Array) -> PowerLine:
    """Least-squares line, about the mean for accuracy.

    Raises:
        UserError: if there are not two different costs.
    """
    if len(log_cost) < 2 or np.ptp(log_cost) <= 0:
        raise UserError(
            f"{len(log_cost)} optimal points do not span two costs, so there is no line; give more runs or validations"
        )
    centre = log_cost.mean()
    x = log_cost - centre
    slope = float(x @ log_target / (x @ x))
    return PowerLine(slope, float(log_target.mean() - slope * centre))


def loss_line(log_cost: Array, log_loss: Array) -> PowerLine:
    """L = E + K cost^-g by least squares of the relative error: E and K in closed form for each g of `FALLS`, then the best g.

    With fewer than four different costs, or if no E from 0 up fits, E is 0.

    Raises:
        UserError: if there are not two different costs.
    """
    plain = regress(log_cost, log_loss)
    if len(np.unique(log_cost.round(6))) < FEWEST_COSTS:
        return plain
    loss, centre = np.exp(log_loss), log_cost.mean()
    constant = 1.0 / loss  # a column of E, and below a row of K for each exponent; the relative error is from 1
    falling = np.exp(-FALLS[:, None] * (log_cost - centre)) / loss
    shared = falling @ constant / (constant @ constant)
    own = falling - shared[:, None] * constant  # the part of K's column that E's column cannot explain
    height = own.sum(axis=1) / np.square(own).sum(axis=1)
    floor = constant.sum() / (constant @ constant) - height * shared
    errors = np.square(floor[:, None] * constant + height[:, None] * falling - 1.0).sum(axis=1)
    errors[(floor <= 0) | (height <= 0)] = np.inf
    best = int(np.argmin(errors))
    if not errors[best] < np.square(plain.at(np.exp(log_cost)) / loss - 1.0).sum():
        return plain
    return PowerLine(-float(FALLS[best]), float(np.log(height[best]) + FALLS[best] * centre), float(floor[best]))


def line_data(
    table: RunsTable, counting: str = "total", cost: str = "flops", flops: str | None = None
) -> tuple[LineData, Rows]:
    """Logs of the kept rows after the first step, and the indices of these rows.

    Args:
        counting: how params are counted; FLOPs always include the vocabulary.
        cost: `flops` or `device_hours`.
        flops: convention of the FLOPs (see `RunsTable.flops`).

    Raises:
        UserError: for an unknown cost, a missing column, or no row after step 0.
    """
    if cost not in COSTS:
        raise UserError(f"cost={cost}: allowed values are {', '.join(COSTS)}")
    frame = table.kept
    steps = frame["step"].to_numpy(dtype=np.float64) if "step" in frame else np.ones(len(frame))
    rows = np.flatnonzero(~(steps <= 0))
    if not len(rows):
        raise UserError("no row is past step 0; give validations of trained models")
    costs = table.flops(flops) if cost == "flops" else table.column("device_hours", "cost=device_hours")
    data = LineData(
        np.log(costs[rows]),
        np.log(frame["loss"].to_numpy(dtype=np.float64)[rows]),
        np.log(table.params(counting)[rows]),
        np.log(frame["tokens"].to_numpy(dtype=np.float64)[rows]),
        frame["run"].to_numpy(dtype=str)[rows],
    )
    return data, rows
