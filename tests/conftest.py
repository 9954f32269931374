"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the published runs and fits; without it (offline, no SHAPELAW_DATA_DIR) the test is skipped with a reason."""
    folder = os.environ.get("SHAPELAW_DATA_DIR")
    if not folder:
        pytest.skip("published data not at hand: set SHAPELAW_DATA_DIR or go online")
    path = Path(folder).resolve()
    assert path.is_dir(), f"SHAPELAW_DATA_DIR={folder} is no folder"
    return path
