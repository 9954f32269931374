"""A real PostgreSQL server on the loopback address that asks for a password; tests start, stop and start it again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

REQUIRED = "SHAPELAW_REQUIRE_POSTGRESQL"
USER, PASSWORD = "me", "planted-pg-5c1d"


def programs() -> Path:
    """Folder of PostgreSQL's programs; without them the test is skipped, or fails where they are required."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    named = shutil.which("initdb") or (found and found[-1])
    if not named:
        reason = "no PostgreSQL server (Debian: apt-get install postgresql)"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED}=1, but there is {reason}")
        pytest.skip(reason)
    return Path(named).resolve().parent


class PostgresqlServer:
    """A server over a cluster of its own, always at the same port; it refuses root and runs as Debian's user postgres then."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._programs, self._user = programs(), "postgres" if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if self._user:
            for path in (self.folder, secret):
                shutil.chown(path, self._user)
        self._run(
            "initdb", "-D", str(self.folder / "data"), "-A", "scram-sha-256", "-U", USER, f"--pwfile={secret}", "-N"
        )
        secret.unlink()

    def uri(self, database: str, password: bool = False) -> str:
        """Address of a database, without its password or with it."""
        return f"postgresql://{USER}{f':{PASSWORD}' if password else ''}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._run(
            "pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", str(self.folder / "log"), "-o", options, "start"
        )

    def kill(self) -> None:
        """End it at once: connections break, nothing is tidied up."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")

    def make(self, database: str) -> None:
        """An empty database."""
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-U", USER)
        self._run("createdb", *address, database, PGPASSWORD=PASSWORD)

    def close(self) -> None:
        """Stop it and remove what it left."""
        if (self.folder / "data" / "postmaster.pid").exists():
            self.kill()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str, **environment: str) -> None:
        with (self.folder / f"{program}.log").open("a+") as log:  # a pipe would stay open as long as the server
            done = subprocess.run(
                [str(self._programs / program), *arguments],
                user=self._user,
                cwd=self.folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=100,
            )
            log.seek(0)
            assert done.returncode == 0, log.read()[-2000:]
