"""Empty databases of MLflow: a process makes its first one by MLflow's migrations, which take seconds, and copies it then."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from types import ModuleType

from sqlalchemy import Engine, create_engine


class Copied:
    """In the place of MLflow's function that makes the tables of an empty database.

    Args:
        make: that function.
    """

    def __init__(self, make: Callable[[Engine], None]) -> None:
        self._make = make
        self._whole: bytes | None = None

    def __call__(self, engine: Engine) -> None:
        """Make them; SQLite's are copied, once there are any."""
        if engine.dialect.name != "sqlite":
            return self._make(engine)
        with closing(engine.raw_connection()) as ours, closing(sqlite3.connect(":memory:")) as whole:
            if self._whole:
                whole.deserialize(self._whole)
                whole.backup(ours.driver_connection)
                return None
        self._make(engine)
        with closing(engine.raw_connection()) as ours:
            self._whole = ours.driver_connection.serialize()
        return None


def copy_from_now_on(utils: ModuleType) -> None:
    """Of `mlflow.store.db.utils`."""
    if not isinstance(utils._initialize_tables, Copied):
        utils._initialize_tables = Copied(utils._initialize_tables)


def make_one(utils: ModuleType) -> None:
    """So that processes which are forked from this one have one to copy."""
    copy_from_now_on(utils)
    engine = create_engine("sqlite://")
    utils._initialize_tables(engine)
    engine.dispose()
