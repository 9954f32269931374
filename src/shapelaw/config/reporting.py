"""Options of report.py."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from shapelaw.config.fitting import BootstrapConfig, NamedConfig, RunsConfig
from shapelaw.config.places import PlacesConfig
from shapelaw.config.training import TrackerConfig


@dataclass
class ReportKindConfig:
    """What is reported on."""

    name: str = MISSING
    """gemstones (the published runs) or experiment (the table that runs names)."""
    tables: dict[str, str] = field(default_factory=dict)
    """experiment: data set of the paper -> the condition on the table's rows that stand for it."""
    assumed: dict[str, float] = field(default_factory=dict)
    """experiment: column -> what those conditions read where the table has no such column."""


@dataclass
class ReportConfig(PlacesConfig):
    """One report: figures, their tables and a page."""

    report: ReportKindConfig = field(default_factory=ReportKindConfig)
    runs: RunsConfig = field(default_factory=RunsConfig)
    law: NamedConfig = field(default_factory=NamedConfig)
    """The law that answers on the page."""
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    """Resampling of every fit whose figure shows intervals."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    delta: float = MISSING
    """Where Huber's function turns linear, in units of log loss, but for figures that are about another."""
    seed: int = MISSING
    """Seed of random starts and of resampling."""
    budget: float | None = None
    """Training FLOPs that the page opens with; null is the largest budget among the runs, or the nearest to it that the
    shapes serve."""
    figures: list[str] = field(default_factory=list)
    """Names of figures, or parts of them; none is all."""
    page: bool = MISSING
    """Whether the page is written too."""
    mlflow_ui: str = MISSING
    """Address of MLflow's pages, to which the page's runs and fits link (runs=mlflow); empty for no links."""
