"""Hold-out: fit on small models and early tokens, predict large models and late tokens.

Relative error of a prediction: predicted / measured - 1; positive if the law is too pessimistic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.config import BootstrapOptions
from shapelaw.errors import UserError
from shapelaw.fitting.bootstrap import resampled
from shapelaw.fitting.choose import choose
from shapelaw.fitting.intervals import percentile
from shapelaw.fitting.solve import Solution, solve
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.fitting.splits import Fold, Holdout
from shapelaw.laws.choices import LawChoice
from shapelaw.runs.table import RunsTable

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class HoldoutResult:
    """Errors of one law on one hold-out.

    Args:
        holdout: its label.
        law: the law's name.
        points: a row per predicted point: fold, run, width and depth if known, params, tokens, loss, predicted,
            error (relative, signed).
        distance: column -> largest held-out value over the largest fitted one.
        interval: interval of the mean absolute error, by resampling of the fitted runs; None if it was not requested.
    """

    holdout: str
    law: str
    points: pd.DataFrame
    distance: Mapping[str, float]
    interval: tuple[float, float] | None = None

    @property
    def mean_absolute(self) -> float:
        """Mean absolute relative error over the points."""
        return float(self.points["error"].abs().mean())

    @property
    def mean_signed(self) -> float:
        """Mean signed relative error over the points: the bias."""
        return float(self.points["error"].mean())

    @property
    def largest_of_a_group(self) -> float:
        """Largest mean absolute error of a shape (of a run, in a table without shapes)."""
        return float(self.by_shape["mean_absolute"].max())

    @property
    def by_shape(self) -> pd.DataFrame:
        """Mean absolute and signed error and number of points of every shape, or of every run without shapes."""
        keys = ["width", "depth"] if {"width", "depth"} <= set(self.points) else ["run"]
        grouped = self.points.assign(absolute=self.points["error"].abs()).groupby(keys, sort=True)
        return grouped.agg(
            mean_absolute=("absolute", "mean"), mean_signed=("error", "mean"), points=("error", "size")
        ).reset_index()

    def plain(self) -> dict[str, Any]:
        """Point 9 of the checklist: errors on the held-out rows, and how far these lie beyond the fitted ones."""
        return {
            "holdout": self.holdout,
            "mean_absolute": self.mean_absolute,
            "mean_signed": self.mean_signed,
            "by_shape": self.by_shape,
            "distance": self.distance,
        }


def evaluate(
    table: RunsTable, holdout: Holdout, spec: FitSpec | None = None, refits: int = 0, level: float = 0.9
) -> HoldoutResult:
    """Fit the spec's law by its method on the rows that are not held out, and predict those that are.

    If the data choose the law, each fold chooses again, from its fitted rows.

    Args:
        refits: number of refits of resampled runs, for the interval of the mean absolute error; 0 gives none.
        level: share of the refits inside that interval.

    Raises:
        UserError: if a fold cannot be formed or fitted.
    """
    spec = spec or FitSpec()
    frame, folds = table.kept, holdout.folds(table)
    data = None if isinstance(spec.law, LawChoice) else FitData.of(table, spec)
    predicted, totals = [], []
    drawn = BootstrapOptions(n=refits) if refits else None
    for fold in folds:
        try:
            own = spec if data else _chosen(table, fold, spec)
            seen = data or FitData.of(table, own)
            solution = solve(seen.rows(fold.train), own) if refits or own.method.takes_solution else None
            predicted.append(_predicted(seen, frame, fold, own, solution))
            totals += [_totals(seen, fold, replace(own, bootstrap=drawn), solution)] if drawn else []
        except UserError as error:
            raise UserError(
                f"holdout={holdout.label}, without {fold.name}: {error}; or give another hold-out"
            ) from None
    points = pd.concat(predicted, ignore_index=True)
    interval = percentile(np.sum(totals, axis=0) / len(points), level) if drawn else None
    return HoldoutResult(holdout.label, spec.law.name, points, _distance(frame, folds), interval)


def _predicted(
    data: FitData, frame: pd.DataFrame, fold: Fold, spec: FitSpec, solution: Solution | None
) -> pd.DataFrame:
    """Held-out rows of one fold with their predictions."""
    known = (solution,) if spec.method.takes_solution else ()
    theta = spec.method.theta(data.rows(fold.train), spec, *known)
    test = data.rows(fold.test)
    predicted = data.law.predict_at(theta, test.columns)
    target = data.law.target
    names = [
        name for name in dict.fromkeys(("run", "width", "depth", "params", "tokens", "loss", target)) if name in frame
    ]
    rows = frame.loc[fold.test, names].assign(fold=fold.name, predicted=predicted)
    return rows.assign(error=rows["predicted"] / rows[target] - 1.0)


def _distance(frame: pd.DataFrame, folds: Sequence[Fold]) -> dict[str, float]:
    """How far the held-out rows lie beyond the fitted ones; the farthest fold counts."""
    names = ("params", "tokens")
    return {
        name: max(float(frame.loc[f.test, name].max() / frame.loc[f.train, name].max()) for f in folds)
        for name in names
    }


def _chosen(table: RunsTable, fold: Fold, spec: FitSpec) -> FitSpec:
    """The spec of the law that the fitted rows of a fold choose."""
    held_out = np.zeros(len(table.frame), dtype=bool)
    held_out[(table.frame["excluded"] == "").to_numpy()] = ~fold.train
    return choose(table.exclude(held_out, "held out"), spec).spec


def _totals(data: FitData, fold: Fold, spec: FitSpec, solution: Solution | None) -> Floats:
    """Sum of the absolute errors of a fold in each refit of its resampled runs; refits match across folds by index."""
    test = data.rows(fold.test)
    thetas, _ = resampled(data.rows(fold.train), spec, solution)
    return np.array([np.abs(np.expm1(-test.residuals(theta))).sum() for theta in thetas])
