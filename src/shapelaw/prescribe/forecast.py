"""Plain forecasts: the loss of a size without a shape, or of an amount of FLOPs, and the size that reaches a loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.intervals import percentile
from shapelaw.fitting.new_run import KINDS, NewRun
from shapelaw.fitting.result import FitResult
from shapelaw.laws import get_law
from shapelaw.laws.base import in_loss_unit
from shapelaw.prescribe.answer import UNITS, Prescription
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.registry import Basis

if TYPE_CHECKING:
    from shapelaw.config import PrescribeConfig

Array = NDArray[np.float64]
LOG_FLOPS = (0.0, 140.0)
"""Natural logarithms of the range of FLOPs in which a loss is searched for: 1 to 1e60."""


def ask_size(options: PrescribeConfig, basis: Basis) -> Prescription:
    """The loss of params and tokens, or the tokens at which params reach a loss."""
    params, tokens, loss = options.params, options.tokens, options.loss
    assert params is not None
    problem = Problem(basis.fit, basis.world, space="params")
    if tokens is not None:
        return problem.at_size(params, tokens)
    assert loss is not None
    return problem.tokens_for(params, loss)


def ask_flops(options: PrescribeConfig, basis: Basis) -> Prescription:
    """The loss of an amount of FLOPs, or the FLOPs that reach a loss."""
    if options.budget is not None:
        return loss_of_flops(basis, options.budget)
    assert options.loss is not None
    return flops_for_loss(basis, options.loss)


def loss_of_flops(basis: Basis, flops: float) -> Prescription:
    """The loss by a law of FLOPs alone, with its intervals."""
    low_high = _losses(basis, flops)
    fit = basis.fit
    at = {"flops": np.array([flops])}
    values = {"flops": flops, "loss": float(get_law(str(fit.law)).predict_at(fit.vector, at)[0])}
    intervals = {"loss": low_high["mean"]} if low_high else {}
    return _told(basis, f"loss of {flops:.6g} FLOPs", values, intervals, low_high)


def flops_for_loss(basis: Basis, loss: float) -> Prescription:
    """The FLOPs at which a law of FLOPs alone reaches a loss.

    Raises:
        UserError: if no number of FLOPs suffices.
    """
    fit = basis.fit
    found = [_reaching(fit, vector, loss) for vector in (fit.vector, *fit.vectors)]
    if not np.isfinite(found[0]):
        raise UserError(f"loss={loss:g}: law {fit.law} does not reach it at any number of FLOPs; give a higher loss")
    usable = np.array(found[1:])[np.isfinite(found[1:])]
    intervals = {"flops": percentile(usable, _level(fit))} if len(usable) > 1 else {}
    missed = len(found) - 1 - len(usable)
    notes = (
        (f"{missed} of {len(found) - 1} refits do not reach it at any number of FLOPs and are left out",)
        if missed
        else ()
    )
    values = {"flops": found[0], "loss": loss}
    told = _told(basis, f"FLOPs for a loss of {loss:g}", values, intervals, _losses(basis, found[0]))
    return replace(told, notes=(*told.notes, *notes))


def _losses(basis: Basis, flops: float) -> dict[str, tuple[float, float]]:
    """Interval of the law and of a new run; beyond the fitted FLOPs, params and tokens each grow by the root of the factor."""
    fit = basis.fit
    if not fit.new_run or not len(fit.vectors):
        return {}
    at = {"flops": np.array([flops])}
    centre, drawn = get_law(str(fit.law)).log_prediction(fit.vector, at), fit.log_predictions(at)
    beyond = np.sqrt(max(flops / float(basis.runs.flops(fit.settings.get("flops")).max()), 1.0))
    largest = NewRun.read(fit.new_run).largest
    fitted = {"params": largest["params"], "tokens": largest["compute"] / largest["params"]}
    sizes = {name: np.array([value * beyond]) for name, value in fitted.items()}
    ends = {kind: fit.interval_of(kind, centre, drawn, sizes) for kind in KINDS}
    return {kind: (float(np.exp(low[0])), float(np.exp(high[0]))) for kind, (low, high) in ends.items()}


def _reaching(fit: FitResult, vector: Array, loss: float) -> float:
    """FLOPs at which a vector's law has a loss; NaN if there are none."""
    law, target = get_law(str(fit.law)), np.log(loss)

    def above(log_flops: float) -> float:
        return float(law.log_prediction(vector, {"flops": np.array([np.exp(log_flops)])})[0] - target)

    low, high = LOG_FLOPS
    if not above(low) > 0 > above(high):
        return np.nan
    return float(np.exp(scipy.optimize.brentq(above, low, high, xtol=1e-12)))


def _level(fit: FitResult) -> float:
    return float((fit.settings.get("bootstrap") or {}).get("level", 0.9))


def _told(
    basis: Basis,
    question: str,
    values: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    loss_of_size: Mapping[str, tuple[float, float]],
) -> Prescription:
    fit, fitted = basis.fit, basis.runs.flops(basis.fit.settings.get("flops"))
    low, high = float(fitted.min()), float(fitted.max())
    flops = values["flops"]
    outside = {"flops": flops / high} if flops > high else {"flops": flops / low} if flops < low else {}
    notes = (
        () if loss_of_size else ("no intervals: the fit has no refits of resampled runs (bootstrap=runs makes them)",)
    )
    return Prescription(
        question=question,
        law=str(fit.law),
        values=dict(values),
        units=in_loss_unit({name: UNITS[name] for name in values}, fit.loss_unit),
        intervals=dict(intervals),
        level=_level(fit),
        outside=outside,
        overrides=(),
        notes=notes,
        ranged=frozenset({"flops"}),
        flags=tuple(fit.flags),
        loss_of_size=dict(loss_of_size),
    )
