"""Stores of the tracking tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_server import MlflowServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Iterator[MlflowServer]:
    """A real MLflow server on the loopback address, not started yet; killed at the end."""
    made = MlflowServer(tmp_path_factory.mktemp("server"))
    shutil.copy(template, made.database)
    yield made
    made.kill()
