"""The private part of MLflow that this module computes once per process: the newest schema of a database.

For every client of a database MLflow loads all of its migrations, some fifty files, to learn the name of the last one. That
name cannot change while a process lives. A process that forks others imports this module first, so that they inherit the
name. tests/tracking/test_tracker.py fails when this part changes.
"""

from __future__ import annotations

from functools import cache

from mlflow.store.db import utils

if hasattr(utils, "_get_latest_schema_revision"):
    utils._get_latest_schema_revision = cache(utils._get_latest_schema_revision)
    utils._get_latest_schema_revision()
