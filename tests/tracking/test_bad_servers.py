"""Servers that answer badly, real ones on the loopback address: one true line each, within 10 s."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shapelaw.errors import UserError
from shapelaw.tracking import deliver_to, open_store, read_runs, server
from shapelaw.tracking.store import open_parent
from support import Script
from tracked import store_of, write_undelivered

SECONDS = 10.0
HTML = b"<!doctype html><title>Please log in</title>"
EXPERIMENT = {"experiment_id": "1", "name": "x", "lifecycle_stage": "active"}
ABSENT = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "there is none"}
Answer = tuple[int, dict[str, str], bytes]
Answers = Callable[[str], Answer]
"""The answer to the path of a request."""


def page(status: int, body: bytes = HTML, **headers: str) -> Answers:
    return lambda path: (status, headers, body)


def says(value: object, status: int = 200) -> Answers:
    return page(status, json.dumps(value).encode())


@contextlib.contextmanager
def serving(answers: Answers) -> Iterator[str]:
    """A server that gives these answers; its address."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = answers(self.path)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, form: str, *values: object) -> None:
            """Say nothing."""

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{served.server_address[1]}"
        finally:
            served.shutdown()


BAD = {
    "error 500": (page(500), "error code 500"),
    "error 503": (page(503, b""), "error code 503"),
    "an error in JSON": (says({"error_code": "INTERNAL_ERROR", "message": "x"}, 500), "error code 500"),
    "not found": (page(404), "error code 404"),
    "redirect": (
        page(302, Location="https://elsewhere.example/login"),
        "it redirects to https://elsewhere.example/login",
    ),
    "redirect to nowhere": (page(301), "it redirects to nowhere"),
    "a page": (page(200), "with a page, not with JSON"),
    "no JSON": (page(200, b"pong"), "with something that is not JSON"),
    "bytes": (page(200, bytes(range(256))), "with a"),
    "an empty body": (page(200, b""), "with an empty body"),
    "an empty object": (says({}), "JSON that is not MLflow's"),
    "a list": (says([1]), "JSON that is not MLflow's"),
    "null": (page(200, b"null"), "not JSON"),
    "a number": (says(3), "JSON that is not MLflow's"),
    "deep nesting": (page(200, b"[" * 100_000), "not JSON"),
    "wrong types": (says({"experiment": {**EXPERIMENT, "experiment_id": 7}}), "JSON that is not MLflow's"),
    "no id": (says({"experiment": {**EXPERIMENT, "experiment_id": ""}}), "JSON that is not MLflow's"),
    "no stage": (says({"experiment": {"experiment_id": "1"}}), "JSON that is not MLflow's"),
    "an error that is no text": (says({"error_code": 5}), "JSON that is not MLflow's"),
}


def refusal(tmp_path: Path, uri: str) -> str:
    with pytest.raises(UserError) as refused:
        open_store(uri, str(tmp_path), "tiny")
    said = str(refused.value)
    assert said.startswith(f"tracker.uri={uri}: ")
    assert "\n" not in said
    return said


@pytest.mark.parametrize(("answers", "word"), BAD.values(), ids=BAD)
def test_a_server_that_answers_badly_is_told_as_it_is(
    tmp_path: Path, answers: Answers, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PAUSE_SECONDS", 0.0)
    begun = time.monotonic()
    with serving(answers) as uri:
        said = refusal(tmp_path, uri)
    assert word in said
    assert "is not a healthy MLflow server" in said
    assert "deleted" not in said
    assert time.monotonic() - begun < SECONDS


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_lets_nobody_in_is_told_as_it_is(tmp_path: Path, status: int) -> None:
    with serving(page(status)) as uri:
        assert "refuses this user" in refusal(tmp_path, uri)


def _silent(connection: socket.socket) -> None:
    connection.recv(1)


def _dripping(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"X-Byte: 1\r\n")
            time.sleep(0.1)


def _closing(connection: socket.socket) -> None:
    connection.close()


def _endless(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n{")
        while True:
            connection.sendall(b" " * 65536)


@contextlib.contextmanager
def listening(behaviour: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose connections behave so."""
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(listener.accept()[0])
                    threading.Thread(target=behaviour, args=(kept[-1],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for connection in kept:
        connection.close()


@pytest.mark.parametrize(
    ("behaviour", "word"),
    [
        (_silent, "timed out"),
        (_dripping, "timed out"),
        (_closing, "cannot be reached"),
        (_endless, "with something that is not JSON"),
    ],
)
def test_a_server_that_says_nothing_or_without_end_is_given_up(
    tmp_path: Path, behaviour: Callable[[socket.socket], None], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.KNOCK_SECONDS + server.PAUSE_SECONDS < SECONDS
    monkeypatch.setattr(server, "KNOCK_SECONDS", 1.0)
    begun = time.monotonic()
    with listening(behaviour) as port:
        assert word in refusal(tmp_path, f"http://127.0.0.1:{port}")
    assert time.monotonic() - begun < 3.0


def test_a_database_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KNOCK_SECONDS", 0.5)
    with listening(_silent) as port:
        assert "timed out" in refusal(tmp_path, f"postgresql+psycopg://me@127.0.0.1:{port}/x")


def _worse_later(rest: Answers) -> Answers:
    """Answers the knock as MLflow does, and all that comes after it by others."""
    return lambda path: says({"experiment": EXPERIMENT})(path) if "experiment_name=Default" in path else rest(path)


@pytest.mark.parametrize(
    "rest",
    [
        page(500),
        page(200),
        page(200, b""),
        page(302, Location="http://127.0.0.1:9/"),
        says({"experiment": [1]}),
        says({"experiment": {**EXPERIMENT, "tags": 3}, "runs": 5, "run": "x"}),
        says({"runs": [], "next_page_token": "more"}),
    ],
)
def test_what_a_server_answers_later_is_no_traceback(tmp_path: Path, rest: Answers) -> None:
    with serving(_worse_later(rest)) as uri:
        for ask in (
            lambda: open_store(uri, str(tmp_path), "tiny", {"a": "b"}),
            lambda: open_parent(uri, "1", "identity", {"a": "b"}),
            lambda: read_runs(uri, "tiny"),
        ):
            with pytest.raises(UserError) as refused:
                ask()
            assert "\n" not in str(refused.value)


def test_pages_that_never_end_are_given_up(tmp_path: Path) -> None:
    def answers(path: str) -> Answer:
        return says({"experiment": EXPERIMENT, "runs": [], "next_page_token": "more"})(path)

    with serving(answers) as uri, pytest.raises(UserError, match="empty page of runs"):
        read_runs(uri, "tiny")


def test_what_is_left_of_a_run_stays_where_a_server_answers_badly(tmp_path: Path) -> None:
    write_undelivered(tmp_path, "a")
    with serving(page(200)) as uri:
        said = deliver_to(tmp_path / "a", store_of(uri, tmp_path))
    assert said is not None
    assert "with a page, not with JSON" in said


@pytest.mark.slow
def test_train_says_within_ten_seconds_that_nothing_answers(script: Script, outputs: Path) -> None:
    """Less what starting Python and importing MLflow takes, which a server that refuses shows."""
    with listening(_closing) as closing, listening(_silent) as silent:
        begun = time.monotonic()
        script("train.py", f"tracker.uri=http://127.0.0.1:{closing}", "progress=false")
        usual = time.monotonic() - begun
        begun = time.monotonic()
        done = script("train.py", f"tracker.uri=http://127.0.0.1:{silent}", "progress=false")
    assert (done.returncode, len(done.stderr.splitlines()), (outputs / "runs").exists()) == (2, 1, False)
    assert "timed out" in done.stderr
    assert time.monotonic() - begun - usual < SECONDS
