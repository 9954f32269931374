"""Tracking of runs: the Tracker protocol, and MLflow behind it. Nothing else imports mlflow.

The launching process makes store and experiment (`open_store`); jobs get the experiment's id. Metrics are recorded against
tokens, in batches. A run that is started again continues the same MLflow run and does not record a metric twice.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlparse

from shapelaw.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

VAL_LOSS = "val/loss"
"""Held-out loss, nats per token."""
FURTHER_LOSS = re.compile(r"val/(\w+)/loss")
"""Losses on further held-out sets."""
IDENTITY_TAG = "shapelaw.identity"
KIND_TAG = "shapelaw.kind"
PARENT_TAG = "mlflow.parentRunId"
SWEEP_TAG = "shapelaw.sweep"
"""Identity of the sweep that made a run: `tags.`shapelaw.sweep` = '...'` finds them all."""
BATCH_METRICS = 200
BATCH_SECONDS = 10.0


def further_loss(name: str) -> str:
    """Metric of the loss on a further held-out set."""
    return f"val/{name}/loss"


class Tracker(Protocol):
    """What training and fitting record of a run."""

    @property
    def run_id(self) -> str | None:
        """The tracker's own name of the run."""
        ...

    def log(self, metrics: Mapping[str, float], tokens: int) -> None:
        """Record metrics after so many tokens."""
        ...

    def flush(self) -> None:
        """Record what is still held back."""
        ...

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a file with the run."""
        ...

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        ...

    def finish(self, status: str) -> None:
        """Record what is still held back, and the outcome: FINISHED, FAILED or KILLED."""
        ...


@dataclass(frozen=True)
class RunInfo:
    """What a run is called and described by.

    Args:
        identity: the cell's or fit's hash; one MLflow run per identity and experiment.
        kind: train, fit or sweep.
        name: for people.
        params: short flat parameters.
        tags: further tags.
        parent_run_id: the MLflow run of the sweep that this run belongs to.
    """

    identity: str
    kind: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    parent_run_id: str | None = None


class NoTracker:
    """Records nothing."""

    run_id: str | None = None

    def log(self, metrics: Mapping[str, float], tokens: int) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Nothing."""

    def tag(self, tags: Mapping[str, str]) -> None:
        """Nothing."""

    def finish(self, status: str) -> None:
        """Nothing."""


class MlflowTracker:
    """One MLflow run, found by its identity or made."""

    def __init__(self, uri: str, experiment_id: str, info: RunInfo) -> None:
        self.client = client(uri)
        self.experiment_id = experiment_id
        found = find_run(self.client, experiment_id, info.identity)
        run = found or self._create(info)
        self.run_id: str | None = run.info.run_id
        self.held: list[Metric] = []
        self.flushed = time.monotonic()
        self.recorded = self._recorded() if found else {}
        if found:
            self.client.update_run(self._id, status="RUNNING")

    @property
    def _id(self) -> str:
        assert self.run_id is not None
        return self.run_id

    def log(self, metrics: Mapping[str, float], tokens: int) -> None:
        """Hold metrics back and record them in batches; what an earlier attempt recorded is not recorded twice."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = {key: value for key, value in metrics.items() if tokens > self.recorded.get(key, -1)}
        self.held += [Metric(key, float(value), now, tokens) for key, value in new.items()]
        if len(self.held) >= BATCH_METRICS or time.monotonic() - self.flushed > BATCH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Record what is held back."""
        if self.held:
            self.client.log_batch(self._id, metrics=self.held)
        self.held, self.flushed = [], time.monotonic()

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Upload a file."""
        self.client.log_artifact(self._id, str(path), folder)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        for key, value in tags.items():
            self.client.set_tag(self._id, key, value)

    def finish(self, status: str) -> None:
        """Flush and close the run."""
        self.flush()
        self.client.set_terminated(self._id, status)

    def _create(self, info: RunInfo) -> Run:
        from mlflow.entities import Param

        tags = {IDENTITY_TAG: info.identity, KIND_TAG: info.kind, **info.tags}
        if info.parent_run_id:
            tags[PARENT_TAG] = info.parent_run_id
            tags[SWEEP_TAG] = self.client.get_run(info.parent_run_id).data.tags[IDENTITY_TAG]
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=info.name)
        params = [Param(key, str(value)) for key, value in info.params.items()]
        self.client.log_batch(run.info.run_id, params=params)
        return run

    def _recorded(self) -> dict[str, int]:
        """Tokens up to which each metric is recorded already."""
        keys = self.client.get_run(self._id).data.metrics
        return {key: max(m.step for m in self.client.get_metric_history(self._id, key)) for key in keys}


def client(uri: str) -> MlflowClient:
    """A client of the tracking store, without its chatter about new versions and migrations."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def open_store(uri: str, artifacts: str, experiment: str, tags: Mapping[str, str] | None = None) -> str:
    """Make store and experiment if they are missing; the experiment's id. To be called by the launching process only.

    Args:
        tags: of the experiment, such as its view (`shapelaw.tracking_views`); set anew where they changed.

    Raises:
        UserError: if the tracking server or database cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    _check_uri(uri)
    with unreachable(uri):
        tracker = client(uri)
        found = tracker.get_experiment_by_name(experiment)
        if found is None:
            root = None if uri.startswith("http") else Path(artifacts).absolute().as_uri() + f"/{experiment}"
            with contextlib.suppress(MlflowException):  # another launcher made it in between
                return str(tracker.create_experiment(experiment, artifact_location=root, tags=dict(tags or {})))
            found = tracker.get_experiment_by_name(experiment)
        assert found is not None
        if found.lifecycle_stage != "active":
            raise UserError(
                f"the MLflow experiment {experiment!r} at {uri} was deleted; restore it with "
                f"`mlflow experiments restore -x {found.experiment_id}`"
            )
        for key, value in (tags or {}).items():
            if found.tags.get(key) != value:
                tracker.set_experiment_tag(found.experiment_id, key, value)
        return str(found.experiment_id)


@contextlib.contextmanager
def unreachable(uri: str) -> Iterator[None]:
    """Turn a store that does not answer into a UserError; few retries, so that a launcher says so within seconds."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    kept = {key: os.environ.get(key) for key in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT")}
    os.environ.update({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"})
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = _root_cause(error)
        raise UserError(
            f"tracker.uri={uri}: cannot be reached ({reason}); start the server, give another tracker.uri, or tracker=none"
        ) from error
    finally:
        for key, value in kept.items():
            os.environ.pop(key, None) if value is None else os.environ.update({key: value})


def _root_cause(error: BaseException) -> str:
    """The innermost reason, in a line: an MLflow error wraps several that say the same."""
    found = re.findall(
        r"(Connection refused|timed out|Name or service not known|unable to open database file)", str(error)
    )
    return found[-1] if found else str(error).splitlines()[0][:200]


def _check_uri(uri: str) -> None:
    scheme = urlparse(uri).scheme
    if scheme.split("+")[0] not in ("sqlite", "postgresql", "mysql", "mssql", "http", "https"):
        raise UserError(
            f"tracker.uri={uri}: allowed are sqlite:///FILE, another database's URI, or http(s)://HOST:PORT of an MLflow server"
        )
    if scheme == "sqlite":
        Path(uri.removeprefix("sqlite:///")).absolute().parent.mkdir(parents=True, exist_ok=True)


def find_run(store: MlflowClient, experiment_id: str, identity: str) -> Run | None:
    """The run of an identity, if it was made before."""
    runs = store.search_runs([experiment_id], f"tags.`{IDENTITY_TAG}` = '{identity}'", max_results=1)
    return runs[0] if runs else None


def open_parent(uri: str, experiment_id: str, identity: str, names: Mapping[str, str]) -> str:
    """The MLflow run of a sweep, made or taken up again; its runs lie nested under it."""
    info = RunInfo(identity, "sweep", f"sweep of {len(names)} {identity}", {"jobs": len(names)})
    tracker = MlflowTracker(uri, experiment_id, info)
    assert tracker.run_id is not None
    tracker.client.log_dict(tracker.run_id, dict(names), "jobs.json")
    return tracker.run_id


def close_parent(uri: str, experiment: str, identity: str, failed: Sequence[str]) -> None:
    """Record the outcome of a sweep."""
    store = client(uri)
    found = store.get_experiment_by_name(experiment)
    run = find_run(store, found.experiment_id, identity) if found else None
    if run:
        store.set_tag(run.info.run_id, "shapelaw.failed", str(len(failed)))
        store.set_terminated(run.info.run_id, "FAILED" if failed else "FINISHED")


def places(uri: str, experiment: str, kind: str) -> tuple[str, dict[str, str]]:
    """Where the runs of an experiment lie: its id, and identity -> MLflow's id of every run of a kind; empty without one.

    Raises:
        UserError: if there is no such store.
    """
    store = _existing(uri)
    with unreachable(uri):
        found = store.get_experiment_by_name(experiment)
        if found is None:
            return "", {}
        runs = _search(store, found.experiment_id, kind)
    return str(found.experiment_id), {run.data.tags[IDENTITY_TAG]: run.info.run_id for run in runs}


def read_runs(uri: str, experiment: str) -> pd.DataFrame:
    """The runs table of an experiment: one row per validation of every training run.

    Columns: run, width, depth, params, tokens, loss, vocab_size, flops, device_hours, step, lr_base, batch_tokens,
    seconds_per_step, num_devices, cooldown (its tokens over those before; 0 at a constant rate), seq_len, head_size,
    suite, status, mlflow_run_id, excluded (a reason, or nothing), and loss_NAME of every further held-out set.

    Raises:
        UserError: if there is no such store or experiment, or it holds no validations.
    """
    import pandas as pd

    store = _existing(uri)
    with unreachable(uri):
        found = store.get_experiment_by_name(experiment)
        if found is None:
            names = ", ".join(e.name for e in store.search_experiments())
            raise UserError(f"runs.experiment={experiment}: no such MLflow experiment at {uri}; there are {names}")
        frames = [_rows(store, run) for run in _search(store, found.experiment_id, "train")]
    rows = [row for frame in frames for row in frame]
    if not rows:
        raise UserError(
            f"runs.experiment={experiment}: no run has a validation yet; train some with `python train.py -m ...`"
        )
    return pd.DataFrame(rows)


def _existing(uri: str) -> MlflowClient:
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        raise UserError(
            f"tracker.uri={uri}: there is no such database yet; train some runs with `python train.py -m ...`"
        )
    return client(uri)


def _search(store: MlflowClient, experiment_id: str, kind: str) -> Sequence[Run]:
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = store.search_runs([experiment_id], f"tags.`{KIND_TAG}` = '{kind}'", max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


WHOLE = ("width", "depth", "params", "vocab_size", "batch_tokens", "num_devices", "seq_len", "head_size")
REAL = ("lr_base", "cooldown")


def _rows(store: MlflowClient, run: Run) -> list[dict[str, Any]]:
    """One row per validation of a run; costs follow from the run's own counts."""
    params = run.data.params
    if VAL_LOSS not in run.data.metrics:
        return []
    fixed: dict[str, Any] = {key: int(params[key]) for key in WHOLE} | {key: float(params[key]) for key in REAL}
    fixed |= {"run": run.data.tags[IDENTITY_TAG], "suite": params["suite"]}
    fixed |= {"status": run.info.status, "mlflow_run_id": run.info.run_id}
    hours = {m.step: m.value for m in store.get_metric_history(run.info.run_id, "cost/device_hours")}
    seconds = run.data.metrics.get("speed/seconds_per_step")
    further = _further(store, run)
    return [
        fixed
        | {"tokens": metric.step, "loss": metric.value, "step": metric.step // fixed["batch_tokens"]}
        | {"flops": metric.step * float(params["flops_per_token"]), "device_hours": hours.get(metric.step)}
        | {"seconds_per_step": seconds, "excluded": _excluded(metric, params)}
        | {name: values.get(metric.step) for name, values in further.items()}
        for metric in store.get_metric_history(run.info.run_id, VAL_LOSS)
    ]


def _further(store: MlflowClient, run: Run) -> dict[str, dict[int, float]]:
    """Column of each further loss -> tokens -> value."""
    found = {key: name[1] for key in run.data.metrics if (name := FURTHER_LOSS.fullmatch(key))}
    return {
        f"loss_{name}": {m.step: m.value for m in store.get_metric_history(run.info.run_id, key)}
        for key, name in found.items()
    }


def _excluded(metric: Metric, params: Mapping[str, str]) -> str:
    """Why a validation is no point for a fit: a rate that is neither the run's own nor annealed to the end."""
    if float(params["cooldown"]) and metric.step < int(params["tokens"]):
        return "midway through a cooldown"
    if metric.step <= float(params.get("warmup_tokens", 0)):
        return "during the warm-up"
    return ""
