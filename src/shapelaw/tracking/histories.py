"""Histories of metrics of many runs, in few queries; with the descriptions of the runs, they make up a runs table.

A database file is queried directly, read-only; any other store by its API, with many runs per request if it allows that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shapelaw.tracking import database
from shapelaw.tracking.addresses import SERVERS, database_file, kind_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

READERS = 8
"""Requests at once."""
RUNS_OF_A_REQUEST = 80
"""MLflow accepts 100; the URL of a request for 80 stays within the 4,094 bytes that gunicorn allows."""
VALUES_OF_A_REQUEST = 25_000
"""The most values in MLflow's answer; a longer answer is cut within the last of its runs."""
BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"


class Value(NamedTuple):
    """One value of a metric.

    Args:
        tokens: tokens that the run had seen.
        time: time of recording, in milliseconds; of two values at the same tokens, the later one counts.
        value: the value.
    """

    tokens: int
    time: int
    value: float


Place = tuple[str, str]
"""Run id and metric."""
Histories = Mapping[Place, Sequence[Value]]
"""Values in the order of tokens, then time."""


def histories(uri: str, store: MlflowClient, run_ids: Sequence[str], keys: Sequence[str]) -> Histories:
    """All values of some metrics of some runs."""
    file = database_file(uri)
    return by_sql(file, run_ids, keys) if file else by_interface(store, run_ids, keys)


def by_sql(path: Path, run_ids: Sequence[str], keys: Sequence[str]) -> Histories:
    """From a database file, read-only and verified; the columns of MLflow's table `metrics` are unchanged since version 1."""
    found: dict[Place, list[Value]] = {}
    for run_id, key, step, time, value in database.history(path, run_ids, keys):
        number = float("nan") if value is None else value
        found.setdefault((run_id, key), []).append(Value(step, time, number))
    return found


def by_interface(store: MlflowClient, run_ids: Sequence[str], keys: Sequence[str]) -> Histories:
    """From any store: many runs per request, then one by one for those without an answer."""
    starts = range(0, len(run_ids), RUNS_OF_A_REQUEST)
    blocks = [(key, run_ids[start : start + RUNS_OF_A_REQUEST]) for key in keys for start in starts]
    found: dict[Place, Sequence[Value]] = {}
    with ThreadPoolExecutor(READERS) as readers:
        for part in readers.map(lambda block: _of_block(store, *block), blocks):
            found |= part
        left = [place for place in ((run_id, key) for run_id in run_ids for key in keys) if place not in found]
        return found | dict(zip(left, readers.map(lambda place: _alone(store, *place), left), strict=True))


def _alone(store: MlflowClient, run_id: str, key: str) -> list[Value]:
    return sorted(Value(m.step, m.timestamp, m.value) for m in store.get_metric_history(run_id, key))


def _of_block(store: MlflowClient, key: str, run_ids: Sequence[str]) -> dict[Place, list[Value]]:
    """The histories of one metric that requests for many runs answer completely."""
    found: dict[Place, list[Value]] = {}
    left = set(run_ids) if len(run_ids) > 1 else set[str]()
    while left and (rows := _many(store, key, sorted(left))) is not None:
        cut = rows[-1][0] if len(rows) >= VALUES_OF_A_REQUEST else None
        answered = left if cut is None else {run_id for run_id, _ in rows} - {cut}
        if not {run_id for run_id, _ in rows} <= left:
            break  # the answer is for another request
        parts: dict[str, list[Value]] = {run_id: [] for run_id in answered}
        for run_id, value in rows:
            parts.setdefault(run_id, []).append(value)
        found |= {(run_id, key): sorted(values) for run_id, values in parts.items() if run_id != cut}
        left = left - answered - {cut}
    return found


def _many(store: MlflowClient, key: str, run_ids: Sequence[str]) -> list[tuple[str, Value]] | None:
    """Run by run the values of a metric, at most VALUES_OF_A_REQUEST; None if the store has no such request."""
    if kind_of(store.tracking_uri) in SERVERS:
        return _by_rest(store.tracking_uri, key, run_ids)
    ask = getattr(store._tracking_client.store, "get_metric_history_bulk", None)
    if ask is None:
        return None
    answer = ask(run_ids, key, VALUES_OF_A_REQUEST)
    return [(m.run_id, Value(m.step, m.timestamp, m.value)) for m in answer]


def _by_rest(uri: str, key: str, run_ids: Sequence[str]) -> list[tuple[str, Value]] | None:
    """By the request that MLflow's own pages use for their charts; None for an answer that does not match it."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    params = {"run_id": list(run_ids), "metric_key": key, "max_results": VALUES_OF_A_REQUEST}
    creds = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    answer = http_request(creds, BULK, "GET", params=params, raise_on_status=False)  # type: ignore[no-untyped-call]
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        if answer.status_code == 200:
            rows = answer.json()["metrics"]
            return [(m["run_id"], Value(int(m["step"]), int(m["timestamp"]), float(m["value"]))) for m in rows]
    return None
