"""What came of a predicted loss curve: its run, trained after it was written, and the errors at every validation.

python prescribe.py fit=FOLDER width=64 depth=5 batch_tokens=4096 tokens=1638400  # writes a prediction
python -m shapelaw.verbs.predict FILE [--uri URI] [--experiment NAME]             # after training: the errors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omegaconf import OmegaConf

from shapelaw.errors import UserError
from shapelaw.files import write_text
from shapelaw.runs import load_runs
from shapelaw.step_batch.prediction import Comparison, compare, read_prediction
from shapelaw.verbs.main import BAD_INPUT


def predict(file: Path, uri: str, experiment: str) -> tuple[Comparison, Path]:
    """Compare a written prediction with its run; the errors and a figure are written beside it.

    Returns:
        the comparison and its YAML.

    Raises:
        UserError: for a file without a prediction or one that was changed, or an experiment without its run.
    """
    comparison = compare(read_prediction(file), load_runs("mlflow", uri=uri, experiment=experiment))
    target = file.with_name(f"{file.stem}-outcome.yaml")
    write_text(target, _yaml(comparison.plain()))
    from shapelaw.figures.answers import outcome
    from shapelaw.figures.style import canvas, look, save

    with look():
        figure, axes = canvas(3.4, 5.2)
        outcome(axes, comparison)
        save(figure, file.parent, target.stem)
    return comparison, target


def parser_of(module: str, description: str | None) -> argparse.ArgumentParser:
    """Of a command that reads tracked runs."""
    parser = argparse.ArgumentParser(prog=f"python -m shapelaw.verbs.{module}", description=description)
    parser.add_argument("--uri", default="sqlite:///outputs/mlflow.db", help="tracker of the runs")
    parser.add_argument("--experiment", default="nano", help="the suite")
    return parser


def _main(arguments: list[str]) -> int:
    parser = parser_of("predict", __doc__)
    parser.add_argument("file", type=Path, help="YAML that prescribe.py wrote")
    options = parser.parse_args(arguments)
    try:
        comparison, target = predict(options.file, options.uri, options.experiment)
    except UserError as error:
        sys.stderr.write(f"shapelaw: {error}\n")
        return BAD_INPUT
    shown = {name: value for name, value in comparison.plain().items() if name != "points"}
    sys.stdout.write(_yaml(shown) + f"written to {target}\n")
    return 0


def _yaml(content: dict[str, object]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(content))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
