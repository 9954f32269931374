"""A loss curve written down before its run was trained, and the run compared with it afterwards.

python prescribe.py fit=FOLDER width=64 depth=5 batch_tokens=4096 tokens=1638400  # writes it, with its hash
python -m shapelaw predict prediction=FILE                                         # after training: the errors
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING, DictConfig, OmegaConf

from shapelaw.config import RunsConfig, TrackerConfig, to_dataclass
from shapelaw.config.places import PlacesConfig
from shapelaw.files import write_text
from shapelaw.runs import RunsTable
from shapelaw.step_batch.prediction import Comparison, compare, read_prediction
from shapelaw.verbs.doors import Door
from shapelaw.verbs.fit import load_table


@dataclass
class PredictConfig(PlacesConfig):
    """The outcome of a prediction."""

    prediction: str = MISSING
    """YAML file that prescribe.py wrote for a width, depth, batch_tokens and tokens."""
    runs: RunsConfig = field(default_factory=RunsConfig)
    """The table that holds the predicted run."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    """Its uri is where runs=mlflow reads."""


def predict(config: DictConfig) -> None:
    """Compare a prediction with its run, write the errors and a figure beside it, and print them.

    Raises:
        UserError: for a file without a prediction, or a table without its run.
    """
    asked: PredictConfig = to_dataclass(config)
    file = Path(asked.prediction)
    found = outcome_of(file, load_table(asked.runs))
    target = write_outcome(file, found)
    shown = {name: value for name, value in found.plain().items() if name != "points"}
    sys.stdout.write(OmegaConf.to_yaml(OmegaConf.create(shown)) + f"written to {target}\n")


def outcome_of(file: Path, runs: RunsTable) -> Comparison:
    """The prediction that a file holds beside its run.

    Raises:
        UserError: if the file holds none, was changed after it was written, or the table has no such run.
    """
    return compare(read_prediction(file), runs)


def write_outcome(file: Path, found: Comparison) -> Path:
    """Write FILE-outcome.yaml and its figure; the YAML's path."""
    from shapelaw.figures.step_batch import outcome
    from shapelaw.figures.style import canvas, look, save

    target = file.with_name(f"{file.stem}-outcome.yaml")
    write_text(target, OmegaConf.to_yaml(OmegaConf.create(found.plain())))
    with look():
        figure, axes = canvas(3.4, 5.2)
        outcome(axes, found)
        save(figure, file.parent, target.stem)
    return target


DOOR = Door(PredictConfig, predict)
