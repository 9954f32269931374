"""Refusals to prescribe: answers that rest on parameters that the runs do not identify, and losses that no model can have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from shapelaw.errors import UserError
from shapelaw.prescribe.answer import quantities
from shapelaw.prescribe.optimum import Optimum
from shapelaw.prescribe.search import SizeSearch
from shapelaw.runs.columns import guessing

APART = {"params": 2.0, "tokens": 2.0, "aspect_ratio": 2.0, "flops": 2.0, "loss": 1.02}
"""Largest factor by which laws that fit the runs equally well may differ in a quantity of the answer."""
FAR = 1000.0
"""Factor beyond the largest, or below the smallest, fitted params or tokens from which on a law tells nothing."""


class Unidentified(UserError):
    """The runs do not identify the answer: more runs are needed, not another option."""


def refuse_ridge(search: SizeSearch, again: Callable[[SizeSearch], Optimum], option: str) -> None:
    """Refuse an answer in which laws that fit the runs equally well differ.

    Args:
        again: repeats the search under other parameter vectors.

    Raises:
        Unidentified: with the quantities that are not identified.
    """
    if not search.fit.ridge_vectors:
        return
    fit = dataclasses.replace(search.fit, refits=search.fit.ridge_vectors, replicates={})
    other = search.replaced(fit=fit, intervals=True, shapes=search.shapes)
    answers = quantities(other, again(other))
    apart = [name for name, most in APART.items() if name in answers and not together(answers[name], most)]
    if apart:
        names = ", ".join(search.fit.ridge)
        raise Unidentified(
            f"{option}: depends on {names}, which the runs do not identify: laws of the form {search.fit.law} that fit "
            f"them equally well differ in the answer's {', '.join(apart)}; add runs of other sizes, tokens or "
            "shapes, or fit a law that these runs identify (law=auto)"
        )


def together(values: np.ndarray, most: float) -> np.ndarray:
    """Whether the values of several laws, along the first axis, are above 0 and differ by at most this factor."""
    low, high = values.min(axis=0), values.max(axis=0)
    return np.asarray(np.isfinite(values).all(axis=0) & (low > 0) & (high <= most * low))


def refuse_nonsense(search: SizeSearch, values: Mapping[str, float], outside: Mapping[str, float], option: str) -> None:
    """Refuse a loss outside (0, ln of the vocabulary], where the upper end means guessing, and sizes far beyond the fitted.

    Raises:
        UserError: with the loss, or the distance of the size.
    """
    loss, vocab_size = values["loss"], search.world.suite.vocab_size
    unit = search.fit.loss_unit
    chance = float(guessing(vocab_size or math.inf, unit))
    if not 0 < loss <= chance:
        raise UserError(
            f"{option}: law {search.fit.law} gives a loss of {loss:.4g} {unit}, outside 0 to {chance:.4g} "
            f"(guessing among {vocab_size or 'all'} tokens): the law means nothing there; ask nearer to the fitted runs"
        )
    far = {name: outside[name] for name in ("params", "tokens") if name in outside}
    far = {name: factor for name, factor in far.items() if not 1 / FAR <= factor <= FAR}
    if far:
        name, factor = next(iter(far.items()))
        side = f"{factor:.3g} times the largest" if factor > 1 else f"{factor:.3g} times the smallest"
        raise UserError(
            f"{option}: {name} would be {side} fitted, and no law is known to hold over a factor of {FAR:g}; ask nearer to the "
            "fitted runs"
        )
