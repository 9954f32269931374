"""From a predicted loss to an accuracy: a fit of a law of the loss, chained to a fit of an accuracy on the loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.result import FitResult
from shapelaw.laws import get_law
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AccuracyOfLoss:
    """A fitted law of the accuracy on the loss.

    Args:
        fit: of a law that reads the loss alone.
        lowest, highest: of the losses that it was fitted to.
    """

    fit: FitResult
    lowest: float
    highest: float

    @classmethod
    def of(cls, fit: FitResult, runs: RunsTable, loss_unit: str) -> AccuracyOfLoss:
        """A fit, for losses in a unit.

        Raises:
            UserError: for a fit that is none of an accuracy on a loss, or whose losses have another unit.
        """
        law = None if fit.law is None else get_law(fit.law)
        if law is None or law.target != "error" or law.predictors != ("loss",):
            raise UserError(
                f"accuracy: the fit's law={fit.law} is none of an accuracy on the loss; give a fit of "
                "law=accuracy/exponential or law=accuracy/sigmoid"
            )
        if runs.loss_unit != loss_unit:
            raise UserError(
                f"accuracy: its losses are in {runs.loss_unit}, those of the law of the loss in {loss_unit}; fit both to one "
                "unit"
            )
        losses = runs.column("loss", "accuracy")
        return cls(fit, float(losses.min()), float(losses.max()))

    def at(self, losses: Array) -> Array:
        """The share of right answers, (n,): of the first loss by the fit's own law, of each other by a refit of its own.

        The losses after the first are those of refits, so that the spread of what comes out holds the doubt of both laws.
        """
        law, vectors = get_law(str(self.fit.law)), [*self.fit.vectors] or [self.fit.vector]
        chosen = [self.fit.vector, *(vectors[k % len(vectors)] for k in range(len(losses) - 1))]
        logs = [law.log_prediction(np.asarray(theta), {"loss": losses[k : k + 1]})[0] for k, theta in enumerate(chosen)]
        return np.asarray(1.0 - np.exp(logs))

    def notes(self, loss: float) -> list[str]:
        """What a reader of an accuracy at a loss must know."""
        if not len(self.fit.vectors):
            return ["accuracy: its fit holds no refits, so the interval is that of the loss alone"]
        if self.lowest <= loss <= self.highest:
            return []
        side = (
            f"below the lowest ({self.lowest:.4g})" if loss < self.lowest else f"above the highest ({self.highest:.4g})"
        )
        return [f"accuracy: a loss of {loss:.4g} lies {side} that its law was fitted to"]
