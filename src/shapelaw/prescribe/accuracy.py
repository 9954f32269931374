"""Accuracies of a prescription: from the predicted loss, by a law from loss to accuracy, or from the size itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.result import FitResult
from shapelaw.laws import get_law
from shapelaw.runs.table import RunsTable

Array = NDArray[np.float64]
READ = {"loss", "params", "tokens"}
"""Columns that such a law may read."""


@dataclass(frozen=True)
class FittedAccuracy:
    """A fitted law of an accuracy.

    Args:
        fit: fit of a law that reads the loss, or params and tokens.
        lowest, highest: lowest and highest loss of its runs.
    """

    fit: FitResult
    lowest: float
    highest: float

    @classmethod
    def of(cls, fit: FitResult, runs: RunsTable, loss_unit: str, counting: str) -> FittedAccuracy:
        """A fit, checked for use with the sizes and losses of another fit.

        Args:
            fit: fit of an accuracy.
            runs: its runs.
            loss_unit, counting: unit of the other fit's losses, and how its params are counted.

        Raises:
            UserError: for a fit that is not of an accuracy, or whose losses or params differ.
        """
        law = None if fit.law is None else get_law(fit.law)
        if law is None or law.target != "error" or set(law.predictors) - READ:
            raise UserError(
                f"accuracy: the fit's law={fit.law} is not a law of an accuracy; give a fit of law=accuracy/exponential, "
                "accuracy/sigmoid or accuracy/direct"
            )
        if "loss" in law.predictors and runs.loss_unit != loss_unit:
            raise UserError(
                f"accuracy: its losses are in {runs.loss_unit}, but those of the law of the loss are in {loss_unit}; "
                "fit both in the same unit"
            )
        own = fit.settings.get("counting")
        if "params" in law.predictors and own != counting:
            raise UserError(
                f"accuracy: its params are counted as {own}, but those of the law of the loss as {counting}; fit both "
                "with the same counting"
            )
        losses = runs.column("loss", "accuracy")
        return cls(fit, float(losses.min()), float(losses.max()))

    def at(self, columns: Mapping[str, Array]) -> Array:
        """The share of right answers, (n,): at the first point by the fit's own law, at each other point by one of its refits.

        The points after the first come from refits, so the spread of the results includes the uncertainty of both laws.

        Args:
            columns: loss, params and tokens, each (n,).
        """
        law, vectors = get_law(str(self.fit.law)), [*self.fit.vectors] or [self.fit.vector]
        chosen = [self.fit.vector, *(vectors[k % len(vectors)] for k in range(len(columns["loss"]) - 1))]
        points = [{name: columns[name][k : k + 1] for name in law.predictors} for k in range(len(chosen))]
        logs = [law.log_prediction(np.asarray(theta), at)[0] for theta, at in zip(chosen, points, strict=True)]
        return np.asarray(1.0 - np.exp(logs))

    def notes(self, loss: float) -> list[str]:
        """Notes for the reader of an accuracy at a loss."""
        notes = (
            []
            if len(self.fit.vectors)
            else ["accuracy: its fit has no refits, so the interval is that of the size alone"]
        )
        if "loss" not in get_law(str(self.fit.law)).predictors or self.lowest <= loss <= self.highest:
            return notes
        side = (
            f"below the lowest ({self.lowest:.4g})" if loss < self.lowest else f"above the highest ({self.highest:.4g})"
        )
        return [*notes, f"accuracy: a loss of {loss:.4g} is {side} that its law was fitted to"]
