"""The part of the Hugging Face hub's HTTP interface by which models are uploaded, on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE_BYTES = 10_000
"""From which a file goes by git's large file storage; the hub's own bound is higher, and our models are small."""


REFUSAL = "You have no right to write there"


class Hub(ThreadingHTTPServer):
    """Repositories of models: what was committed, branch by branch.

    Args:
        refuse: status of the answer to every request, in place of doing it.
    """

    daemon_threads = True

    def __init__(self, refuse: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refuse = refuse
        self.branches: dict[str, dict[str, dict[str, bytes]]] = {}
        self.large: dict[str, bytes] = {}
        self.private: dict[str, bool] = {}
        self.commits: list[tuple[str, str, str]] = []
        self.tokens: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def hub(refuse: int | None = None) -> Iterator[Hub]:
    """A running one."""
    with Hub(refuse) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *given: Any) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self._body()
        path = self.path.partition("?")[0]
        if self.server.refuse:
            return self._answer({"error": REFUSAL}, self.server.refuse)
        for command, pattern, act in _ROUTES:
            if command == self.command and (match := re.fullmatch(pattern, path)):
                # A place that is told for one upload needs no login, nor do the lists that the client looks up daily.
                if command != "PUT":
                    self.server.tokens.add(self.headers.get("Authorization"))
                return self._answer(*act(self.server, body, *match.groups()))
        return self._answer({"error": f"no such route: {self.command} {path}"}, 404)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(parts)

    def _answer(self, content: Any, status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status >= HTTPStatus.BAD_REQUEST:
            self.send_header("X-Error-Message", str(content["error"]))
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _create(server: Hub, body: bytes) -> tuple[Any, int]:
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    answer = {"url": f"{server.address}/{name}", "name": name}
    if name in server.branches:
        return {**answer, "error": "You already created this model repo"}, 409
    server.branches[name] = {"main": {".gitattributes": b""}}
    server.private[name] = asked.get("visibility") == "private" or bool(asked.get("private"))
    return answer, 200


def _validate(server: Hub, body: bytes) -> tuple[Any, int]:
    head = json.loads(body)["content"].startswith("---\n")
    return ({"errors": [], "warnings": []}, 200) if head else ({"error": "no metadata", "warnings": []}, 400)


def _branch(server: Hub, body: bytes, repo: str, name: str) -> tuple[Any, int]:
    if name in server.branches[repo]:
        return {"error": "Reference already exists"}, 409
    server.branches[repo][name] = dict(server.branches[repo]["main"])
    return {}, 200


def _preupload(server: Hub, body: bytes, repo: str, branch: str) -> tuple[Any, int]:
    held, files = server.branches[repo][branch], []
    for file in json.loads(body)["files"]:
        large = file["size"] >= LARGE_BYTES
        oid = _oid(held[file["path"]], large) if file["path"] in held else None
        mode = "lfs" if large else "regular"
        files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return {"files": files}, 200


def _oid(content: bytes, large: bool) -> str:
    """The name of a file's content: git's, or that of its large file storage."""
    if large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _batch(server: Hub, body: bytes, repo: str) -> tuple[Any, int]:
    objects = []
    for one in json.loads(body)["objects"]:
        href = f"{server.address}/large/{one['oid']}"
        new = {} if one["oid"] in server.large else {"actions": {"upload": {"href": href}}}
        objects.append({"oid": one["oid"], "size": one["size"], **new})
    return {"transfer": "basic", "objects": objects}, 200


def _upload(server: Hub, body: bytes, oid: str) -> tuple[Any, int]:
    if hashlib.sha256(body).hexdigest() != oid:
        return {"error": "another content"}, 400
    server.large[oid] = body
    return {}, 200


def _commit(server: Hub, body: bytes, repo: str, branch: str) -> tuple[Any, int]:
    held, summary = server.branches[repo][branch], ""
    for line in map(json.loads, body.splitlines()):
        value = line["value"]
        if line["key"] == "header":
            summary = value["summary"]
        elif line["key"] == "file":
            assert value["encoding"] == "base64"
            held[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            held[value["path"]] = server.large[value["oid"]]
    server.commits.append((repo, branch, summary))
    return {
        "commitUrl": f"{server.address}/{repo}/commit/{len(server.commits)}",
        "commitOid": f"{len(server.commits):040x}",
    }, 200


def _info(server: Hub, body: bytes, repo: str, branch: str) -> tuple[Any, int]:
    return {"id": repo, "sha": f"{len(server.commits):040x}"}, 200


_REPO = "([^/]+/[^/]+)"
_ROUTES = [
    ("POST", "/api/repos/create", _create),
    ("POST", "/api/validate-yaml", _validate),
    ("POST", f"/api/models/{_REPO}/branch/([^/]+)", _branch),
    ("POST", f"/api/models/{_REPO}/preupload/([^/]+)", _preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _batch),
    ("PUT", "/large/([0-9a-f]{64})", _upload),
    ("POST", f"/api/models/{_REPO}/commit/([^/]+)", _commit),
    ("GET", f"/api/models/{_REPO}/revision/([^/]+)", _info),
]
