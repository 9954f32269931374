"""Serves MLflow's pages with all runs and fits, on this machine's loopback address only."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from shapelaw.errors import UserError
from shapelaw.extras import require
from shapelaw.verbs.doors import Command

USUAL_PORT = "5000"
PORTS = range(1, 65536)


def ui(words: Sequence[str]) -> None:
    """Become MLflow's server.

    Raises:
        UserError: for an invalid port, without MLflow, or before anything was tracked.
    """
    require("ui", "mlflow")
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # ten processes for evaluations of chat models
    os.execv(
        sys.executable, [sys.executable, *server(words, Path(os.environ.get("SHAPELAW_OUTPUTS", "outputs")).absolute())]
    )


def server(words: Sequence[str], outputs: Path) -> list[str]:
    """Arguments of the Python that serves MLflow.

    Args:
        words: the port, or none.
        outputs: folder of the database.
    """
    port = words[0] if words else USUAL_PORT
    if len(words) > 1 or not port.isdecimal() or int(port) not in PORTS:
        raise UserError(
            f"{' '.join(['ui', *words])}: takes one port and nothing else; allowed values are 1 to {PORTS[-1]}"
        )
    database = outputs / "mlflow.db"
    if not database.is_file():
        raise UserError(
            f"{database}: there is no such database yet; train some runs, or set SHAPELAW_OUTPUTS to their folder"
        )
    places = ["--backend-store-uri", f"sqlite:///{database}", "--default-artifact-root", str(outputs / "mlflow")]
    return ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1", *places]


COMMAND = Command("[PORT]", ui)
