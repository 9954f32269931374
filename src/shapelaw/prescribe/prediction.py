"""A loss curve that is recorded before its run is trained, and its comparison with the run afterwards.

shapelaw prescribe fit=FOLDER width=64 depth=5 tokens=1638400   # writes it, with its hash (and batch_tokens, for that law)
shapelaw predict prediction=FILE                                # after training: the errors
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

from shapelaw.errors import UserError
from shapelaw.fitting.result import plain
from shapelaw.laws import get_law
from shapelaw.prescribe.answer import PREDICTION
from shapelaw.prescribe.candidates import Cadence
from shapelaw.prescribe.search import SizeSearch
from shapelaw.prescribe.world import Points
from shapelaw.runs import RunsTable

Array = NDArray[np.float64]

CURVE_POINTS = 60
"""Points of a written curve, even in the logarithm of the tokens."""


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content with its own SHA-256, as canonical JSON, under `hash`."""
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
        prediction: the recorded prediction.
        run: name of the run.
        points: a row per validation after warm-up: steps, tokens, loss, predicted, error (predicted/measured - 1), and, if an
            interval was recorded, loss_low, loss_high and inside.
    """

    prediction: Mapping[str, Any]
    run: str
    points: pd.DataFrame

    def plain(self) -> dict[str, Any]:
        """As plain types."""
        error = self.points["error"]
        inside = {"inside_interval": float(self.points["inside"].mean())} if "inside" in self.points else {}
        return {
            "prediction_hash": self.prediction["hash"],
            "written": self.prediction["written"],
            "run": self.run,
            "validations": len(error),
            "mean_absolute_error": float(error.abs().mean()),
            "mean_signed_error": float(error.mean()),
            "largest_absolute_error": float(error.abs().max()),
            "error_at_the_end": float(error.iloc[-1]),
            **inside,
            "points": plain(self.points),
        }


def read_prediction(path: Path) -> dict[str, Any]:
    """Read a prediction and verify its hash.

    Raises:
        UserError: if the file holds no prediction, or was changed after it was written.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; shapelaw prescribe with width, depth and tokens writes one")
    from omegaconf import OmegaConf  # writes and reads these files; a prediction in Python needs neither it nor YAML
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: is not YAML ({reason}); give a file with a prediction that shapelaw prescribe wrote"
        ) from error
    prediction = content.get(PREDICTION) if isinstance(content, dict) else None
    if not isinstance(prediction, dict):
        raise UserError(
            f"{path}: contains no prediction; shapelaw prescribe writes one for width, depth and tokens, from a fit with refits"
        )
    if sealed(prediction)["hash"] != prediction.get("hash"):
        raise UserError(
            f"{path}: the prediction's hash does not match its content: the file was changed after it was written"
        )
    return {str(key): value for key, value in prediction.items()}


def compare(prediction: Mapping[str, Any], runs: RunsTable) -> Comparison:
    """The run of the predicted shape and batch, at every validation after its warm-up.

    Raises:
        UserError: if the table has no such run; the message names the runs that it has.
    """
    rows = runs.kept
    wanted = {name: prediction[name] for name in ("width", "depth", "batch_tokens") if prediction.get(name) is not None}
    mask = np.all([rows[name] == value for name, value in wanted.items()], axis=0)
    same = rows[mask & (rows["tokens"] <= prediction["tokens"] * (1 + 1e-9))]
    if not len(same):
        have = rows.drop_duplicates("run")[list(wanted)].to_dict("records")
        raise UserError(f"runs: no run has {wanted}; train it first; there are {have[:8]}")
    run = str(same.groupby("run")["tokens"].max().idxmax())
    return Comparison(prediction, run, _beside(prediction, same[same["run"] == run].sort_values("tokens")))


def _beside(prediction: Mapping[str, Any], rows: pd.DataFrame) -> pd.DataFrame:
    """The run's validations, each with its prediction."""
    law, tokens = get_law(str(prediction["law"])), rows["tokens"].to_numpy(dtype=float)
    sizes = {name: np.full(len(rows), float(prediction[name])) for name in ("params", "width", "depth")}
    given = {name: np.full(len(rows), float(value)) for name, value in (prediction.get("given") or {}).items()}
    columns = {**sizes, **given, "tokens": tokens}
    if "batch_tokens" in law.predictors:
        columns["batch_tokens"] = rows["batch_tokens"].to_numpy(dtype=float)
    theta = prediction.get("theta")
    vector = law.theta(prediction["parameters"]) if theta is None else np.array(theta)
    exactly = law.predict_at(vector, columns)
    loss = rows["loss"].to_numpy(dtype=float)
    steps = tokens / rows["batch_tokens"].to_numpy(dtype=float) if "batch_tokens" in rows else tokens
    points = pd.DataFrame(
        {"steps": steps, "tokens": tokens, "loss": loss, "predicted": exactly, "error": exactly / loss - 1}
    )
    if prediction.get("interval") is None:
        return points
    low, high = (_at(tokens, prediction["points"], name) for name in ("loss_low", "loss_high"))
    return points.assign(loss_low=low, loss_high=high, inside=(low <= loss) & (loss <= high))


def _at(tokens: Array, points: Any, name: str) -> Array:
    """A column of the recorded curve, which is dense, at the tokens of validations."""
    table = pd.DataFrame(points)
    logs = np.log(table["tokens"].to_numpy(dtype=float))
    return np.asarray(np.exp(np.interp(np.log(tokens), logs, np.log(table[name].to_numpy(dtype=float)))))


def curve_of(search: SizeSearch, runs: RunsTable, points: Points, tokens: float) -> pd.DataFrame:
    """The curve of one shape with the interval of a new run: tokens, steps if the batch is known, loss, loss_low, loss_high.

    Raises:
        UserError: for a fit without refits, or one without the noise of a new run.
    """
    fit, law, shares = search.fit, search.surface.law, Cadence.of(runs).shares
    each = np.geomspace(min(shares[0], 0.5), 1.0, CURVE_POINTS) * tokens
    one = points.take(np.zeros(CURVE_POINTS, dtype=np.intp))
    columns = {**one.columns, "tokens": each}
    centre = law.log_prediction(fit.vector, columns)
    sizes = {"params": one.counted if "params" in law.predictors else one.params, "tokens": each}
    low, high = fit.interval_of("new_run", centre, fit.log_predictions(columns), sizes)
    batch = search.world.suite.batch_tokens
    steps = {"steps": each / batch} if batch else {"steps": each}
    return pd.DataFrame(
        {**steps, "tokens": each, "loss": np.exp(centre), "loss_low": np.exp(low), "loss_high": np.exp(high)}
    )


def prediction_at(search: SizeSearch, runs: RunsTable, folder: Path, points: Points, tokens: float) -> dict[str, Any]:
    """The curve of one shape as a sealed prediction, with its origin; empty without a new run's interval."""
    fit = search.fit
    if not fit.new_run or not len(fit.vectors) or points.width is None or points.depth is None:
        return {}
    file = folder / "fit.json" if folder.is_dir() else folder
    if not file.is_file():
        return {}
    facts = {
        "written": now(),
        "law": str(fit.law),
        "fit": file.parent.name,
        "fit_hash": file_hash(file),
        "runs_hash": runs.hash,
        "width": float(points.width[0]),
        "depth": float(points.depth[0]),
        "params": float(points.counted[0]),
        "batch_tokens": search.world.suite.batch_tokens,
        **({"given": dict(points.given)} if points.given else {}),
        "tokens": tokens,
        "parameters": dict(fit.parameters),
        "theta": list(map(float, fit.vector)),
        "interval": {"kind": "new_run", "level": search.level},
        "points": curve_of(search, runs, points, tokens),
    }
    return sealed(facts)
