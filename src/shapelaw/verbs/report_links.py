"""Where a report's runs and fits lie in MLflow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shapelaw.config import ReportConfig
from shapelaw.errors import Damaged, UserError
from shapelaw.files import read_sealed
from shapelaw.fitting.result import FitResult, load_fit
from shapelaw.report.content import FitRow
from shapelaw.runs import RunsTable
from shapelaw.verbs.fit import EXPERIMENT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Links:
    """Addresses of MLflow's pages.

    Args:
        run: address of a training run, with `{run}` for its id; empty for none.
        fit: identity of a fit -> the address of its run.
    """

    run: str = ""
    fit: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, asked: ReportConfig) -> Links:
        """Addresses for the report's experiment; none if its runs come from elsewhere, or no pages are named."""
        base, runs = asked.mlflow_ui.rstrip("/"), asked.runs
        if not base or runs.source != "mlflow" or runs.uri is None or runs.experiment is None:
            return cls()
        from shapelaw.tracking import places

        trained, _ = places(runs.uri, runs.experiment, "train")
        fits, found = places(runs.uri, EXPERIMENT, "fit")
        return cls(
            f"{base}/#/experiments/{trained}/runs/{{run}}",
            {identity: f"{base}/#/experiments/{fits}/runs/{run}" for identity, run in found.items()},
        )

    def fits(self, asked: ReportConfig, runs: RunsTable) -> list[FitRow]:
        """Fits under outputs/fits whose rows have the same source as these runs, with their addresses, the newest first.

        Raises:
            Damaged: if one was changed after it was written.
        """
        source, rows = runs.about.get("source"), []
        files = sorted((Path(asked.outputs_dir) / "fits").glob("*/fit.json"), key=lambda path: -path.stat().st_mtime)
        for path in files if source else ():
            fit = _usable(path)
            if fit is not None and fit.checklist.get("data", {}).get("source") == source:
                rows.append(FitRow(path.parent.name, fit, self.fit.get(path.parent.name.rsplit("-", 1)[-1], "")))
        return rows


def published(asked: ReportConfig, page: Path) -> str:
    """Keep the page in the store of its runs, linked from their experiment, if this store records our own work. Returns the
    address of the page there, or nothing. An error of the store is reported, and costs only the link."""
    runs = asked.runs
    ours = asked.tracker.in_mlflow and runs.source == "mlflow" and runs.uri == asked.tracker.uri and not runs.columns
    if not ours or runs.uri is None or runs.experiment is None:
        return ""
    from shapelaw.tracking import Store, publish

    try:
        address = publish(Store(runs.uri, asked.tracker.artifacts, runs.experiment), page)
    except (UserError, OSError) as error:
        log.warning("note: MLflow does not have the page: %s", error)
        return ""
    return f"{asked.mlflow_ui.rstrip('/')}/{address}"


def check_fits(folder: Path) -> None:
    """Refuse a damaged fit, because a page without it would seem to show all fits.

    Raises:
        Damaged: if one was changed after it was written.
    """
    for path in folder.glob("*/fit.json"):
        try:
            read_sealed(path)
        except Damaged as error:
            raise Damaged(f"{error}; or remove {path.parent}, or give page=false") from error


def _usable(path: Path) -> FitResult | None:
    """A fit; None, with a message, if this program cannot use it, for example because its law's file was changed.

    Raises:
        Damaged: if it was changed after it was written.
    """
    try:
        return load_fit(path)
    except Damaged:
        raise
    except UserError as error:
        log.warning("note: the page leaves out a fit: %s", error)
        return None
