"""Runs that others tracked in any experiment, by its own metrics, parameters and tags."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from shapelaw.errors import UserError
from shapelaw.tracking.histories import histories
from shapelaw.tracking.reading import existing, experiment_of, search
from shapelaw.tracking.store import unreachable

if TYPE_CHECKING:
    import pandas as pd

SYSTEM = ("mlflow.", "shapelaw.")
"""Prefixes of tags that the tracker sets, rather than a user."""


def read_any(
    uri: str, experiment: str, wanted: Callable[[Iterable[str]], Sequence[str]]
) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    """The runs of an experiment, whatever program trained them.

    Args:
        uri, experiment: the store, and an experiment in it.
        wanted: selects, from the names of all metrics, those whose histories are read.

    Returns:
        one row per run (run, its name; mlflow_run_id; status; parameters, and the user's tags), one row per value (run, number
        of its row; step, metric, value; in the order of recording), and the names of all metrics.

    Raises:
        UserError: if the store or experiment is missing, or it holds no runs.
    """
    import pandas as pd

    with unreachable(uri):
        store = existing(uri)
        runs = search(uri, store, experiment_of(uri, store, experiment), None)
        if not runs:
            raise UserError(f"runs.experiment={experiment}: has no runs; give another")
        recorded = tuple(sorted({key for run in runs for key in run.data.metrics}))
        keys = wanted(recorded)
        values = histories(uri, store, [run.info.run_id for run in runs], keys)
    rows = [
        (number, value.tokens, key, value.value)
        for number, run in enumerate(runs)
        for key in keys
        for value in values.get((run.info.run_id, key), ())
    ]
    own = [
        {
            **{key: value for key, value in run.data.tags.items() if not key.startswith(SYSTEM)},
            **run.data.params,
            "run": run.info.run_name or "",
            "mlflow_run_id": run.info.run_id,
            "status": run.info.status,
        }
        for run in runs
    ]
    return pd.DataFrame(own), pd.DataFrame(rows, columns=["run", "step", "metric", "value"]), recorded
