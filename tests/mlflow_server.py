"""A real MLflow server on the loopback address, that tests start, kill and start again; and a gate that asks for a password."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class MlflowServer:
    """A server over a database and a folder for artifacts, always at the same port.

    Args:
        folder: of the database, the artifacts and the server's log.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"
        self.database = folder / "server.db"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        options = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--workers": "1",
            "--backend-store-uri": f"sqlite:///{self.database}",
            "--artifacts-destination": str(self.folder / "artifacts"),
        }
        command = [sys.executable, "-m", "mlflow", "server", *(word for pair in options.items() for word in pair)]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # ten processes that nobody asks for
        with (self.folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return
            time.sleep(0.2)
        raise AssertionError(f"the MLflow server did not come up: {(self.folder / 'server.log').read_text()[-2000:]}")

    def kill(self) -> None:
        """End it and its workers without a word."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)


@contextlib.contextmanager
def gate(port: int, user: str, password: str) -> Iterator[int]:
    """A port of the loopback address that hands requests on to another one, if they come with a user's password."""
    expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Gate(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def hand_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != expected:
                return self.answer(401, [], b"give a password")
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as inner:
                inner.request(self.command, self.path, body, {**self.headers, "Host": f"127.0.0.1:{port}"})
                got = inner.getresponse()
                kept = [(key, value) for key, value in got.getheaders() if key.lower() == "content-type"]
                return self.answer(got.status, kept, got.read())

        def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for key, value in [*headers, ("Content-Length", str(len(body)))]:
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, form: str, *values: object) -> None:
            """Say nothing."""

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = hand_on

    with ThreadingHTTPServer(("127.0.0.1", 0), Gate) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield served.server_address[1]
        served.shutdown()
