"""Laws that the data choose: `auto`, the candidate that predicts its own held-out largest models best, and `median3`, the
median of the three best.

A median of three laws is itself a law; a saved fit names it `median3(LAW,LAW,LAW)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from shapelaw.errors import UserError
from shapelaw.laws.base import Array, Columns, Law

CANDIDATES = ("params_tokens", "params_tokens_interaction", "interaction", "skaling", "skaling_aspect")
"""Candidates: eq 1, and laws that couple params and tokens, with and without the aspect factor."""
COUNTING = "no_embedding_and_head"
"""How all candidates count params, so that their hold-outs compare; the total if a table lacks the columns for it."""
MEMBERS = 3


class LawChoice(Law):
    """A choice of law that only a fit to data can make."""

    predictors = ()
    parameters = ()
    default_counting = COUNTING

    def __init__(self, name: str, formula: str, candidates: Sequence[str] = CANDIDATES) -> None:
        self.name, self.formula, self.candidates = name, formula, tuple(candidates)
        self.source = "shapelaw: chosen by the fit's own hold-out of the largest models"

    def log_prediction(self, theta: Array, columns: Columns) -> Array:
        """There is no prediction before the choice.

        Raises:
            UserError: always.
        """
        raise UserError(f"law={self.name}: is chosen by a fit; predict with the result of a fit")


AUTO = LawChoice("auto", "the candidate that predicts its own held-out largest models best")
MEDIAN3 = LawChoice("median3", "the median prediction of the three candidates that do so best")
CHOICES = {law.name: law for law in (AUTO, MEDIAN3)}


@dataclass(frozen=True)
class MedianLaw(Law):
    """The median of the predictions of laws; theta concatenates their vectors.

    Args:
        laws: the members, an odd number of them.
    """

    laws: tuple[Law, ...]
    default_counting: str = COUNTING

    @property
    def name(self) -> str:  # type: ignore[override]
        """median3(LAW,LAW,LAW)."""
        return f"{MEDIAN3.name}({','.join(law.name for law in self.laws)})"

    @property
    def formula(self) -> str:  # type: ignore[override]
        """The members' formulas."""
        return "the median of " + "; ".join(law.formula for law in self.laws)

    @property
    def source(self) -> str:  # type: ignore[override]
        """The members' sources."""
        return "; ".join(dict.fromkeys(law.source for law in self.laws))

    @property
    def predictors(self) -> tuple[str, ...]:  # type: ignore[override]
        """Predictors of all members."""
        return tuple(dict.fromkeys(name for law in self.laws for name in law.predictors))

    @property
    def parameters(self) -> tuple[str, ...]:  # type: ignore[override]
        """LAW.PARAMETER."""
        return tuple(f"{law.name}.{name}" for law in self.laws for name in law.parameters)

    @property
    def log_parameters(self) -> frozenset[str]:  # type: ignore[override]
        """Those of the members."""
        return frozenset(f"{law.name}.{name}" for law in self.laws for name in law.log_parameters)

    def parts(self, theta: Array) -> list[Array]:
        """The members' own vectors, of one theta or of rows of it, (..., p)."""
        return np.split(theta, np.cumsum([len(law.parameters) for law in self.laws])[:-1], axis=-1)

    def log_prediction(self, theta: Array, columns: Columns) -> Array:
        """Log of the median prediction, shape (n,)."""
        parts = zip(self.laws, self.parts(np.asarray(theta, dtype=np.float64)), strict=True)
        return np.asarray(np.median([law.log_prediction(part, columns) for law, part in parts], axis=0))


def median_of(name: str, find: Callable[[str], Law]) -> MedianLaw | None:
    """The median that a saved fit names; None for any other name."""
    if not (name.startswith(f"{MEDIAN3.name}(") and name.endswith(")")):
        return None
    return MedianLaw(tuple(find(member) for member in name[len(MEDIAN3.name) + 1 : -1].split(",")))
