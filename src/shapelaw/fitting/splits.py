"""What is held out of a fit: the largest models, the latest tokens, one shape after the other, or rows by conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.runs.query import matches
from shapelaw.runs.table import RunsTable

Mask = NDArray[np.bool_]

PARAMS_FROM_SHARE = 0.75
"""Models from this share of the largest size are held out: the 2B models of the Gemstones."""
TOKENS_TO_SHARE, TOKENS_FROM_SHARE = 0.285, 0.855
"""Shares of the largest token count: just under 100B and 300B of the Gemstones' 350B."""

FEWEST_SIZES, ROLLS = 3, 6
"""Fewest sizes that a fold of a rolling hold-out is fitted to, and the most folds."""


@dataclass(frozen=True)
class Fold:
    """One split of the kept rows; rows in neither mask are ignored."""

    name: str
    train: Mask
    test: Mask


@dataclass(frozen=True)
class Holdout:
    """What is held out.

    Args:
        kind: `largest`, `latest`, `largest_and_latest`, `leave_one_shape_out`, `rolling` or `where`.
        params_from: models with at least this many parameters (total) are held out; None: 0.75 of the largest.
        tokens_to: rows with at most this many tokens are fitted; None: 0.285 of the largest count.
        tokens_from: rows with more tokens than this are held out; None: 0.855 of the largest count.
        train, test: kind `where` only: conditions such as `flops <= 1e21` and `flops > 1e21`.
        name: its name in tables; empty: the kind.
    """

    kind: str
    params_from: float | None = None
    tokens_to: float | None = None
    tokens_from: float | None = None
    train: str = ""
    test: str = ""
    name: str = ""

    @classmethod
    def of(cls, holdout: Holdout | str) -> Holdout:
        """A hold-out from its kind.

        Raises:
            UserError: for an unknown kind, or one that needs conditions.
        """
        if isinstance(holdout, Holdout):
            return holdout
        if holdout not in KINDS or holdout == "where":
            raise UserError(
                f"holdout={holdout}: allowed values are {', '.join(kind for kind in KINDS if kind != 'where')}; give your own "
                "conditions in Python, with Holdout('where', train=..., test=...)"
            )
        return cls(holdout)

    @property
    def label(self) -> str:
        """The name, or the kind if it has none."""
        return self.name or self.kind

    def folds(self, table: RunsTable) -> list[Fold]:
        """Splits of a table's kept rows.

        Raises:
            UserError: for an unknown kind, or a split that leaves nothing to fit or to predict.
        """
        if self.kind not in KINDS:
            raise UserError(f"holdout={self.kind}: allowed values are {', '.join(KINDS)}")
        folds = KINDS[self.kind](self, table)
        for fold in folds:
            if not (fold.train.any() and fold.test.any()):
                raise UserError(
                    f"holdout={self.label}: {int(fold.train.sum())} rows to fit and {int(fold.test.sum())} to predict; "
                    "move params_from, tokens_to or tokens_from, or the conditions"
                )
        return folds


def _sizes(holdout: Holdout, rows: pd.DataFrame) -> Mask:
    limit = holdout.params_from or PARAMS_FROM_SHARE * float(rows["params"].max())
    return (rows["params"] >= limit).to_numpy()


def _times(holdout: Holdout, rows: pd.DataFrame) -> tuple[Mask, Mask]:
    """Masks of early and late rows."""
    longest = float(rows["tokens"].max())
    early = rows["tokens"] <= (holdout.tokens_to or TOKENS_TO_SHARE * longest)
    late = rows["tokens"] > (holdout.tokens_from or TOKENS_FROM_SHARE * longest)
    return early.to_numpy(), (late & ~early).to_numpy()


def _largest(holdout: Holdout, table: RunsTable) -> list[Fold]:
    large = _sizes(holdout, table.kept)
    return [Fold("largest models", ~large, large)]


def _latest(holdout: Holdout, table: RunsTable) -> list[Fold]:
    early, late = _times(holdout, table.kept)
    return [Fold("latest tokens", early, late)]


def _largest_and_latest(holdout: Holdout, table: RunsTable) -> list[Fold]:
    rows = table.kept
    large = _sizes(holdout, rows)
    early, late = _times(holdout, rows)
    return [Fold("largest models at the latest tokens", ~large & early, large & late)]


def _leave_one_shape_out(holdout: Holdout, table: RunsTable) -> list[Fold]:
    if not table.has_shapes:
        raise UserError(f"holdout={holdout.label}: the table has no width and depth; use largest or latest")
    labels = shape_labels(table.kept)
    return [Fold(str(shape), labels != shape, labels == shape) for shape in np.unique(labels)]


def _rolling(holdout: Holdout, table: RunsTable) -> list[Fold]:
    """Folds that predict the next size from all smaller ones, at up to six places from the middle of the sizes upward."""
    params = table.kept["params"].to_numpy(dtype=np.float64)
    sizes = np.unique(params)
    first = max(FEWEST_SIZES, len(sizes) // 2)
    if len(sizes) <= first:
        raise UserError(
            f"holdout={holdout.label}: the table has {len(sizes)} sizes, and each fold needs {FEWEST_SIZES} to fit and "
            "a further one to predict; use latest"
        )
    places = np.unique(np.linspace(first, len(sizes) - 1, ROLLS).round().astype(int))
    return [Fold(f"params={sizes[k]:.4g}", params < sizes[k], params == sizes[k]) for k in places]


def _where(holdout: Holdout, table: RunsTable) -> list[Fold]:
    rows = table.kept
    train, test = (matches(rows, condition).to_numpy() for condition in (holdout.train, holdout.test))
    if (train & test).any():
        raise UserError(f"holdout={holdout.label}: {int((train & test).sum())} rows are in both train and test")
    return [Fold(holdout.label, train, test)]


KINDS: Mapping[str, Callable[[Holdout, RunsTable], list[Fold]]] = {
    "largest": _largest,
    "latest": _latest,
    "largest_and_latest": _largest_and_latest,
    "rolling": _rolling,
    "leave_one_shape_out": _leave_one_shape_out,
    "where": _where,
}


def shape_labels(rows: pd.DataFrame) -> NDArray[np.str_]:
    """WIDTHxDEPTH of each row."""
    return np.array([f"{width:.0f}x{depth:.0f}" for width, depth in zip(rows["width"], rows["depth"], strict=True)])
