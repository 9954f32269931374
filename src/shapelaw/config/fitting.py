"""Options of fit.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from shapelaw.config.places import PlacesConfig
from shapelaw.config.training import TrackerConfig


@dataclass
class RunsConfig:
    """Where the runs table comes from."""

    source: str = MISSING
    """mlflow, gemstones, chinchilla or csv."""
    uri: str | None = None
    """mlflow: tracking URI."""
    experiment: str | None = None
    """mlflow: name of the experiment (a suite's name)."""
    path: str | None = None
    """csv: a CSV, Parquet or JSON-lines file."""
    columns: dict[str, str] = field(default_factory=dict)
    """csv: canonical name -> name in the file, such as {tokens: D}."""
    units: dict[str, Any] = field(default_factory=dict)
    """csv: canonical name -> factor or named unit, such as {tokens: B}."""
    loss: str | None = None
    """mlflow, csv: NAME of a further loss (the column loss_NAME, the metric val/NAME/loss) that is fitted in place of loss."""
    bad_rows: str = "raise"
    """csv, mlflow: raise on invalid rows, or exclude them with a reason."""
    diverged: str = "exclude"
    """Rows of runs that diverged in the end: exclude (with that reason) or keep (the fit is flagged)."""
    rolled_back: str = "keep"
    """Rows of runs after a rollback to a lower rate: keep (the fit is flagged) or exclude (with that reason)."""


@dataclass
class SubsetConfig:
    """Which rows of the table are fitted."""

    name: str = MISSING
    """A published data set (runs=gemstones), or auto: hot runs at the suite's main rate; everything elsewhere."""
    tracked: str | None = None
    """The condition that selects the same kind of rows from tracked runs; null: there are none of that kind."""
    where: str | None = None
    """A further condition on any table, such as `width == 512 and tokens <= 1e11`."""


@dataclass
class NamedConfig:
    """A choice by name; null leaves it to the law and the table."""

    name: str | None = None
    """Set by the group's choice."""


@dataclass
class MethodConfig:
    """How the fit is made."""

    name: str = MISSING
    """parametric (approach 3), staged (the step-and-batch law), hull (approach 1), binning (its baseline) or isoflop
    (approach 2)."""
    cost: str = "flops"
    """hull, binning: flops or device_hours."""
    bins_per_decade: int = 250
    """binning: bins of a decade of the cost."""
    bins: int | None = None
    """binning: bins over the whole range of the cost, in place of bins_per_decade."""
    tolerance: float = 0.15
    """isoflop: spread of the log FLOPs of one budget: 0.15 is 15%."""
    converged: str = "extrapolated"
    """staged: the loss that a size converges to, extrapolated, or the last one as it is."""
    steps_min: float = 0.0
    """staged: adjusted steps from which rows count in the stages N and S."""
    levels: list[float] | None = None
    """staged: losses, nats per token, at which stage B compares batches; null spreads level_count over what they share."""
    level_count: int = 12
    """staged: number of those losses."""
    polish: bool = False
    """staged: whether a joint fit of all parameters from the stages' solution is reported beside it."""


@dataclass
class BootstrapConfig:
    """Resampling for intervals; n=0 is none."""

    n: int = 0
    """Refits."""
    by: str = "runs"
    """What is drawn: runs, each with all its rows, or single rows."""
    kind: str = "percentile"
    """percentile, expanded (widened for few runs) or bca."""
    level: float = 0.9
    """Share of the refits that an interval holds."""
    workers: int = 1
    """Threads."""


@dataclass
class HoldoutConfig:
    """Hold-outs whose errors the fit's checklist is to hold."""

    kinds: list[str] = field(default_factory=list)
    """Names of hold-outs; the group holdout has them."""


@dataclass
class FitConfig(PlacesConfig):
    """One fit."""

    runs: RunsConfig = field(default_factory=RunsConfig)
    subset: SubsetConfig = field(default_factory=SubsetConfig)
    law: NamedConfig = field(default_factory=NamedConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    solver: NamedConfig = field(default_factory=NamedConfig)
    counting: NamedConfig = field(default_factory=NamedConfig)
    flops: NamedConfig = field(default_factory=NamedConfig)
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    holdout: HoldoutConfig = field(default_factory=HoldoutConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    delta: float = MISSING
    """Where Huber's function turns linear, in units of log loss."""
    starts: str = MISSING
    """varpro (variable projection and random starts) or grid (the authors' full grid)."""
    grid_size: int | None = None
    """Number of starts of another grid; null is the solver's own."""
    seed: int = MISSING
    """Seed of random starts and of resampling."""
    sensitivity: bool = False
    """Whether the checklist holds the fit at other deltas and countings."""
    profile: bool = False
    """Whether profile intervals are computed."""
    plots: bool = True
    """Whether the fit's figures are drawn."""
