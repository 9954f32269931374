"""A loss curve written down before its run was trained, and the run compared with it afterwards.

shapelaw prescribe fit=FOLDER width=64 depth=5 tokens=1638400   # writes it, with its hash (and batch_tokens, for that law)
shapelaw predict prediction=FILE                                # after training: the errors
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from shapelaw.config import PredictConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.files import check_room, write_text
from shapelaw.prescribe.prediction import Comparison, compare, read_prediction
from shapelaw.runs import RunsTable
from shapelaw.terminal import write
from shapelaw.verbs.fit import load_table

FILES_BYTES = 2e5
"""Approximate bytes of the errors and their figure."""


def check_prediction(config: DictConfig) -> None:
    """Compare the prediction that the configuration names with its run, and print the errors."""
    asked: PredictConfig = to_dataclass(config)
    comparison, target = predict(Path(asked.prediction), load_table(asked.runs))
    shown = {name: value for name, value in comparison.plain().items() if name != "points"}
    write(_yaml(shown) + f"written to {target}\n")


def predict(file: Path, runs: RunsTable) -> tuple[Comparison, Path]:
    """Compare a written prediction with its run; the errors and a figure are written beside it.

    Returns:
        the comparison and its YAML.

    Raises:
        UserError: for a file without a prediction or one that was changed, or a table without its run.
    """
    from shapelaw.figures.answers import outcome
    from shapelaw.figures.style import canvas, look, save

    check_room(file.parent, FILES_BYTES, "a comparison")
    comparison = compare(read_prediction(file), runs)
    target = file.with_name(f"{file.stem}-outcome.yaml")
    write_text(target, _yaml(comparison.plain()))
    with look():
        figure, axes = canvas(3.4, 5.2)
        outcome(axes, comparison)
        save(figure, file.parent, target.stem, runs.loss_unit)
    return comparison, target


def _yaml(content: dict[str, Any]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(content))


DOOR = check_prediction
