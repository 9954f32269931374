"""Options of every script: where things lie."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class PlacesConfig:
    """Where things lie. Never part of what a run or a fit is."""

    outputs_dir: str = MISSING
    """Folder of runs, fits, reports and the MLflow database; $SHAPELAW_OUTPUTS, if set."""
    data_dir: str = MISSING
    """Folder of prepared corpora."""
