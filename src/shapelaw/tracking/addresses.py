"""Addresses of tracking stores: the kinds that are supported, and the checks before any connection."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

from shapelaw.errors import UserError
from shapelaw.secrets import hidden, refuse_password

SQLITE = "sqlite:///"
DATABASES = ("postgresql", "mysql", "mssql")
SERVERS = ("http", "https")
PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""A database driver's module -> the package that installs it ready to use; the others are named like their module."""


def database_file(uri: str) -> Path | None:
    """The file of a SQLite database; None for every other store."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def kind_of(uri: str) -> str:
    """sqlite, postgresql, ..., http or https: the scheme without its driver."""
    return urlparse(uri).scheme.split("+")[0]


def check_uri(uri: str) -> None:
    """Refuse an invalid tracking URI, one with a password, and a database whose driver is not installed.

    Raises:
        UserError: naming what is allowed, or what to install.
    """
    refuse_password("tracker.uri", uri)
    kind = kind_of(uri)
    if kind in ("", "file"):
        raise UserError(
            f"tracker.uri={uri}: MLflow no longer serves folders of files; convert it to a database with `mlflow "
            "migrate-filestore --source FOLDER --target sqlite:///mlflow.db`, and give sqlite:///mlflow.db"
        )
    if kind not in ("sqlite", *DATABASES, *SERVERS):
        raise UserError(
            f"tracker.uri={uri}: "
            "allowed values are sqlite:///FILE, another database's URI, or http(s)://HOST:PORT of an MLflow server"
        )
    if kind in DATABASES:
        _check_driver(uri)


def _check_driver(uri: str) -> None:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(uri).get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        package = PACKAGES.get(str(error.name), str(error.name))
        raise UserError(
            f"tracker.uri={uri}: its driver, the module {error.name}, is not installed; run: pip install '{package}'"
        ) from error
    except (ArgumentError, ValueError) as error:  # an unknown driver, or a port that is not a number
        raise UserError(f"tracker.uri={uri}: {hidden(str(error))}; give DATABASE://USER@HOST:PORT/NAME") from error
