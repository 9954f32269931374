"""Passwords in URIs are refused before anything is written, and never repeated; the environment's are used."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest
from sqlalchemy import make_url

from shapelaw.config.schema import to_dataclass
from shapelaw.errors import UserError
from shapelaw.secrets import connectable, hidden, without_password
from shapelaw.sweep.settings import SearchSettings
from shapelaw.tracking import open_store
from shapelaw.verbs.main import main
from support import Compose, Script

SECRET = "planted-91f3"
WITH = [
    f"postgresql://me:{SECRET}@host/db",
    f"postgresql+psycopg2://me:{SECRET}@host:5432/db?sslmode=require",
    f"mysql+pymysql://:{SECRET}@host/db",
    f"https://me:{SECRET}@host:5000/mlflow",
    f"https://me:a%2F{SECRET}@host",
    f"http://me:{SECRET}@ho@st/x",
    f"postgresql://me@host/db?password={SECRET}",
    f"postgresql://me@host/db?sslmode=require&sslpassword={SECRET}&connect_timeout=3",
]
WITHOUT = [
    "sqlite:////work/a:b@c/mlflow.db",
    "sqlite:///outputs/mlflow.db",
    "http://127.0.0.1:5000",
    "http://host:5000/users/@me",
    "https://me@host:5000/x",
    "postgresql://me@host:5432/db?sslmode=require",
    "a sentence: with no address @ all",
]


@pytest.mark.parametrize("uri", WITH)
def test_a_password_is_found_and_the_rest_kept(uri: str) -> None:
    """What is left of the URI, as SQLAlchemy reads it."""
    named, whole = make_url(without_password(uri)), make_url(uri)
    assert SECRET not in str(named.render_as_string(hide_password=False)) + hidden(f"connecting to '{uri}' failed")
    assert named.password is None
    assert (named.drivername, named.database, named.port) == (whole.drivername, whole.database, whole.port)
    left = {key: value for key, value in whole.query.items() if value != SECRET}
    assert dict(named.query) == left


@pytest.mark.parametrize("uri", WITHOUT)
def test_what_holds_no_password_stays_as_it_is(uri: str) -> None:
    assert without_password(uri) == hidden(uri) == uri


def test_the_environment_s_address_is_used_for_its_own_uri_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for whole in WITH:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", whole)
        assert connectable(without_password(whole)) == whole
        assert connectable("postgresql://me@other/db") == "postgresql://me@other/db"


@pytest.mark.parametrize(
    ("script", "key"),
    [
        ("train", "tracker.uri"),
        ("fit", "runs.uri"),
        ("report", "mlflow_ui"),
        ("train", "data.path"),
        ("train", "+validation.further.a"),
    ],
)
def test_no_option_takes_a_password(composed: Compose, script: str, key: str) -> None:
    with pytest.raises(UserError, match=key.lstrip("+").replace(".", r"\.")) as refused:
        to_dataclass(composed(f"{key}='{WITH[0]}'", name=script))
    assert SECRET not in str(refused.value)
    assert f"{key.lstrip('+')}=postgresql://me@host/db" in str(refused.value)


def test_nor_does_what_is_no_option_of_a_script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="OPTUNA_STORAGE") as refused:
        SearchSettings(storage=WITH[0])
    monkeypatch.setattr("sys.argv", ["replay", f"folders=[{tmp_path}]", f"uri='{WITH[0]}'"])
    with pytest.raises(SystemExit) as ended:
        main("replay")
    assert ended.value.code == 2
    said = capsys.readouterr()
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI") as unopened:
        open_store(WITH[0], str(tmp_path), "tiny")
    assert SECRET not in f"{refused.value} {unopened.value} {said}"
    assert not list(tmp_path.iterdir())


def test_what_a_store_says_is_told_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow itself repeats the whole address of a server that talks nonsense."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        threading.Thread(target=_talk_nonsense, args=(server,), daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@{address}")
        with pytest.raises(UserError, match="cannot be reached") as said:
            open_store(f"http://me@{address}", str(tmp_path), "tiny")
    assert SECRET not in str(said.value)
    assert "(the server there does not speak HTTP)" in str(said.value)


def _talk_nonsense(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            with server.accept()[0] as asked:
                asked.recv(2**16)
                asked.sendall(b"nonsense\r\n\r\n")


def test_a_sweep_with_a_password_is_refused_in_one_line(script: Script, outputs: Path) -> None:
    done = script("train.py", "-m", "seed=1,2", f"tracker.uri={WITH[0]}", "tracker.when_unreachable=spool")
    assert (done.returncode, outputs.exists()) == (2, False), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "give tracker.uri=postgresql://me@host/db and the whole address in the environment variable" in done.stderr
    assert SECRET not in done.stdout + done.stderr
