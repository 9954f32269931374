"""Options of report.py."""

from __future__ import annotations

from shapelaw.config.fitting import DELTA_LEAST, BootstrapOptions, NamedConfig, RunsConfig
from shapelaw.config.option import option, record
from shapelaw.config.places import PlacesConfig
from shapelaw.config.running import TrackerConfig


@record("report")
class ReportKindConfig:
    """What is reported on."""

    name: str = option(
        "gemstones (the published runs) or experiment (the table that runs names).", choices=("gemstones", "experiment")
    )
    tables: dict[str, str] = option(
        "experiment: data set of the paper -> the condition on the table's rows that stand for it.",
        default_factory=dict,
    )
    assumed: dict[str, float] = option(
        "experiment: column -> the value that those conditions read if the table has no such column.",
        default_factory=dict,
    )


@record()
class RowsConfig:
    """Which rows of the table are reported on."""

    where: str | None = option(
        "A condition on the table, such as `width == 512 and tokens <= 1e11`; null takes every row.", default=None
    )


@record()
class ReportConfig(PlacesConfig):
    """One report: figures, their tables and a page."""

    report: ReportKindConfig
    runs: RunsConfig
    subset: RowsConfig
    law: NamedConfig
    bootstrap: BootstrapOptions
    tracker: TrackerConfig
    delta: float = option(
        "Residual at which Huber's function turns linear, except in figures about other values.",
        low=DELTA_LEAST,
        unit="units of log loss",
        advice="the paper's is 1e-4",
    )
    mixture: str = option(
        "Rows that differ in corpus, tokenizer, vocabulary or held-out sample: refuse their fits, or allow them (flagged).",
        default="refuse",
        choices=("refuse", "allow"),
    )
    models: str | None = option(
        "Table of models to show beside the runs in the figures of shapes, prescriptions and overtraining, as shapelaw "
        "evaluate writes it (outputs/evaluations/CORPUS/models.csv).",
        default=None,
    )
    seed: int = option("Seed of random starts and of resampling.", low=0)
    budget: float | None = option(
        "Training FLOPs that the page opens with; null takes the largest budget up to those of the runs whose answer lies in "
        "the fitted domain, or else the nearest that the shapes serve.",
        default=None,
        above=0,
        unit="FLOPs",
    )
    next_seconds: float = option(
        "Longest search for the page's run to train next; 0 leaves that run out.", low=0, unit="seconds"
    )
    figures: list[str] = option(
        "Names of figures, or parts of names; an empty list means all figures.", default_factory=list
    )
    page: bool = option("Whether the page is also written.")
    mlflow_ui: str = option(
        "Address of MLflow's pages, to which the page's runs and fits link (runs=mlflow); empty for no links."
    )
