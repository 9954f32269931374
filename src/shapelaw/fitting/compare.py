"""Laws side by side on the same data: one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from shapelaw.config import BootstrapOptions
from shapelaw.errors import UserError
from shapelaw.fitting.fit import fit
from shapelaw.fitting.holdout import Holdout, HoldoutResult, evaluate
from shapelaw.fitting.options import FitData, FitOptions
from shapelaw.fitting.residuals import information_criteria, residual_structure
from shapelaw.fitting.result import FitResult
from shapelaw.laws import get_law
from shapelaw.runs.table import RunsTable


@dataclass(frozen=True)
class Comparison:
    """Laws side by side.

    Args:
        table: a row per law; see `compare`.
        fits: label of the law -> its fit of the whole table.
        holdouts: (label of the law, label of the hold-out) -> errors per point and shape.
    """

    table: pd.DataFrame
    fits: Mapping[str, FitResult]
    holdouts: Mapping[tuple[str, str], HoldoutResult]


def compare(
    runs: RunsTable,
    laws: Sequence[str],
    holdouts: Sequence[Holdout | str] = (),
    *,
    options: FitOptions | None = None,
    refits: int = 0,
) -> Comparison:
    """Fit laws to the same rows and put what speaks for and against them in one table.

    Args:
        laws: names, or `NAME:COUNTING` for another counting of params than the law's own.
        holdouts: hold-outs or their kinds.
        options: of every fit; a counting given there holds for every law without one of its own.
        refits: of resampled runs, for 90% intervals of the exponents and held-out errors; 0 gives none.

    Returns:
        a comparison whose table has a row per law and the columns law, counting, n_parameters, objective (the sum),
        aic, bic (by `residuals.huber_log_likelihood`), between_run_share (of the residual variance),
        compute_optimal_exponent; and for every hold-out its label (mean absolute relative error), label_signed and
        label_worst (largest mean of a shape); with _low and _high where resampled.

    Raises:
        UserError: for an unknown law, or one that the table cannot serve.
    """
    if not laws:
        raise UserError("laws: none given; name at least one, such as params_tokens")
    wanted = [Holdout.of(one) for one in holdouts]
    fits: dict[str, FitResult] = {}
    errors: dict[tuple[str, str], HoldoutResult] = {}
    rows = []
    for label in laws:
        own = _options_of(label, options or FitOptions())
        fits[label] = _fit(runs, label, own, refits)
        found = [evaluate(runs, get_law(_name(label)), one, own, refits) for one in wanted]
        errors |= {(label, result.holdout): result for result in found}
        rows.append(_row(runs, label, own, fits[label], found))
    return Comparison(pd.DataFrame(rows), fits, errors)


def _name(label: str) -> str:
    return label.split(":")[0]


def _options_of(label: str, options: FitOptions) -> FitOptions:
    """The options with the label's own counting."""
    return replace(options, counting=label.split(":", 1)[1]) if ":" in label else options


def _fit(runs: RunsTable, label: str, options: FitOptions, refits: int) -> FitResult:
    return fit(
        runs,
        _name(label),
        options.delta,
        options.counting,
        solver=options.solver,
        bootstrap=BootstrapOptions(n=refits) if refits else None,
        seed=options.seed,
        starts=options.starts,
        grid_size=options.grid_size,
        flops=options.flops,
    )


def _row(
    runs: RunsTable, label: str, options: FitOptions, result: FitResult, held_out: Sequence[HoldoutResult]
) -> dict[str, object]:
    """One law's row of the table."""
    law = get_law(_name(label))
    data = FitData.of(runs, law, options)
    residuals = np.log(data.loss) - np.log(law.predict(result.parameters, data.columns))
    aic, bic = information_criteria(residuals, options.delta, len(law.parameters))
    row: dict[str, object] = {
        "law": label,
        "counting": data.counting,
        "n_parameters": len(law.parameters),
        "objective": result.objective,
        "aic": aic,
        "bic": bic,
        "between_run_share": residual_structure(runs.kept, residuals).between_run_share,
        "compute_optimal_exponent": result.compute_optimal_exponent,
    }
    row |= _ends("compute_optimal_exponent", result.intervals.get("compute_optimal_exponent"))
    for one in held_out:
        row |= {one.holdout: one.mean_absolute, f"{one.holdout}_signed": one.mean_signed}
        row |= {f"{one.holdout}_worst": one.largest_of_a_group} | _ends(one.holdout, one.interval)
    return row


def _ends(name: str, interval: tuple[float, float] | None) -> dict[str, object]:
    return {} if interval is None else {f"{name}_low": interval[0], f"{name}_high": interval[1]}
