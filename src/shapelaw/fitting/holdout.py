"""Hold-out: fit on small models and early tokens, predict large models and late tokens.

Relative error of a prediction: predicted / measured - 1; positive where the law is too pessimistic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.bootstrap import bootstrap
from shapelaw.fitting.intervals import percentile
from shapelaw.fitting.options import FitData, FitOptions
from shapelaw.laws import Law
from shapelaw.runs.query import matches
from shapelaw.runs.table import RunsTable

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

PARAMS_FROM_SHARE = 0.75
"""Models from this share of the largest size are held out: the 2B models of the Gemstones."""
TOKENS_TO_SHARE, TOKENS_FROM_SHARE = 0.285, 0.855
"""Of the largest token count: just under 100B and 300B of the Gemstones' 350B."""


@dataclass(frozen=True)
class Fold:
    """One split of the kept rows; rows in neither mask take no part."""

    name: str
    train: Mask
    test: Mask


@dataclass(frozen=True)
class Holdout:
    """What is held out.

    Args:
        kind: `largest`, `latest`, `largest_and_latest`, `leave_one_shape_out` or `where`.
        params_from: models of at least so many parameters (total) are held out; None: 0.75 of the largest.
        tokens_to: rows up to so many tokens are fitted; None: 0.285 of the largest count.
        tokens_from: rows of more tokens are held out; None: 0.855 of the largest count.
        train, test: kind `where` only: conditions such as `flops <= 1e21` and `flops > 1e21`.
        name: what tables call it; empty: the kind.
    """

    kind: str
    params_from: float | None = None
    tokens_to: float | None = None
    tokens_from: float | None = None
    train: str = ""
    test: str = ""
    name: str = ""

    @classmethod
    def of(cls, given: Holdout | str) -> Holdout:
        """A hold-out from its kind.

        Raises:
            UserError: for an unknown kind, or one that needs conditions.
        """
        if isinstance(given, Holdout):
            return given
        if given not in KINDS or given == "where":
            raise UserError(
                f"holdout={given}: allowed are {', '.join(kind for kind in KINDS if kind != 'where')}; conditions of your own "
                "are given in Python, by Holdout('where', train=..., test=...)"
            )
        return cls(given)

    @property
    def label(self) -> str:
        """Name, or the kind."""
        return self.name or self.kind

    def folds(self, table: RunsTable) -> list[Fold]:
        """Splits of a table's kept rows.

        Raises:
            UserError: for an unknown kind, or a split that leaves nothing to fit or to predict.
        """
        if self.kind not in KINDS:
            raise UserError(f"holdout={self.kind}: allowed are {', '.join(KINDS)}")
        folds = KINDS[self.kind](self, table)
        for fold in folds:
            if not (fold.train.any() and fold.test.any()):
                raise UserError(
                    f"holdout={self.label}: {int(fold.train.sum())} rows to fit and {int(fold.test.sum())} to predict; "
                    "move params_from, tokens_to or tokens_from, or the conditions"
                )
        return folds


def _sizes(holdout: Holdout, kept: pd.DataFrame) -> Mask:
    limit = holdout.params_from or PARAMS_FROM_SHARE * float(kept["params"].max())
    return (kept["params"] >= limit).to_numpy()


def _times(holdout: Holdout, kept: pd.DataFrame) -> tuple[Mask, Mask]:
    """Masks of early and late rows."""
    longest = float(kept["tokens"].max())
    early = kept["tokens"] <= (holdout.tokens_to or TOKENS_TO_SHARE * longest)
    late = kept["tokens"] > (holdout.tokens_from or TOKENS_FROM_SHARE * longest)
    return early.to_numpy(), (late & ~early).to_numpy()


def _largest(holdout: Holdout, table: RunsTable) -> list[Fold]:
    large = _sizes(holdout, table.kept)
    return [Fold("largest models", ~large, large)]


def _latest(holdout: Holdout, table: RunsTable) -> list[Fold]:
    early, late = _times(holdout, table.kept)
    return [Fold("latest tokens", early, late)]


def _largest_and_latest(holdout: Holdout, table: RunsTable) -> list[Fold]:
    kept = table.kept
    large = _sizes(holdout, kept)
    early, late = _times(holdout, kept)
    return [Fold("largest models at the latest tokens", ~large & early, large & late)]


def _leave_one_shape_out(holdout: Holdout, table: RunsTable) -> list[Fold]:
    if not table.has_shapes:
        raise UserError(f"holdout={holdout.label}: the table names no width and depth; use largest or latest")
    labels = shape_labels(table.kept)
    return [Fold(str(shape), labels != shape, labels == shape) for shape in np.unique(labels)]


def _where(holdout: Holdout, table: RunsTable) -> list[Fold]:
    kept = table.kept
    train, test = (matches(kept, condition).to_numpy() for condition in (holdout.train, holdout.test))
    if (train & test).any():
        raise UserError(f"holdout={holdout.label}: {int((train & test).sum())} rows are in both train and test")
    return [Fold(holdout.label, train, test)]


KINDS: Mapping[str, Callable[[Holdout, RunsTable], list[Fold]]] = {
    "largest": _largest,
    "latest": _latest,
    "largest_and_latest": _largest_and_latest,
    "leave_one_shape_out": _leave_one_shape_out,
    "where": _where,
}


def shape_labels(kept: pd.DataFrame) -> NDArray[np.str_]:
    """WIDTHxDEPTH of each row."""
    return np.array([f"{width:.0f}x{depth:.0f}" for width, depth in zip(kept["width"], kept["depth"], strict=True)])


@dataclass(frozen=True)
class HoldoutResult:
    """Errors of one law on one hold-out.

    Args:
        holdout: its label.
        law: the law's name.
        points: a row per predicted point: fold, run, width and depth where known, params, tokens, loss, predicted,
            error (relative, signed).
        distance: column -> largest held-out value over the largest fitted one.
        interval: of the mean absolute error, under resampling of the fitted runs; None where it was not asked for.
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
        """Mean absolute and signed error and number of points of every shape, or run where there are no shapes."""
        keys = ["width", "depth"] if {"width", "depth"} <= set(self.points) else ["run"]
        grouped = self.points.assign(absolute=self.points["error"].abs()).groupby(keys, sort=True)
        return grouped.agg(
            mean_absolute=("absolute", "mean"), mean_signed=("error", "mean"), points=("error", "size")
        ).reset_index()

    def plain(self) -> dict[str, Any]:
        """Point 9 of the checklist: errors on what is held out, and how far it lies beyond what was fitted."""
        return {
            "holdout": self.holdout,
            "mean_absolute": self.mean_absolute,
            "mean_signed": self.mean_signed,
            "by_shape": self.by_shape,
            "distance": self.distance,
        }


def evaluate(
    table: RunsTable,
    law: Law,
    holdout: Holdout,
    options: FitOptions | None = None,
    refits: int = 0,
    solve: Callable[[FitData], Floats] | None = None,
    level: float = 0.9,
) -> HoldoutResult:
    """Fit a law on the rows that are not held out, and predict those that are.

    Args:
        refits: of resampled runs, for the interval of the mean absolute error; 0 gives none.
        solve: theta of some rows, for laws that are not fitted all at once; None is the free fit.
        level: share of the refits inside that interval.

    Raises:
        UserError: if a fold cannot be made or fitted.
    """
    options = options or FitOptions()
    data, kept = FitData.of(table, law, options), table.kept
    folds = holdout.folds(table)
    solve = solve or (lambda rows: rows.solve(options).theta)
    found = []
    for fold in folds:
        try:
            found.append(_predicted(data, kept, fold, solve))
        except UserError as error:
            raise UserError(
                f"holdout={holdout.label}, without {fold.name}: {error}; or give another hold-out"
            ) from None
    points = pd.concat(found, ignore_index=True)
    interval = _interval(data, folds, options, refits, level) if refits else None
    return HoldoutResult(holdout.label, law.name, points, _distance(kept, folds), interval)


def _predicted(data: FitData, kept: pd.DataFrame, fold: Fold, solve: Callable[[FitData], Floats]) -> pd.DataFrame:
    """Held-out rows of one fold with their predictions."""
    theta = solve(data.rows(fold.train))
    test = data.rows(fold.test)
    predicted = np.exp(data.law.log_prediction(theta, test.columns))
    target = data.law.target
    names = [
        name for name in dict.fromkeys(("run", "width", "depth", "params", "tokens", "loss", target)) if name in kept
    ]
    rows = kept.loc[fold.test, names].assign(fold=fold.name, predicted=predicted)
    return rows.assign(error=rows["predicted"] / rows[target] - 1.0)


def _distance(kept: pd.DataFrame, folds: Sequence[Fold]) -> dict[str, float]:
    """How far the held-out rows lie beyond the fitted ones; the farthest fold counts."""
    names = ("params", "tokens")
    return {
        name: max(float(kept.loc[f.test, name].max() / kept.loc[f.train, name].max()) for f in folds) for name in names
    }


def _interval(data: FitData, folds: Sequence[Fold], options: FitOptions, n: int, level: float) -> tuple[float, float]:
    """Interval of the mean absolute error when the fitted runs are resampled, the folds' replicates in step."""
    totals, count = np.zeros(n), 0
    for fold in folds:
        train, test = data.rows(fold.train), data.rows(fold.test)
        solution = train.solve(options)
        drawn = bootstrap(
            data.law, train.columns, train.loss, train.runs, solution, n=n, delta=options.delta, seed=options.seed
        )
        log_loss = np.log(test.loss)
        errors = [np.expm1(data.law.log_prediction(theta, test.columns) - log_loss) for theta in drawn.thetas]
        totals += np.abs(np.array(errors)).sum(axis=1)
        count += len(test.loss)
    return percentile(totals / count, level)
