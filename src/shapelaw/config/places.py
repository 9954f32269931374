"""Options of every script: where things lie."""

from __future__ import annotations

from shapelaw.config.option import option, record


@record()
class PlacesConfig:
    """Where things lie. Never part of what a run or a fit is."""

    outputs_dir: str = option(
        "Folder of runs, fits, reports and the MLflow database: $SHAPELAW_OUTPUTS, or outputs in the working directory."
    )
    data_dir: str = option("Folder of prepared corpora.")
