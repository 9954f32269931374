"""The first request to a store on the network, before MLflow's client sends any.

If nothing answers, that client tries for a minute, and it takes an empty answer for an experiment without a name. So code that
opens a store knocks first: within KNOCK_SECONDS it knows whether a database or an MLflow server answers, and if not, what does.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

KNOCK_SECONDS = 8.0
EXPERIMENT = "/api/2.0/mlflow/experiments/get-by-name"
MAX_BYTES = 2**20
"""Most bytes of an answer to read."""
TRANSIENT = {429, 500, 502, 503, 504}
"""Status codes after which the request is repeated."""
PAUSE_SECONDS = 0.5
NOT_MLFLOWS = "it answers with JSON that is not MLflow's"
STAGES = ("active", "deleted")


class ServerFault(OSError):
    """A server that is not MLflow, or not healthy, answered; the message describes its answer."""


@dataclass
class _Outcome:
    """The outcome of a call in another thread."""

    errors: list[BaseException] = field(default_factory=list)


def knock_database(uri: str) -> None:
    """Connect to a database once.

    Raises:
        SQLAlchemyError, OSError: if this fails, or takes longer than KNOCK_SECONDS.
    """
    from sqlalchemy import create_engine

    def connect() -> None:
        engine = create_engine(uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()

    _in_time(connect)


def knock_server(uri: str) -> None:
    """Ask an MLflow server for an experiment; any answer of MLflow suffices.

    Raises:
        ServerFault: for any other answer.
        OSError: if there is none, or none within KNOCK_SECONDS.
    """
    _in_time(lambda: _check(uri))


def _in_time(call: Callable[[], None]) -> None:
    """Call it in a thread and wait no longer than KNOCK_SECONDS: no timeout ends an answer that arrives byte by byte."""
    outcome = _Outcome()

    def tried() -> None:
        try:
            call()
        except Exception as error:
            outcome.errors.append(error)

    thread = threading.Thread(target=tried, name="knock", daemon=True)
    thread.start()
    thread.join(KNOCK_SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"timed out: no answer within {KNOCK_SECONDS:g} s")
    if outcome.errors:
        raise outcome.errors[0]


def _check(uri: str) -> None:
    status, location, body = _asked(uri)
    if status in TRANSIENT:
        time.sleep(PAUSE_SECONDS)
        status, location, body = _asked(uri)
    if fault := fault_of(status, location, body):
        raise ServerFault(fault)


def _asked(uri: str) -> tuple[int, str, bytes]:
    """Status, target of a redirection, and the beginning of the body."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    options: dict[str, Any] = {"max_retries": 0, "raise_on_status": False, "timeout": KNOCK_SECONDS, "stream": True}
    try:
        answer = http_request(  # type: ignore[no-untyped-call]
            get_default_host_creds(uri),  # type: ignore[no-untyped-call]
            EXPERIMENT,
            "GET",
            params={"experiment_name": "Default"},
            allow_redirects=False,
            **options,
        )
    except MlflowException as error:  # raised for a failed connection
        raise error.__cause__ if isinstance(error.__cause__, OSError) else error from None
    with answer:
        body = answer.raw.read(MAX_BYTES, decode_content=True)
    return answer.status_code, answer.headers.get("Location", ""), body


def fault_of(status: int, location: str, body: bytes) -> str | None:
    """The fault in an answer to the request for an experiment; None for answers of an MLflow server.

    >>> fault_of(200, "", b"")
    'it answers with an empty body'
    """
    if 300 <= status < 400:
        return f"it redirects to {location[:200] or 'nowhere'}"
    content = _json(body)
    if isinstance(content, dict) and isinstance(content.get("error_code"), str) and status not in (401, *TRANSIENT):
        return None  # the experiment is missing, or this user may not see it
    if status != 200:
        return f"it answers with error code {status}"
    if not body.strip():
        return "it answers with an empty body"
    if content is None:
        return (
            "it answers with a page, not with JSON"
            if b"<" in body[:200]
            else "it answers with something that is not JSON"
        )
    return None if _is_experiment(content) else NOT_MLFLOWS


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _is_experiment(content: Any) -> bool:
    found = content.get("experiment") if isinstance(content, dict) else None
    return (
        isinstance(found, dict)
        and isinstance(found.get("experiment_id"), str)
        and found["experiment_id"] != ""
        and found.get("lifecycle_stage") in STAGES
    )
