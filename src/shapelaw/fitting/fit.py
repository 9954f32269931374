"""The single entry point for every fit: `fit(runs, law=..., method=...)`, or `fit(runs, spec)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from shapelaw.config import BootstrapOptions
from shapelaw.config.fitting import BINS_PER_DECADE, TOLERANCE
from shapelaw.errors import UserError
from shapelaw.fitting import design
from shapelaw.fitting.result import FitResult
from shapelaw.fitting.solver import Solver
from shapelaw.fitting.spec import FitSpec, Method
from shapelaw.fitting.splits import Holdout
from shapelaw.laws import Law
from shapelaw.laws.choices import AUTO
from shapelaw.runs.axes import table_of, with_axes
from shapelaw.runs.sets import with_sets
from shapelaw.runs.table import RunsTable
from shapelaw.runs.worlds import refuse_mixture


def fit(
    runs: RunsTable | pd.DataFrame,
    law: str | Law | FitSpec = AUTO,
    delta: float = 1e-4,
    counting: str | None = None,
    method: str | Method = "parametric",
    solver: str | Solver = "newton",
    bootstrap: BootstrapOptions | Mapping[str, Any] | None = None,
    seed: int = 0,
    *,
    starts: str = "varpro",
    grid_size: int | None = None,
    flops: str | None = None,
    cost: str = "flops",
    bins_per_decade: int = BINS_PER_DECADE,
    bins: int | None = None,
    tolerance: float = TOLERANCE,
    curve: str = "parabola",
    holdouts: Sequence[Holdout | str] = (),
    sensitivity: bool = False,
    profile: bool = False,
    ties: str = "priors",
    fixed: Mapping[str, float] | None = None,
    weights: str | None = None,
    speedup: str | None = None,
    over_cost: float = 1.0,
    staged: Any = None,
    mixture: str = "refuse",
) -> FitResult:
    """Fit a scaling law, or the lines of approaches 1 and 2, to a table of runs.

    Args:
        runs: the table, whose kept rows are fitted, or a data frame with canonical columns.
        law: name of a law, `path/to/file.py:NAME`, or the law itself (parametric and staged only); or a `FitSpec`, which
            holds every choice and so excludes all other arguments. The default `auto` takes the candidate that predicts its
            own held-out largest models best (docs/laws.md); a method that cannot choose a law takes params_tokens.
        delta: where Huber's function of the log residual becomes linear.
        counting: how params are counted: `total`, `no_embedding` or `no_embedding_and_head`; None takes the law's own
            (`total` for params_tokens, for lines, and for tables without the columns that the law's own counting needs).
        method: `parametric` (approach 3), `staged` (the step-and-batch law), `hull` (approach 1), `binning` (its baseline) or
            `isoflop` (approach 2); or your own `spec.Method`.
        solver: `newton`, `newton_torch` or `reference` (the authors' solver, which stops early); or your own `solver.Solver`.
        bootstrap: None, or options such as dict(n=1000, by="runs", kind="percentile", level=0.9).
        seed: of random starts and of resampling.
        starts, grid_size: `varpro` or `grid`, and the number of starts.
        flops: convention of FLOPs: `recorded`, `exact`, `6n` or `kaplan`; None takes the first that the table supports.
        cost: `flops` or `device_hours` (hull and binning).
        bins_per_decade, bins: options of binning. tolerance: option of isoflop. curve: option of isoflop, `parabola` or
            `cubic`.
        holdouts: hold-outs, or their kinds, whose errors the checklist includes (parametric, staged).
        sensitivity: whether the checklist includes the fit at other deltas and countings (parametric).
        profile: whether to compute profile intervals of the parameters and the exponent (parametric).
        ties: `priors` breaks ties between laws that fit equally well by weak priors on their exponents (docs/laws.md);
            `optimum` takes the lowest objective, wherever it lies (parametric).
        fixed: parameter -> its given value, such as {"E": 1.6}; the others are fitted (parametric).
        weights: column of the table, or of the file it was read from, with the weights of the rows (parametric).
        speedup: condition that some rows meet, such as `recipe == 'new'`; one law of all rows is fitted, together with the
            number of ordinary tokens that one token of these rows is worth (parametric).
        over_cost: cost of an overestimate of the loss, as a multiple of that of an underestimate (parametric).
        staged: options of the stages, such as dict(converged="last", steps_min=50) (staged).
        mixture: `refuse` rows that differ in corpus, tokenizer, vocabulary or held-out sample, or `allow` and flag them.

    Raises:
        UserError: before the first start, for input that cannot be fitted.

    >>> import pandas as pd
    >>> sizes = pd.DataFrame({"params": [1e8, 2e8, 4e8] * 2, "tokens": [1e9] * 3 + [8e9] * 3})
    >>> runs = sizes.assign(run=range(6), loss=1.5 + 400 / sizes.params**0.34 + 400 / sizes.tokens**0.28)
    >>> round(fit(runs, law="params_tokens").parameters["alpha"], 4)
    0.34
    """
    spec = (
        law
        if isinstance(law, FitSpec)
        else FitSpec.of(
            law,
            delta=delta,
            counting=counting,
            method=method,
            options={
                "cost": cost,
                "bins_per_decade": bins_per_decade,
                "bins": bins,
                "tolerance": tolerance,
                "curve": curve,
                "staged": staged,
            },
            solver=solver,
            bootstrap=bootstrap,
            seed=seed,
            starts=starts,
            grid_size=grid_size,
            flops=flops,
            holdouts=holdouts,
            sensitivity=sensitivity,
            profile=profile,
            mixture=mixture,
            ties=ties,
            fixed=fixed or {},
            weights=weights,
            speedup=speedup,
            over_cost=over_cost,
        )
    )
    runs = table_of(runs) if isinstance(runs, pd.DataFrame) else runs
    if not len(runs):
        raise UserError(f"runs: the table has no kept rows; excluded are {runs.exclusions or 'none'}")
    runs = with_sets(runs, spec.speedup) if spec.speedup else runs
    runs = with_axes(runs, spec.law) if spec.method.fits_law else runs
    refuse_unanswerable(runs, spec)
    return spec.method.fit(runs, spec).fitted_to(runs)


def refuse_unanswerable(runs: RunsTable, spec: FitSpec, where: str | None = None) -> None:
    """Refuse rows that no fit can describe, before the first start.

    Args:
        runs: the table.
        spec: choices of the fit.
        where: the condition that selected the rows, for the message.

    Raises:
        UserError: for losses that cannot be compared, unless the spec allows mixtures, and for a design without an answer.
    """
    if spec.mixture == "refuse":
        refuse_mixture(runs, where)
    design.refuse(design.Design.of(runs, spec.simplest), spec.simplest)
