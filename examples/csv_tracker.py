"""A tracker of one's own: all runs of a machine in one folder, a CSV file each.

    shapelaw train tracker=examples/csv_tracker.py:CsvTracker +tracker.options.folder=losses

It is called with what a run is, the run's folder and the options, once for each attempt. Its calls come from a thread of their
own, so no step waits for them; after an error the same call is made again.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

from shapelaw.tracking import RunInfo


class CsvTracker:
    """Appends a row for each metric to FOLDER/IDENTITY.csv."""

    def __init__(self, info: RunInfo, run_folder: Path, folder: str = "losses") -> None:
        self.path = Path(folder) / f"{info.identity}.csv"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def log(self, metrics: Mapping[str, float], tokens: int) -> None:
        """Metrics after so many tokens."""
        self._append(*([tokens, name, value] for name, value in metrics.items()))

    def rewind(self, number: int, tokens: int, metrics: Mapping[str, float]) -> None:
        """The run went back to so many tokens; a tracker may leave this out, and `tag(tags)` and `artifact(path)`."""
        self._append([tokens, "rewind", number])

    def finish(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""
        self._append(["", "status", status])

    def _append(self, *rows: list[object]) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(rows)
