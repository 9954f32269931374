"""Each stage in a fit's result: its selected data, its fit, its intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting.objective import huber
from shapelaw.step_batch.critical import contour_table, reading_table
from shapelaw.step_batch.flags import remaining_drops
from shapelaw.step_batch.pipeline import Estimate, StagedData

Array = NDArray[np.float64]
Ends = Mapping[str, tuple[float, float]]


def stages(data: StagedData, estimated: Estimate, intervals: Ends) -> dict[str, Any]:
    """The three stages, in their order."""
    return {
        "critical_batch": _critical(data, estimated, intervals),
        "converged_loss": _converged(data, estimated, intervals),
        "learning_curve": _adjusted(data, estimated, intervals),
    }


def _own(intervals: Ends, *names: str) -> dict[str, tuple[float, float]]:
    return {name: intervals[name] for name in names if name in intervals}


def _critical(data: StagedData, estimated: Estimate, intervals: Ends) -> dict[str, Any]:
    table = contour_table(data.readings, estimated.critical)
    log_b = estimated.critical.log_critical_at(np.log(table["loss"].to_numpy()))
    return {
        "selection": "steps at equal losses, of every size with at least 3 batches and 5 validations a run",
        "runs": int(np.isfinite(data.readings.log_steps).any(axis=0).sum()),
        "batches": sorted({curve.batch for curve in data.curves}),
        "contours": table.assign(fitted=np.exp(log_b)),
        "readings": reading_table(data.readings, estimated.critical),
        "fit": {"B_star": float(np.exp(estimated.critical.log_b_star)), "alpha_B": 1 / estimated.critical.steepness},
        "intervals": _own(intervals, "B_star", "alpha_B"),
    }


def _converged(data: StagedData, estimated: Estimate, intervals: Ends) -> dict[str, Any]:
    curves = [data.curves[i] for i in estimated.furthest]
    fitted = np.exp(estimated.converged.log_floor_at(np.log(data.sizes)))
    drops = remaining_drops(data, estimated)
    rows = [
        {
            "params": float(size),
            "run": curve.run,
            "batch_tokens": curve.batch,
            "steps": float(curve.steps[-1]),
            "last_loss": curve.last_loss,
            "last_slope": curve.last_slope,
            "converged_loss": float(floor),
            "remaining_drop": float(drop),
            "fitted": float(fit),
        }
        for size, curve, floor, drop, fit in zip(
            data.sizes, curves, estimated.floors.values, drops, fitted, strict=True
        )
    ]
    other = estimated.other
    irreducible = data.law.irreducible is not None
    return {
        "selection": "of every size the run with the most adjusted steps",
        "how": data.options.converged,
        "common_curve": {"S_c": float(np.exp(estimated.floors.log_s_c)), "alpha_S": estimated.floors.alpha_s},
        "sizes": rows,
        "fit": _size_law(estimated.converged.log_n_c, estimated.converged.alpha_n, estimated.converged.irreducible),
        "squares": estimated.converged.squares,
        "intervals": _own(intervals, "N_c", "alpha_N", "E"),
        "without_E" if irreducible else "with_E": other
        and {**_size_law(other.log_n_c, other.alpha_n, other.irreducible), "squares": other.squares},
    }


def _size_law(log_n_c: float, alpha_n: float, irreducible: float) -> dict[str, float]:
    return {"N_c": float(np.exp(min(log_n_c, 700.0))), "alpha_N": alpha_n, "E": irreducible}


def _adjusted(data: StagedData, estimated: Estimate, intervals: Ends) -> dict[str, Any]:
    rows = int(estimated.rows.sum())
    return {
        "selection": f"every row after warm-up of at least {data.options.steps_min:g} adjusted steps",
        "rows": rows,
        "rows_left_out": len(estimated.rows) - rows,
        "fit": {"S_c": float(np.exp(estimated.adjusted.log_s_c)), "alpha_S": estimated.adjusted.alpha_s},
        "objective": estimated.adjusted.objective,
        "intervals": _own(intervals, "S_c", "alpha_S"),
    }


def objective(data: StagedData, theta: Array, rows: NDArray[np.bool_]) -> float:
    """Huber's sum of the composed law over the rows that stage S used."""
    columns = {"params": data.params[rows], "tokens": (data.steps * data.batch)[rows], "batch_tokens": data.batch[rows]}
    residuals = np.log(data.loss[rows]) - data.law.log_prediction(theta, columns)
    return float(np.sum(huber(residuals, data.delta)))
