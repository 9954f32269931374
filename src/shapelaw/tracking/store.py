"""The tracking store: clients, experiments, runs by their identity, and the meaning of its errors."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shapelaw.config import TrackerConfig, WhenUnreachable
from shapelaw.errors import UserError
from shapelaw.files import check_writable
from shapelaw.secrets import TRACKING_VARIABLE, connectable, hidden
from shapelaw.tracking.addresses import DATABASES, SERVERS, check_uri, database_file, kind_of
from shapelaw.tracking.database import check, follow, keep_copies
from shapelaw.tracking.protocol import RunInfo
from shapelaw.tracking.server import KNOCK_SECONDS, NOT_MLFLOWS, ServerFault, knock_database, knock_server
from shapelaw.tracking_views import NOTE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

IDENTITY_TAG = "shapelaw.identity"
KIND_TAG = "shapelaw.kind"
PARENT_TAG = "mlflow.parentRunId"
SWEEP_TAG = "shapelaw.sweep"
"""Identity of the sweep that made a run: `tags.`shapelaw.sweep` = '...'` finds them all."""
JOBS = "jobs.json"
"""Artifact of a sweep's run: identity -> name of its jobs."""
PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""Timeout and retries of a request, if the caller can wait."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """The store of runs.

    Args:
        uri: a database or an MLflow server.
        artifacts: root of the artifacts of new experiments in a database; a server has its own.
        experiment: name of the experiment.
        experiment_id: its id if the launching process found the store; None leaves it to the first process that reaches it.
    """

    uri: str
    artifacts: str
    experiment: str
    experiment_id: str | None = None

    @classmethod
    def of(cls, tracker: TrackerConfig, experiment: str) -> Store:
        """The store that the options name, and an experiment in it."""
        return cls(tracker.uri, tracker.artifacts, experiment, tracker.experiment_id)


class StoreAway(Exception):
    """The store does not answer, or can accept nothing now; the message is one line."""


class StoreRefused(Exception):
    """The store will never accept this record; the message is one line."""


class RunGone(Exception):
    """The store no longer holds the run."""


def client(uri: str) -> MlflowClient:
    """A client of the tracking store, without its messages about new versions, migrations and errors that we report ourselves.

    A request is tried twice, so that a launcher reports an error within seconds; code that must not give up tries again.
    """
    if kind_of(uri) in DATABASES:
        knock_database(connectable(uri))
    quiet = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")
    settings = {**PATIENT, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    for key, value in {**dict.fromkeys(quiet, "true"), **settings}.items():
        os.environ.setdefault(key, value)
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    from mlflow import MlflowClient

    if kind_of(uri) in SERVERS:
        knock_server(connectable(uri))
    return MlflowClient(tracking_uri=connectable(uri))


def open_store(uri: str, artifacts: str, experiment: str, tags: Mapping[str, str] | None = None) -> str:
    """Create store and experiment if they are missing; returns the experiment's id.

    The launching process must call it before any other process opens the store.

    Args:
        tags: tags of the experiment, such as its view (`shapelaw.tracking_views`); changed ones are set again, except for a
            description, which stays unchanged.

    Raises:
        UserError: if the tracking server or database cannot be reached.
    """
    check_uri(uri)
    with unreachable(uri), _hurried():
        experiment_id = find_experiment(Store(uri, artifacts, experiment))
        store = client(uri)
        there = store.get_experiment(experiment_id).tags if tags else {}
        for key, value in (tags or {}).items():
            if there.get(key) != value and not (key == NOTE and NOTE in there):
                store.set_experiment_tag(experiment_id, key, value)
        return experiment_id


@contextlib.contextmanager
def _hurried() -> Iterator[None]:
    """Let a launcher send one request and wait no longer than for a knock, unless the user's environment allows more."""
    hurried = {"MLFLOW_HTTP_REQUEST_TIMEOUT": f"{KNOCK_SECONDS:g}", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    before = {key: os.environ.get(key) for key in hurried}
    os.environ.update({key: value for key, value in hurried.items() if before[key] in (None, PATIENT[key])})
    try:
        yield
    finally:
        os.environ.update({key: value or PATIENT[key] for key, value in before.items()})


def find_experiment(store: Store) -> str:
    """The id of the experiment, which is created if it is missing; one process at a time creates a database.

    Raises:
        UserError: if it was deleted, or the database is damaged.
        StoreAway: if the store does not answer.
    """
    file = database_file(store.uri)
    with _making(store.uri), answers():
        if file and file.exists():
            check(file)
        tracker = client(store.uri)
        found = tracker.get_experiment_by_name(store.experiment)
        if file:
            keep_copies(file)
            for line in follow(file, Path(store.artifacts)):
                log.warning("tracking: %s", line)
        if found is None:
            return _make_experiment(tracker, store)
    if found.lifecycle_stage != "active":
        raise UserError(
            f"the MLflow experiment {store.experiment!r} at {store.uri} was deleted; restore it with "
            f"`mlflow experiments restore -x {found.experiment_id}`"
        )
    return str(found.experiment_id)


def _make_experiment(tracker: MlflowClient, store: Store) -> str:
    from mlflow.exceptions import MlflowException

    root = None if store.uri.startswith("http") else f"{Path(store.artifacts).absolute().as_uri()}/{store.experiment}"
    try:
        return _named(tracker.create_experiment(store.experiment, artifact_location=root))
    except MlflowException as error:
        made = tracker.get_experiment_by_name(store.experiment)  # another process may have created it in between
        if made is None:
            raise error
        return str(made.experiment_id)


def _named(made: object) -> str:
    """The store's name of an object that it created; a server with an empty answer did not create it."""
    if not made:
        raise ServerFault("its answer does not name the object that it should have created")
    return str(made)


@contextlib.contextmanager
def _making(uri: str) -> Iterator[None]:
    """Let one process at a time create and migrate a database file; several at once would leave it incomplete."""
    file = database_file(uri)
    if file is None:
        yield
        return
    folder = file.absolute().parent
    with answers():
        check_writable(folder)  # otherwise MLflow would try for two minutes
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def answers() -> Iterator[None]:
    """Turn the store's errors into their meaning for the recorder: away, refused, or the run is gone."""
    from json import JSONDecodeError

    from google.protobuf.json_format import ParseError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in str(error):
            raise RunGone(root_cause(error)) from error
        if error.error_code == "INVALID_PARAMETER_VALUE":
            raise StoreRefused(root_cause(error)) from error
        raise StoreAway(root_cause(error)) from error
    except (ParseError, JSONDecodeError) as error:
        raise StoreAway(NOT_MLFLOWS) from ServerFault(root_cause(error))
    except (SQLAlchemyError, OSError) as error:
        raise StoreAway(root_cause(error)) from error


@contextlib.contextmanager
def unreachable(uri: str) -> Iterator[None]:
    """Turn a store that does not answer into a UserError."""
    try:
        with answers():
            yield
    except (StoreAway, StoreRefused, RunGone) as error:
        what = f"cannot be reached ({error}); start the server"
        if isinstance(error.__cause__, ServerFault):
            what = f"is not a healthy MLflow server ({error}); correct the address or repair the server"
        if re.search(r"password|error code 40[13]", str(error)):
            what = (
                f"refuses this user ({error}); put the address with its password into the environment variable "
                f"{TRACKING_VARIABLE}"
            )
        if database_file(uri):
            what = f"the database cannot be opened or created ({error}); make its folder writable, or free some space there"
        raise UserError(
            f"tracker.uri={uri}: {what}, give another tracker.uri, tracker.when_unreachable=spool to record now and deliver "
            "later, or tracker=none"
        ) from error


def root_cause(error: BaseException) -> str:
    """The innermost reason, in one line: an MLflow error wraps several with the same content."""
    known = (
        "Connection refused|Connection reset|Connection aborted|Connection broken|Broken pipe|Response ended prematurely|"
        "timed out|Name or service not known|Temporary failure in name resolution|"
        "Network is unreachable|No route to host|Remote end closed connection without response|"
        r"too many \d+ error responses|certificate verify failed: [a-z-]+(?: [a-z-]+)*|unable to open database file|"
        "database or disk is full|database is locked|disk I/O error|attempt to write a readonly database|"
        "no password supplied|password authentication failed|BadStatusLine"
    )
    found = re.findall(f"({known})", str(error))
    if found and found[-1] == "BadStatusLine":
        return "the server there does not speak HTTP"
    return found[-1] if found else hidden((str(error).splitlines() or [type(error).__name__])[0])[:200]


def find_run(store: MlflowClient, experiment_id: str, identity: str) -> Run | None:
    """The run of an identity, if it exists."""
    runs = store.search_runs([experiment_id], f"tags.`{IDENTITY_TAG}` = '{identity}'", max_results=1)
    return runs[0] if runs else None


def make_run(store: MlflowClient, experiment_id: str, info: RunInfo) -> Run:
    """A new run, with its tags; its parameters follow by `complete_params`."""
    tags = {IDENTITY_TAG: info.identity, KIND_TAG: info.kind, **info.tags}
    if info.parent_run_id:
        tags |= _of_sweep(store, info.parent_run_id)
    run = store.create_run(experiment_id, tags=tags, run_name=info.name)
    _named(run.info.run_id)
    return run


def _of_sweep(store: MlflowClient, parent_run_id: str) -> dict[str, str]:
    """Tags of a sweep's runs; none in a store without the sweep, such as one that is rebuilt from journals."""
    with contextlib.suppress(RunGone), answers():
        sweep = store.get_run(parent_run_id).data.tags[IDENTITY_TAG]
        return {PARENT_TAG: parent_run_id, SWEEP_TAG: sweep}
    return {}


def complete_params(store: MlflowClient, run: Run, info: RunInfo) -> None:
    """Record the parameters that the run lacks, because its creator may have been killed before it recorded them."""
    from mlflow.entities import Param

    missing = [Param(key, str(value)) for key, value in info.params.items() if key not in run.data.params]
    if missing:
        store.log_batch(run.info.run_id, params=missing)


def begin(
    settings: TrackerConfig, experiment: str, identity: str, names: Mapping[str, str], tags: Mapping[str, str]
) -> dict[str, str]:
    """Open the store for a command's jobs and, if there are several, their sweep's run. Returns the values to set in their
    configurations: none if the store is away and they should spool.

    Args:
        settings: settings of the tracker.
        experiment: name of the experiment.
        identity: identity of the sweep.
        names: identity -> name of the jobs.
        tags: tags of the experiment.

    Raises:
        UserError: if the store does not answer and tracker.when_unreachable is refuse.
    """
    check_uri(settings.uri)
    try:
        experiment_id = open_store(settings.uri, settings.artifacts, experiment, tags)
        shared = {"tracker.experiment_id": experiment_id}
        if len(names) > 1:
            shared["tracker.parent_run_id"] = open_parent(settings.uri, experiment_id, identity, names)
        return shared
    except UserError as error:
        if settings.when_unreachable is WhenUnreachable.refuse:
            raise
        log.warning("tracking: %s; as requested, records are kept in the runs' folders", str(error).split("; ")[0])
        return {}


def open_parent(uri: str, experiment_id: str, identity: str, names: Mapping[str, str]) -> str:
    """The MLflow run of a sweep, created or continued; its runs are nested under it.

    Raises:
        UserError: if the store does not answer.
    """
    info = RunInfo(identity, "sweep", f"sweep of {len(names)} {identity}", {"jobs": len(names)})
    with unreachable(uri):
        run_id = _take_up(uri, experiment_id, info)
        client(uri).log_dict(run_id, dict(names), JOBS)
        return run_id


def _take_up(uri: str, experiment_id: str, info: RunInfo) -> str:
    store = client(uri)
    run = find_run(store, experiment_id, info.identity) or make_run(store, experiment_id, info)
    complete_params(store, run, info)
    store.update_run(run.info.run_id, status="RUNNING")
    return str(run.info.run_id)


def open_search(uri: str, experiment_id: str, study: str, storage: str) -> str:
    """The MLflow run of a study, created or continued; its trials are nested under it.

    Raises:
        UserError: if the store does not answer.
    """
    with unreachable(uri):
        return _take_up(uri, experiment_id, RunInfo(study, "search", f"search {study}", {"storage": storage}))


def close_search(uri: str, experiment: str, study: str, record: Mapping[str, Any]) -> None:
    """Record the result of a study, if the store answers: its best loss as a metric, everything as an artifact."""
    try:
        with answers():
            if known := _known(uri, experiment, study):
                store, run_id = known
                trials = sum(record["trials"].values())
                if record["loss"] is not None:
                    store.log_metric(run_id, "search/best_loss", record["loss"], step=trials)
                store.log_dict(run_id, dict(record), "search.json")
                store.set_terminated(run_id, "FINISHED" if record["loss"] is not None else "FAILED")
    except (StoreAway, StoreRefused, RunGone) as error:
        log.warning("tracking: the outcome of study %s is not recorded: %s (%s)", study, uri, error)


def close_parent(uri: str, experiment: str, identity: str, failed: Sequence[str]) -> str:
    """Record the outcome of a sweep, if it has a run and the store answers; the identity of its experiment, or nothing."""
    try:
        with answers():
            if known := _known(uri, experiment, identity):
                store, run_id = known
                store.set_tag(run_id, "shapelaw.failed", str(len(failed)))
                store.set_terminated(run_id, "FAILED" if failed else "FINISHED")
                return str(store.get_run(run_id).info.experiment_id)
    except (StoreAway, StoreRefused, RunGone) as error:
        log.warning("tracking: the outcome of sweep %s is not recorded: %s (%s)", identity, uri, error)
    return ""


def close_stopped(uri: str, experiment: str, identity: str) -> None:
    """Record that the launcher of a sweep or study was stopped, if it has a run and the store answers."""
    try:
        with answers():
            if known := _known(uri, experiment, identity):
                known[0].set_terminated(known[1], "KILLED")
    except (StoreAway, StoreRefused, RunGone) as error:
        log.warning("tracking: the stop of %s is not recorded: %s (%s)", identity, uri, error)


def _known(uri: str, experiment: str, identity: str) -> tuple[MlflowClient, str] | None:
    """A client and the run of an identity, if it exists; a missing database is not created for this search."""
    file = database_file(uri)
    if file and not file.exists():
        return None
    store = client(uri)
    found = store.get_experiment_by_name(experiment)
    run = find_run(store, found.experiment_id, identity) if found else None
    return (store, run.info.run_id) if run else None
