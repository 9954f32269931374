"""What a report of a fit must contain, filled as far as the program can know it.

The twelve points are merged from "(Mis)Fitting" (arXiv 2502.18969) and Choshen et al. (arXiv 2410.11840).
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from shapelaw.config import BootstrapOptions
from shapelaw.fitting.residuals import ResidualStructure
from shapelaw.laws import Law
from shapelaw.laws.fixed import FixedLaw
from shapelaw.runs import worlds
from shapelaw.runs.table import RunsTable
from shapelaw.runs.worlds import shares

UNKNOWN = "not recorded"
"""Value if neither the table nor the fit knows."""
POINTS = (
    "data",
    "counting",
    "ranges",
    "form",
    "objective",
    "search",
    "parameters",
    "residuals",
    "held_out",
    "sensitivity",
    "prescriptions",
    "provenance",
)
_PACKAGES = ("shapelaw", "numpy", "scipy", "pandas", "numba")
FEW_RUNS = 10
"""With fewer runs, resampling runs tells little."""
SMALL = 1e4
"""If the largest params, or tokens, of a table are below this, the column is hardly a plain count."""
ROUNDING = 1e-6
"""Share of an interval's end by which refits at the same optimum may differ."""
REDUCTIONS = ("repeats", "reduction")
"""Facts of a table on how rows were reduced: repeats of a run, and rows of one size."""
_ABSENT = "not asked for in this fit"


def data(table: RunsTable) -> dict[str, Any]:
    """Point 1: hash, exclusions with count and reason, runs, shapes, seeds, points per run."""
    rows = table.kept
    per_run = rows.groupby("run").size()
    shapes = len(rows[["width", "depth"]].drop_duplicates()) if table.has_shapes else UNKNOWN
    return {
        "hash": table.hash,
        "source": table.about.get("source", UNKNOWN),
        "rows": len(table.frame),
        "rows_kept": len(rows),
        "exclusions": table.exclusions,
        "reading": table.about.get("reading", "as the file has it"),
        "reduction": "; ".join(table.about[name] for name in REDUCTIONS if name in table.about)
        or "none: every row counts",
        "diverged": _flagged_rows(table, "diverged_step"),
        "rolled_back": _flagged_rows(table, "rollbacks"),
        "runs": len(per_run),
        "runs_named": table.about.get("runs", "by the table"),
        "shapes": shapes,
        "seeds": UNKNOWN,
        "facts": facts(table),
        "points_per_run": {"min": int(per_run.min()), "median": float(per_run.median()), "max": int(per_run.max())},
    }


def facts(table: RunsTable) -> dict[str, list[dict[str, Any]]] | str:
    """Fact -> its values with their rows and runs, most rows first; a value of None counts those that lack it."""
    runs = table.kept["run"]
    found = {str(name): [asdict(share) for share in shares(values, runs)] for name, values in table.facts.items()}
    return found or UNKNOWN


def _flagged_rows(table: RunsTable, column: str) -> dict[str, int] | str:
    """Runs and rows, kept or not, with a value in a column; and how many of the rows are kept."""
    if not table.has(column):
        return UNKNOWN
    rows = table.frame[table.frame[column] > 0]
    return {"runs": rows["run"].nunique(), "rows": len(rows), "rows_kept": int((rows["excluded"] == "").sum())}


def counting(table: RunsTable, params: str, flops: str | None) -> dict[str, Any]:
    """Point 2: how params, FLOPs and tokens are counted; unit, evaluation set and smoothing of the loss."""
    return {
        "params": params,
        "params_of_the_table": table.about.get("params_counting", UNKNOWN),
        "flops": flops or "recorded column, else exact, else 6n",
        "tokens": "training tokens seen, repeats included",
        "loss_unit": table.about.get("loss_unit", UNKNOWN),
        "evaluation_set": table.about.get("evaluation_set", UNKNOWN),
        "smoothing": table.about.get("smoothing", UNKNOWN),
    }


def ranges(table: RunsTable) -> dict[str, Any]:
    """Point 3: ranges of sizes and costs; rates, batches, schedule and cooldown; cut of early tokens."""
    rows, flops = table.kept, table.flops()
    ratio = rows["tokens"] / rows["params"]
    spans: dict[str, Any] = {name: list(span) for name, span in table.ranges().items()}
    spans["tokens_per_param"] = [float(ratio.min()), float(ratio.max())]
    spans["flops"] = [float(flops.min()), float(flops.max())]
    for name in ("lr_base", "batch_tokens", "cooldown"):
        spans[name] = sorted(map(float, rows[name].dropna().unique())) if name in rows else UNKNOWN
    spans["schedule"] = table.about.get("schedule", UNKNOWN)
    spans["early_tokens"] = table.about.get("early_tokens", UNKNOWN)
    return spans


def form(law: Law) -> dict[str, Any]:
    """Point 4: form and parametrisation of the law; its free, fixed and bounded parameters."""
    return {
        "formula": law.formula,
        "source": law.source,
        "free": list(law.parameters),
        "fitted_as_logarithms": sorted(law.log_parameters),
        "fixed": dict(law.fixed) if isinstance(law, FixedLaw) else [],
        "bounds": {name: "from e^-60, which counts as 0" for name in law.parameters if name in law.log_parameters},
    }


def residual_points(structure: ResidualStructure) -> dict[str, Any]:
    """Point 8: residuals by run, shape and token range; variance between and within runs (log loss)."""
    return {
        "between_run_share": structure.between_run_share,
        "between_run_sd": structure.between_run_sd,
        "within_run_sd": structure.within_run_sd,
        "by_run": structure.by_run,
        "by_shape": structure.by_shape,
        "by_tokens": structure.by_tokens,
    }


def covariance(replicates: Mapping[str, Sequence[float]]) -> dict[str, Any] | str:
    """Covariance of the refits' parameters, names and matrix."""
    if not replicates:
        return _ABSENT
    frame = pd.DataFrame(dict(replicates))
    with np.errstate(over="ignore", invalid="ignore"):  # squares of coefficients near the largest number: no number
        return {"names": list(frame), "matrix": frame.cov().to_numpy()}


def provenance(seed: int, table: RunsTable) -> dict[str, Any]:
    """Point 12: versions, seed, command, links to runs."""
    rows = table.kept
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "seed": seed,
        "command": " ".join(sys.argv) or UNKNOWN,
        "mlflow_runs": sorted(set(rows["mlflow_run_id"])) if "mlflow_run_id" in rows else UNKNOWN,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN


def assemble(**points: Any) -> dict[str, Any]:
    """All twelve points in order; points that were not requested say so."""
    unknown = set(points) - set(POINTS)
    assert not unknown, unknown
    return {name: points.get(name) or _ABSENT for name in POINTS}


def outside_intervals(
    estimates: Mapping[str, float | None], intervals: Mapping[str, tuple[float, float]]
) -> tuple[str, ...]:
    """A flag of the estimates that lie outside their own intervals by more than the rounding of refits."""
    outside = []
    for name, (low, high) in intervals.items():
        value = estimates[name]
        if value is not None and not low - ROUNDING * abs(low) <= value <= high + ROUNDING * abs(high):
            outside.append(name)
    if not outside:
        return ()
    return (
        f"outside_interval: {', '.join(outside)}: outside the refits' own interval, so the refits disagree with the "
        "fit: do not read the interval as one of this estimate; use more starts, or bootstrap.kind=bca if refits are biased",
    )


def table_flags(runs: RunsTable, bootstrap: BootstrapOptions | None, predictors: Sequence[str] = ()) -> tuple[str, ...]:
    """Flags that follow from the table and the kind of resampling.

    Args:
        runs: the fitted runs.
        bootstrap: how they are resampled; None for no resampling.
        predictors: columns that the law reads.
    """
    flags = list(worlds.flags(runs, predictors))
    repeated = bool(runs.kept.duplicated("run").any())
    if "runs" in runs.about:
        flags.append(f"unnamed_runs: {runs.about['runs']}; intervals are too narrow if rows share runs")
    for fact, flag in (("reading", "read_as"), ("repeats", "reduced_repeats"), ("reduction", "reduced")):
        if fact in runs.about:
            flags.append(f"{flag}: {runs.about[fact]}")
    for column, flag, what in (
        ("diverged_step", "diverged_rows", "of runs that diverged in the end"),
        ("rollbacks", "rolled_back_rows", "after a rollback of their run to a lower rate"),
    ):
        rows = _flagged_rows(runs, column)
        if isinstance(rows, dict) and rows["rows_kept"]:
            flags.append(f"{flag}: {rows['rows_kept']} kept rows are {what}")
    for name, unit, what in (("params", "M", "millions"), ("tokens", "B", "billions")):
        smallest, largest = runs.ranges()[name]
        if largest < SMALL:
            flags.append(
                f"small_{name}: {name} are {smallest:g} to {largest:g}: are they in {what}? give "
                f"'runs.units={{{name}: {unit}}}'"
            )
    runs_kept = runs.kept["run"].nunique()
    if bootstrap and bootstrap.by == "runs" and runs_kept < FEW_RUNS:
        flags.append(f"few_runs: {runs_kept} runs are few to resample: intervals are rough; kind=expanded widens them")
    if bootstrap and bootstrap.by == "rows" and repeated:
        flags.append(
            "resampled_rows: bootstrap by rows: rows of one run are not independent, so intervals are too narrow; use by=runs"
        )
    return tuple(flags)
