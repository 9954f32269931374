"""The runs table of runs that shapelaw recorded in wandb, the same as for runs that it recorded in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from shapelaw.suite import Suite
from shapelaw.tracking.histories import Value
from shapelaw.tracking.protocol import VAL_LOSS
from shapelaw.tracking.reading import rows_of, suite_of
from shapelaw.tracking.store import IDENTITY_TAG
from shapelaw.tracking.wandb_delivery import ABOUT, TIME

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run


@dataclass(frozen=True)
class OneTracked:
    """A run in wandb.

    Args:
        state: finished, failed, crashed or running.
        config: its settings.
        rows: its rows in the order of recording, metric -> value.
    """

    state: str
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]]

    @property
    def ours(self) -> bool:
        """Whether shapelaw trained it."""
        return isinstance(self.config.get(ABOUT), Mapping) and self.config[ABOUT].get("kind") == "train"


def read_wandb_runs(runs: Sequence[OneTracked]) -> tuple[pd.DataFrame, dict[str, Suite]]:
    """One row per validation, as from `shapelaw.tracking.reading.read_table`, and run -> the record of its suite."""
    import pandas as pd

    validated = [run for run in map(_entity, runs) if VAL_LOSS in run.data.metrics]
    values = {(run.info.run_id, key): found for run in validated for key, found in run.histories.items()}
    table = pd.DataFrame([row for run in validated for row in rows_of(cast("Run", run), values)])
    return table, {run.data.tags[IDENTITY_TAG]: suite_of(cast("Run", run)) for run in validated}


def _entity(run: OneTracked) -> Any:
    """A run with the attributes that `rows_of` reads from MLflow's."""
    about = run.config[ABOUT]
    histories: dict[str, list[Value]] = {}
    for row in run.rows:
        for key, value in row.items():
            if key not in ("tokens", TIME):
                histories.setdefault(key, []).append(Value(int(row["tokens"]), int(row[TIME]), value))
    ordered = {key: sorted(found) for key, found in histories.items()}
    last = {key: found[-1].value for key, found in ordered.items()}
    tags = {IDENTITY_TAG: about["identity"], **about["tags"]}
    data = SimpleNamespace(params=about["params"], tags=tags, metrics=last)
    status = {"finished": "FINISHED", "failed": "FAILED"}.get(run.state, "RUNNING")
    info = SimpleNamespace(run_id=about["identity"], status=status, run_name="")
    return SimpleNamespace(data=data, info=info, histories=ordered)
