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
    experiment: str | None = option("mlflow: name of the experiment (a suite's name).", default=None)
    project: str | None = option("wandb: ENTITY/PROJECT of the server, in place of a path.", default=None)
    path: str | None = option(
        "csv: a CSV, TSV, JSON, JSON-lines, Parquet or Excel file; tensorboard: the folder of event files; wandb: the folder "
        "that it wrote.",
        default=None,
    )
    columns: dict[str, str] = option(
        "Your own runs (csv, tensorboard, wandb; mlflow, whose runs of any experiment it reads): canonical name -> name in the "
        "file or tracker, such as {tokens: D}.",
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
        "csv: what the columns of a wide table are named by (tokens, params, step, flops, lr_base, batch_tokens or run); it is "
        "made long.",
        default=None,
    )
    decimal: str | None = option(
        "csv: the decimal sign of the file's numbers; null tells it from them.", default=None, choices=("dot", "comma")
    )
    sheet: str | None = option("csv: the sheet of an Excel file; null takes the first.", default=None)
    tokens_from: str | None = option(
        "Your own runs: 6n takes tokens = FLOPs / (6 params) where the file has no tokens.",
        default=None,
        choices=("6n",),
    )
    reduce: str = option(
        "What becomes of the rows of one size and token count: best (lowest loss), last or mean makes one, none keeps all; "
        "auto: of files, best where they differ in a rate, a batch or the like, all where they are repeats; of other sources, "
        "all.",
        default="auto",
        choices=("auto", "best", "last", "mean", "none"),
    )
    reduce_by: list[str] = option(
        "Columns that rows share which runs.reduce makes one; [] is params, tokens, shape, what the law reads, and what makes "
        "losses incomparable.",
        default_factory=list,
    )
    loss: str | None = option(
        "mlflow, csv: NAME of a further loss (the column loss_NAME, the metric val/NAME/loss) that is fitted in "
        "place of loss.",
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
        "Rows at which the rate is on its way up or down a schedule: exclude (with that reason) or keep (the fit is flagged, "
        "unless its law reads total_tokens or decay_fraction).",
        default="exclude",
        choices=("exclude", "keep"),
    )


@record("subset")
class SubsetConfig:
    """Which rows of the table are fitted."""

    name: str = option(
        "A published data set (runs=gemstones), or auto: hot runs at the suite's main rate; everything elsewhere."
    )
    tracked: str | None = option(
        "The condition that selects the same kind of rows from tracked runs; null: there are none of that kind.",
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

    cost: str = option("hull, binning: what the lines run over.", default="flops", choices=("flops", "device_hours"))
    bins_per_decade: int = option("binning: bins of a decade of the cost.", default=BINS_PER_DECADE, low=1)
    bins: int | None = option(
        "binning: bins of the whole range of the cost; null is bins_per_decade for each decade.", default=None, low=1
    )
    tolerance: float = option(
        "isoflop: largest spread of the log costs of one budget.", default=TOLERANCE, above=0, advice="0.15 is usual"
    )
    curve: str = option(
        "isoflop: what goes through the losses of one budget in log params: parabola (the paper's), or cubic, which follows "
        "that one side is steeper.",
        default="parabola",
        choices=("parabola", "cubic"),
    )


@record("method")
class StagedOptions:
    """Options of the stages of the step-and-batch law."""

    converged: str = option(
        "staged: the loss that a size converges to: extrapolated (the rest of each size's way by a common learning curve) or "
        "last (the last losses as they are, the paper's way for runs trained close to convergence).",
        default="extrapolated",
        choices=("extrapolated", "last"),
    )
    steps_min: float = option(
        "staged: adjusted steps from which rows count in the stages N and S, as the first ones follow no power law.",
        default=0.0,
        low=0,
        unit="adjusted steps",
    )
    levels: list[float] | None = option(
        "staged: losses at which stage B compares batches; null spreads level_count of them over what the curves share.",
        default=None,
        above=0,
        unit="nats per token",
    )
    level_count: int = option(
        "staged: number of losses at which stage B compares batches, where levels is null.",
        default=12,
        low=2,
        advice="12 is usual",
    )
    polish: bool = option(
        "staged: whether a joint fit of all parameters from the stages' solution is reported beside it.", default=False
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
        "Number of refits; 0 is none.", default=1000, low=2, high=MOST_REFITS, also=(0,), advice="1000 is usual"
    )
    by: str = option(
        "What is drawn: runs, each with all its rows, or single rows.", default="runs", choices=("runs", "rows")
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

    kinds: list[str] = option("Names of hold-outs; the group holdout has them.", default_factory=list)


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
        "Where Huber's function turns linear.",
        low=DELTA_LEAST,
        unit="units of log loss",
        advice="the paper's is 1e-4",
    )
    starts: str = option(
        "varpro (variable projection and random starts) or grid (the authors' full grid).", choices=("varpro", "grid")
    )
    grid_size: int | None = option("Number of starts of another grid; null is the solver's own.", default=None, low=1)
    seed: int = option("Seed of random starts and of resampling.", low=0)
    sensitivity: bool = option("Whether the checklist holds the fit at other deltas and countings.", default=False)
    profile: bool = option("Whether profile intervals are computed.", default=False)
    mixture: str = option(
        "Rows that differ in corpus, tokenizer, vocabulary or held-out sample: refuse them, or allow (the fit is flagged).",
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
        "alike.",
        default=None,
    )
    over_cost: float = option(
        "How many times as much an overestimate of the loss costs in the objective as an underestimate: above 1 draws the law "
        "below the rows, below 1 above them (parametric).",
        default=1.0,
        low=OVER_COST_LEAST,
        high=1 / OVER_COST_LEAST,
        advice="1 weighs both alike",
    )
    speedup: str | None = option(
        "A condition that tells a set of runs from the others, such as \"recipe == 'new'\": one law is fitted to both, in "
        "which a token of that set counts speedup times (parametric); null compares none.",
        default=None,
    )
    plots: bool | str = option(
        "Whether the fit's figures are drawn, as PNG; pdf: as PNG and PDF.", default=True, choices=(True, False, "pdf")
    )
