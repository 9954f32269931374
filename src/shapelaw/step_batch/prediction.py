"""A loss curve written down before its run is trained, and the run compared with it afterwards.

shapelaw prescribe fit=FOLDER width=64 depth=5 batch_tokens=4096 tokens=1638400  # writes it, with its hash
shapelaw predict prediction=FILE                                         # after training: the errors
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from shapelaw.errors import UserError
from shapelaw.fitting.result import plain
from shapelaw.laws import get_law
from shapelaw.prescribe.answer import PREDICTION
from shapelaw.runs import RunsTable

Array = NDArray[np.float64]


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content with the SHA-256 of itself as canonical JSON under `hash`."""
    body = {name: value for name, value in plain(content).items() if name != "hash"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return {**body, "hash": hashlib.sha256(text.encode()).hexdigest()}


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def now() -> str:
    """Time of writing, in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Comparison:
    """A prediction beside its run.

    Args:
        prediction: what was written.
        run: name of the run.
        points: a row per validation after warm-up: steps, tokens, loss, predicted, error (predicted/measured - 1).
    """

    prediction: Mapping[str, Any]
    run: str
    points: pd.DataFrame

    def plain(self) -> dict[str, Any]:
        """As plain types."""
        error = self.points["error"]
        return {
            "prediction_hash": self.prediction["hash"],
            "written": self.prediction["written"],
            "run": self.run,
            "validations": len(error),
            "mean_absolute_error": float(error.abs().mean()),
            "mean_signed_error": float(error.mean()),
            "largest_absolute_error": float(error.abs().max()),
            "points": plain(self.points),
        }


def read_prediction(path: Path) -> dict[str, Any]:
    """A prediction whose hash is right.

    Raises:
        UserError: if the file holds none, or was changed after it was written.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; prescribe.py with width, depth, batch_tokens and tokens writes one")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: is no YAML ({reason}); give a file of prescribe.py with a prediction") from error
    prediction = content.get(PREDICTION) if isinstance(content, dict) else None
    if not isinstance(prediction, dict):
        raise UserError(f"{path}: holds no prediction; ask prescribe.py for width, depth, batch_tokens and tokens")
    if sealed(prediction)["hash"] != prediction.get("hash"):
        raise UserError(f"{path}: the prediction's hash does not fit its content: it was changed after it was written")
    return {str(key): value for key, value in prediction.items()}


def compare(prediction: Mapping[str, Any], runs: RunsTable) -> Comparison:
    """The run of the predicted shape and batch, at every validation after its warm-up.

    Raises:
        UserError: if the table has no such run, naming what it has.
    """
    rows = runs.kept
    wanted = {name: prediction[name] for name in ("width", "depth", "batch_tokens")}
    mask = np.all([rows[name] == value for name, value in wanted.items()], axis=0)
    same = rows[mask & (rows["tokens"] <= prediction["tokens"] * (1 + 1e-9))]
    if not len(same):
        have = rows.drop_duplicates("run")[list(wanted)].to_dict("records")
        raise UserError(f"runs: none has {wanted}; train it first; there are {have[:8]}")
    run = str(same.groupby("run")["tokens"].max().idxmax())
    rows = same[same["run"] == run].sort_values("tokens")
    law = get_law(str(prediction["law"]))
    columns = {
        "params": np.full(len(rows), float(prediction["params"])),
        "tokens": rows["tokens"].to_numpy(dtype=float),
        "batch_tokens": rows["batch_tokens"].to_numpy(dtype=float),
    }
    predicted = law.predict(prediction["parameters"], columns)
    points = pd.DataFrame(
        {"steps": rows["tokens"] / rows["batch_tokens"], "tokens": rows["tokens"], "loss": rows["loss"]}
    )
    points = points.assign(predicted=predicted, error=predicted / rows["loss"].to_numpy() - 1).reset_index(drop=True)
    return Comparison(prediction, run, points)
