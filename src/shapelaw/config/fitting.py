"""Options of fit.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shapelaw.config.option import given_options, option, record
from shapelaw.config.places import PlacesConfig
from shapelaw.config.running import TrackerConfig

DELTA_LEAST = 1e-15
"""A few rounding errors of a log loss: below it nothing changes but the objective's scale, until its digits are lost."""
OVER_COST_LEAST = 1e-3
"""Beyond 1,000 to 1, the law is that through the outermost rows, and the other side says nothing."""
BINS_PER_DECADE = 250
"""Of the paper's text; its code has 750 bins over the whole range."""
TOLERANCE = 0.15
"""Spread of the costs of one bin (natural log): 15%."""
MOST_REFITS = 1_000_000
"""Refits whose weights fit into memory."""


@record("runs")
class RunsConfig:
    """Where the runs table comes from."""

    source: str = option("mlflow, gemstones, chinchilla, csv, tensorboard or wandb.")
    uri: str | None = option("mlflow: tracking URI.", default=None)
    experiment: str | None = option("mlflow: name of the experiment (that of a suite).", default=None)
    project: str | None = option("wandb: ENTITY/PROJECT on the server, instead of a path.", default=None)
    path: str | None = option(
        "csv: a CSV, TSV, JSON, JSON-lines, Parquet or Excel file; tensorboard: the folder of event files; wandb: the folder "
        "that wandb wrote.",
        default=None,
    )
    columns: dict[str, str] = option(
        "Your own runs (csv, tensorboard, wandb, and any experiment of mlflow): canonical name -> name in the file or tracker, "
        "such as {tokens: D}.",
        default_factory=dict,
    )
    units: dict[str, Any] = option(
        "Your own runs: canonical name -> factor or named unit, such as {tokens: B, loss: perplexity}.",
        default_factory=dict,
    )
    constants: dict[str, Any] = option(
        "Your own runs: canonical name -> value of all rows, such as {batch_tokens: 524288}, or run -> value.",
        default_factory=dict,
    )
    wide: str | None = option(
        "csv: quantity in the column headers of a wide table (tokens, params, step, flops, lr_base, batch_tokens or run); the "
        "table is made long.",
        default=None,
    )
    decimal: str | None = option(
        "csv: the decimal sign of the file's numbers; null infers it from them.", default=None, choices=("dot", "comma")
    )
    sheet: str | None = option("csv: the sheet of an Excel file; null takes the first.", default=None)
    tokens_from: str | None = option(
        "Your own runs: 6n takes tokens = FLOPs / (6 params) if the file has no tokens.",
        default=None,
        choices=("6n",),
    )
    reduce: str = option(
        "How rows of one size and token count are merged: best (lowest loss), last or mean gives one row, none keeps all. "
        "auto: in files, best if the rows differ in a rate, a batch or the like, and none if they are repeats; in other "
        "sources, none.",
        default="auto",
        choices=("auto", "best", "last", "mean", "none"),
    )
    reduce_by: list[str] = option(
        "Columns in which rows must agree for runs.reduce to merge them; [] means params, tokens, shape, the columns that the "
        "law reads, and those that make losses incomparable.",
        default_factory=list,
    )
    loss: str | None = option(
        "mlflow, csv: NAME of a further loss (the column loss_NAME, the metric val/NAME/loss) that is fitted "
        "instead of loss.",
        default=None,
    )
    bad_rows: str = option(
        "csv, mlflow: raise on invalid rows, or exclude them with a reason.",
        default="raise",
        choices=("raise", "exclude"),
    )
    diverged: str = option(
        "Rows of runs that diverged in the end: exclude (with that reason) or keep (the fit is flagged).",
        default="exclude",
        choices=("exclude", "keep"),
    )
    rolled_back: str = option(
        "Rows of runs after a rollback to a lower rate: keep (the fit is flagged) or exclude (with that reason).",
        default="keep",
        choices=("exclude", "keep"),
    )
    midway: str = option(
        "Rows at which the rate is still rising or falling: exclude (with that reason) or keep (the fit is flagged, "
        "unless its law reads total_tokens or decay_fraction).",
        default="exclude",
        choices=("exclude", "keep"),
    )


@record("subset")
class SubsetConfig:
    """Which rows of the table are fitted."""

    name: str = option(
        "A published data set (runs=gemstones), or auto: hot runs at the suite's main rate, and every row of other tables."
    )
    tracked: str | None = option(
        "The condition that selects the same kind of rows from tracked runs; null if they have none.",
        default=None,
    )
    where: str | None = option(
        "A further condition on any table, such as `width == 512 and tokens <= 1e11`.", default=None
    )


@record()
class NamedConfig:
    """A choice by name; null leaves it to the law and the table."""

    name: str | None = option("Set by the choice of the group.", default=None)


@record("method")
class LineMethod:
    """Options of approaches 1 and 2."""

    cost: str = option(
        "hull, binning: the cost that the lines run over.", default="flops", choices=("flops", "device_hours")
    )
    bins_per_decade: int = option("binning: bins per decade of the cost.", default=BINS_PER_DECADE, low=1)
    bins: int | None = option(
        "binning: bins over the whole range of the cost; null takes bins_per_decade for each decade.",
        default=None,
        low=1,
    )
    tolerance: float = option(
        "isoflop: largest spread of the log costs of one budget.", default=TOLERANCE, above=0, advice="0.15 is usual"
    )
    curve: str = option(
        "isoflop: curve through the losses of one budget in log params: parabola (the paper's), or cubic, which allows one "
        "side to be steeper.",
        default="parabola",
        choices=("parabola", "cubic"),
    )


@record("method")
class StagedOptions:
    """Options of the stages of the step-and-batch law."""

    converged: str = option(
        "staged: the loss that a size converges to: extrapolated (each size's remaining drop by a common learning curve) or "
        "last (the last losses unchanged, as in the paper, for runs trained close to convergence).",
        default="extrapolated",
        choices=("extrapolated", "last"),
    )
    steps_min: float = option(
        "staged: adjusted steps from which rows count in stages N and S; the first steps follow no power law.",
        default=0.0,
        low=0,
        unit="adjusted steps",
    )
    levels: list[float] | None = option(
        "staged: losses at which stage B compares batches; null spreads level_count of them over the range that the "
        "curves share.",
        default=None,
        above=0,
        unit="nats per token",
    )
    level_count: int = option(
        "staged: number of losses at which stage B compares batches if levels is null.",
        default=12,
        low=2,
        advice="12 is usual",
    )
    polish: bool = option(
        "staged: whether a joint fit of all parameters, started at the stages' solution, is reported beside it.",
        default=False,
    )


@record("method")
class MethodConfig(StagedOptions, LineMethod):
    """How the fit is made."""

    name: str = option(
        "parametric (approach 3), staged (the step-and-batch law), hull (approach 1), binning (its baseline) or "
        "isoflop (approach 2)."
    )


@record("bootstrap")
class BootstrapOptions:
    """Resampling for intervals."""

    n: int = option(
        "Number of refits; 0 turns them off.", default=1000, low=2, high=MOST_REFITS, also=(0,), advice="1000 is usual"
    )
    by: str = option(
        "Unit of the draws: runs, each with all its rows, or single rows.", default="runs", choices=("runs", "rows")
    )
    kind: str = option(
        "percentile, expanded (widened for few runs) or bca.",
        default="percentile",
        choices=("percentile", "expanded", "bca"),
    )
    level: float = option(
        "Share of the refits that an interval holds.", default=0.9, above=0, below=1, advice="0.9 is usual"
    )
    workers: int = option("Threads that make the refits.", default=1, low=1)

    @classmethod
    def of(cls, given: BootstrapOptions | Mapping[str, Any] | None) -> BootstrapOptions | None:
        """Options from a mapping; None for no resampling.

        Raises:
            UserError: for an unknown key, or a value that is not allowed.
        """
        options = given_options(cls, given, "bootstrap")
        return options if options and options.n else None


@record("holdout")
class HoldoutConfig:
    """Hold-outs whose errors the fit's checklist is to hold."""

    kinds: list[str] = option("Names of hold-outs; set by the group holdout.", default_factory=list)


@record()
class FitConfig(PlacesConfig):
    """One fit."""

    runs: RunsConfig
    subset: SubsetConfig
    law: NamedConfig
    method: MethodConfig
    solver: NamedConfig
    counting: NamedConfig
    flops: NamedConfig
    bootstrap: BootstrapOptions
    holdout: HoldoutConfig
    tracker: TrackerConfig
    delta: float = option(
        "Residual at which Huber's function turns linear.",
        low=DELTA_LEAST,
        unit="units of log loss",
        advice="the paper's is 1e-4",
    )
    starts: str = option(
        "varpro (variable projection and random starts) or grid (the authors' full grid).", choices=("varpro", "grid")
    )
    grid_size: int | None = option("Number of starts of another grid; null takes the solver's.", default=None, low=1)
    seed: int = option("Seed of random starts and of resampling.", low=0)
    sensitivity: bool = option("Whether the checklist also has the fit at other deltas and countings.", default=False)
    profile: bool = option("Whether profile intervals are computed.", default=False)
    mixture: str = option(
        "Rows that differ in corpus, tokenizer, vocabulary or held-out sample: refuse them, or allow them (the fit is "
        "flagged).",
        default="refuse",
        choices=("refuse", "allow"),
    )
    ties: str = option(
        "What breaks ties between laws that fit equally well: priors (weak expectations of exponents, docs/laws.md) or "
        "optimum (the lowest objective, wherever on the ridge it lies).",
        default="priors",
        choices=("priors", "optimum"),
    )
    fixed: dict[str, Any] = option(
        "Parameters that are given, not fitted: fixed.E=1.6, in natural units (parametric).", default_factory=dict
    )
    weights: str | None = option(
        "A column of the table, or of your file, whose values weigh the rows in the objective (parametric); null weighs all "
        "equally.",
        default=None,
    )
    over_cost: float = option(
        "Cost of an overestimate of the loss in the objective, relative to an underestimate: values above 1 draw the law "
        "below the rows, values below 1 above them (parametric).",
        default=1.0,
        low=OVER_COST_LEAST,
        high=1 / OVER_COST_LEAST,
        advice="1 weighs both equally",
    )
    speedup: str | None = option(
        "A condition that selects a set of runs, such as \"recipe == 'new'\": one law is fitted to them and the others, in "
        "which a token of that set counts speedup times (parametric); null turns this off.",
        default=None,
    )
    plots: bool | str = option(
        "Whether the fit's figures are drawn, as PNG; pdf: as PNG and PDF.", default=True, choices=(True, False, "pdf")
    )
