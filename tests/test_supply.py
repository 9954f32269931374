"""The check of the lock files, against an index of our own."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support import ROOT

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
WHEEL = "part-1.0-py3-none-any.whl"
pytestmark = pytest.mark.skipif(UV is None, reason="uv is not installed: make setup LOCKED=yes")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A package index with one wheel: its folder and its address."""
    folder = tmp_path / "index" / "part"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("part-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: part\nVersion: 1.0\n")
        wheel.writestr("part-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("part-1.0.dist-info/RECORD", "")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def checked(index: tuple[Path, str], tmp_path: Path, *, link: str) -> tuple[int, str]:
    """Exit code and words of the check of a lock that names the wheel, where the index has this link."""
    folder, address = index
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>")
    digest = hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()
    lock = tmp_path / "some.lock"
    lock.write_text(f"part==1.0 --hash=sha256:{digest}\n")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("UV_")},
        **{"UV": str(UV), "VENV": str(Path(sys.executable).parent.parent)},
        **{"UV_DEFAULT_INDEX": address, "UV_CACHE_DIR": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1"},
    }
    done = subprocess.run(
        [ROOT / "scripts" / "check_lock.sh", lock], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def test_a_lock_is_refused_once_a_package_is_yanked_or_removed(index: tuple[Path, str], tmp_path: Path) -> None:
    link = f'<a href="{WHEEL}">{WHEEL}</a>'
    assert checked(index, tmp_path, link=link) == (0, "")
    code, said = checked(index, tmp_path, link=link.replace("<a ", '<a data-yanked="unsafe" '))
    assert (code, 'part==1.0` is yanked (reason: "unsafe")' in said) == (1, True), said
    code, said = checked(index, tmp_path, link="")
    assert (code, "part" in said) == (1, True), said
