"""Prescriptions of approaches 1 and 2: size, tokens and loss, read off the lines of the optima, with intervals of refits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.intervals import percentile
from shapelaw.fitting.result import FitResult
from shapelaw.laws.base import in_loss_unit
from shapelaw.prescribe.answer import UNITS, Prescription
from shapelaw.prescribe.registry import given_options
from shapelaw.runs.table import RunsTable

if TYPE_CHECKING:
    from shapelaw.config import PrescribeConfig

Array = NDArray[np.float64]
READ = ("params", "tokens", "tokens_per_param", "loss")


def best_by_lines(options: PrescribeConfig, fit: FitResult, runs: RunsTable) -> Prescription:
    """The best params and tokens for a budget, and their loss.

    Args:
        options: a budget in the lines' cost, and no other question.
        fit: fit by method hull, binning or isoflop.
        runs: its runs.

    Raises:
        UserError: for another question, or a fit that was saved without a line of the loss.
    """
    _refuse_others(options, fit)
    budget, level = options.budget, float((fit.settings.get("bootstrap") or {}).get("level", 0.9))
    assert budget is not None
    names = [name for name in READ if f"{name}_exponent" in fit.parameters]
    values = {name: _at(fit.parameters, name, budget) for name in names}
    drawn = {name: _drawn(fit, name, budget) for name in names}
    intervals = {name: percentile(some, level) for name, some in drawn.items() if len(some) > 1}
    cost = str(fit.settings["cost"])
    notes = [] if intervals else ["no intervals: the fit has no refits of resampled runs (bootstrap=runs makes them)"]
    return Prescription(
        question=f"best size for {budget:.6g} {UNITS[cost]}, by the lines of method={fit.method}",
        law=fit.method,
        values={**values, cost: budget},
        units=in_loss_unit({name: UNITS[name] for name in (*values, cost)}, fit.loss_unit),
        intervals=intervals,
        level=level,
        outside=_outside(fit, runs, budget),
        overrides=(),
        notes=tuple(notes),
        ranged=frozenset({cost}),
        flags=tuple(fit.flags),
    )


def _refuse_others(options: PrescribeConfig, fit: FitResult) -> None:
    given = given_options(options)
    further = [text for name, text in given.items() if name not in ("budget", "space")]
    if further or options.budget is None:
        raise UserError(
            f"{', '.join(further) or 'nothing is asked'}: method={fit.method} gives only lines of the best size; give "
            f"budget=NUMBER, in {UNITS[str(fit.settings['cost'])]}, or a fit of method=parametric"
        )


def _at(parameters: Mapping[str, float], name: str, budget: float) -> float:
    floor = parameters.get(f"{name}_irreducible", 0.0)
    return floor + math.exp(parameters[f"{name}_log_coefficient"] + parameters[f"{name}_exponent"] * math.log(budget))


def _drawn(fit: FitResult, name: str, budget: float) -> Array:
    """The target at the budget in each refit that gave a line."""
    pairs = [fit.replicates.get(f"{name}_{part}", ()) for part in ("log_coefficient", "exponent")]
    if not all(pairs):
        return np.array([])
    height, slope = (np.array(values, dtype=np.float64) for values in pairs)
    floor = np.array(fit.replicates.get(f"{name}_irreducible", np.zeros(len(slope))), dtype=np.float64)
    found = floor + np.exp(height + slope * math.log(budget))
    return np.asarray(found[np.isfinite(found)])


def _outside(fit: FitResult, runs: RunsTable, budget: float) -> dict[str, float]:
    cost = str(fit.settings["cost"])
    spent = runs.flops(fit.settings.get("flops")) if cost == "flops" else runs.column(cost, "method")
    low, high = float(spent[spent > 0].min()), float(spent.max())
    return {cost: budget / high} if budget > high else {cost: budget / low} if budget < low else {}
