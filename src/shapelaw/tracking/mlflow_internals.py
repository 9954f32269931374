"""The private part of MLflow that is computed once a process here: which schema of a database is the newest.

For every client of a database MLflow loads all of its migrations, some fifty files, to learn the name of the last one. It
cannot change while a process lives. A process from which others are forked imports this module, and they find the answer.
tests/tracking/test_tracker.py fails when this part changes.
"""

from __future__ import annotations

from functools import cache

from mlflow.store.db import utils

if hasattr(utils, "_get_latest_schema_revision"):
    utils._get_latest_schema_revision = cache(utils._get_latest_schema_revision)
    utils._get_latest_schema_revision()
