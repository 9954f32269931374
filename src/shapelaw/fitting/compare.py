"""Laws side by side on the same data: one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from shapelaw.config import BootstrapOptions
from shapelaw.errors import UserError
from shapelaw.fitting.fit import fit
from shapelaw.fitting.holdout import HoldoutResult, evaluate
from shapelaw.fitting.residuals import information_criteria, residual_structure
from shapelaw.fitting.result import FitResult
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.fitting.splits import Holdout
from shapelaw.laws import get_law
from shapelaw.laws.choices import AUTO, LawChoice
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
    laws: Sequence[str] | None = None,
    holdouts: Sequence[Holdout | str] = (),
    *,
    spec: FitSpec | None = None,
    refits: int = 0,
) -> Comparison:
    """Fit laws to the same rows and compare them in one table.

    Args:
        laws: names, or `NAME:COUNTING` to count params otherwise than the law's own way; None takes the candidates of
            law=auto that can be fitted to the table, best first.
        holdouts: hold-outs or their kinds.
        spec: how to fit every law; its law is ignored, and its counting applies to every law given without one.
        refits: number of refits of resampled runs, for 90% intervals of the exponents and held-out errors; 0 gives none.

    Returns:
        a comparison whose table has a row per law and the columns law, counting, n_parameters, objective (the sum),
        aic, bic (by `residuals.huber_log_likelihood`), between_run_share (of the residual variance),
        compute_optimal_exponent; and for every hold-out its label (mean absolute relative error), label_signed and
        label_worst (largest mean of a shape); with _low and _high if resampled.

    Raises:
        UserError: for an unknown law, or one that the table lacks columns for.

    >>> sizes = pd.DataFrame({"params": [1e8, 2e8, 4e8, 8e8] * 3, "tokens": [1e9] * 4 + [4e9] * 4 + [16e9] * 4})
    >>> rows = sizes.assign(run=range(12), loss=1.5 + 400 / sizes.params**0.34 + 400 / sizes.tokens**0.28)
    >>> compare(RunsTable(rows), ["params_tokens", "params_tokens_interaction"]).table["n_parameters"].tolist()
    [5, 6]
    """
    if laws is not None and not laws:
        raise UserError("laws: none given; give at least one, such as params_tokens")
    wanted, laws = [Holdout.of(holdout) for holdout in holdouts], laws or _candidates(runs, spec or FitSpec())
    fits: dict[str, FitResult] = {}
    errors: dict[tuple[str, str], HoldoutResult] = {}
    rows = []
    for label in laws:
        asked = _spec_of(label, spec or FitSpec(), refits)
        fits[label] = fit(runs, asked)
        law_spec = _taken(asked, fits[label])
        held_out = [evaluate(runs, holdout, asked, refits) for holdout in wanted]
        errors |= {(label, result.holdout): result for result in held_out}
        rows.append(_row(runs, label, law_spec, fits[label], held_out))
    return Comparison(pd.DataFrame(rows), fits, errors)


def _candidates(runs: RunsTable, spec: FitSpec) -> list[str]:
    """Candidates of law=auto that can be fitted to the table, as LAW:COUNTING, best first."""
    chosen = fit(runs, replace(spec, law=AUTO, bootstrap=None))
    return [f"{one['law']}:{one['counting']}" for one in chosen.candidates if one["error"] is not None]


def _taken(spec: FitSpec, result: FitResult) -> FitSpec:
    """The spec of the law that a fit took, if the data chose it."""
    if not isinstance(spec.law, LawChoice):
        return spec
    return replace(spec, law=get_law(str(result.law)), counting=result.settings["counting"])


def _spec_of(label: str, spec: FitSpec, refits: int) -> FitSpec:
    """The spec with the label's law and its own counting."""
    name, _, counting = label.partition(":")
    bootstrap = BootstrapOptions(n=refits) if refits else None
    return replace(spec, law=get_law(name), counting=counting or spec.counting, bootstrap=bootstrap)


def _row(
    runs: RunsTable, label: str, spec: FitSpec, result: FitResult, held_out: Sequence[HoldoutResult]
) -> dict[str, object]:
    """One law's row of the table."""
    law, data = spec.law, FitData.of(runs, spec)
    residuals = data.residuals(result.vector)
    aic, bic = information_criteria(residuals, spec.delta, len(law.parameters), spec.over_cost)
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
    row |= _interval("compute_optimal_exponent", result.intervals.get("compute_optimal_exponent"))
    for errors in held_out:
        row |= {errors.holdout: errors.mean_absolute, f"{errors.holdout}_signed": errors.mean_signed}
        row |= {f"{errors.holdout}_worst": errors.largest_of_a_group} | _interval(errors.holdout, errors.interval)
    return row


def _interval(name: str, interval: tuple[float, float] | None) -> dict[str, object]:
    return {} if interval is None else {f"{name}_low": interval[0], f"{name}_high": interval[1]}
