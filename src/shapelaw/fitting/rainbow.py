"""The rainbow: the compute-optimal size for every data set, counting and approach, each with its run-level interval.

Source: Gemstones (arXiv 2502.06857), Fig 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shapelaw.config import BootstrapOptions
from shapelaw.fitting.fit import fit
from shapelaw.fitting.result import FitResult
from shapelaw.laws import EXPONENT
from shapelaw.runs import RunsTable, load_runs


@dataclass(frozen=True)
class RainbowLine:
    """One line: a data set, a method and a counting of params."""

    subset: str
    method: str
    counting: str = "total"


def _both(subset: str, method: str, without: str) -> list[RainbowLine]:
    """With and without embeddings."""
    return [RainbowLine(subset, method), RainbowLine(subset, method, without)]


PARAMETRIC_BOTH = ("hot", "hot_100b+", "hot_120b+_only", "lr_ablation_hot", "cool_end")
PARAMETRIC_TOTAL = (
    "hot_100b+_512x",
    "hot_sampled_like_chinchilla",
    "lr_ablation_hot_sampled_like_chinchilla",
    "slim_chinchilla",
)
HULL = ("hot_477", "hot_100b+_477", "hot_120b+_only_477", "lr_ablation_hot_477", "cool_end")

LINES: tuple[RainbowLine, ...] = (
    *(line for subset in PARAMETRIC_BOTH for line in _both(subset, "parametric", "no_embedding")),
    *(RainbowLine(subset, "parametric") for subset in PARAMETRIC_TOTAL),
    *(line for subset in HULL for line in _both(subset, "hull", "no_embedding_and_head")),
)
"""The 14 lines of approach 3 and the 10 of approach 1. The paper's "no embeds" is minus one matrix in its approach 3
and minus both in its approach 1."""


def rainbow(
    lines: Sequence[RainbowLine] = LINES, bootstrap: BootstrapOptions | None = None, delta: float = 1e-4, seed: int = 0
) -> pd.DataFrame:
    """A row per line: subset, method, counting, points, runs, exponent of N ~ C^a, N at 1e21 FLOPs, the interval, and flags.

    Exponent and N are NaN where the runs do not identify them.

    Args:
        bootstrap: refits of each line; None takes 1,000 by runs.
        delta: delta of the parametric lines.
    """
    wanted = bootstrap or BootstrapOptions()
    return pd.DataFrame([row(line, load_runs("gemstones", subset=line.subset), wanted, delta, seed) for line in lines])


def row(
    line: RainbowLine, table: RunsTable, bootstrap: BootstrapOptions | None, delta: float, seed: int
) -> dict[str, object]:
    """A line's row from the table of its data set."""
    result = fit(
        table, "params_tokens", delta=delta, counting=line.counting, method=line.method, bootstrap=bootstrap, seed=seed
    )
    return row_of(line, table, result)


def best_params(result: FitResult, flops: float) -> float:
    """Compute-optimal parameters for a budget by eq 1 or a line of approach 1, as the paper's Fig 6 draws them.

    By eq 1 N = (alpha A / (beta B))^(1 / (alpha + beta)) (C / 6)^a with a = beta / (alpha + beta), FLOPs by 6N.

    Source: Hoffmann et al. 2022 (arXiv 2203.15556), eq 4.
    """
    p = result.parameters
    if result.law is None:
        return float(np.exp(p["params_log_coefficient"]) * flops ** p["params_exponent"])
    total = p["alpha"] + p["beta"]
    scale = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / total)
    return float(scale * (flops / 6) ** (p["beta"] / total))


def row_of(line: RainbowLine, table: RunsTable, result: FitResult) -> dict[str, object]:
    """A line's row from its fit; NaN for quantities that the runs do not identify."""
    low, high = _interval(result)
    identified = EXPONENT not in result.ridge
    return {
        "subset": line.subset,
        "method": line.method,
        "counting": line.counting,
        "points": len(table),
        "runs": table.kept["run"].nunique(),
        "exponent": result.compute_optimal_exponent if identified else math.nan,
        "params_at_1e21": best_params(result, 1e21) if identified else math.nan,
        "low": low,
        "high": high,
        "flags": "; ".join(result.flags),
    }


def _interval(result: FitResult) -> tuple[float | None, float | None]:
    return result.intervals.get("compute_optimal_exponent", (None, None))
