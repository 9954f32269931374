"""The page of a large experiment: 500 runs of a week each, 2e5 steps validated every 477, with 1,000 refits. CPU seconds,
megabytes, and the same with three validations a run.

    python benchmarks/load.py
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from shapelaw.counting import params_total
from shapelaw.fitting.fit import fit
from shapelaw.prescribe import Problem
from shapelaw.report import FitRow, Report, write
from shapelaw.runs.table import RunsTable

RUNS, STEPS, EVERY, REFITS = 500, 200_000, 477, 1000
SHAPES = ((256, 23), (512, 12), (768, 45), (1024, 28), (1792, 18), (2048, 27))


def runs(validations: int) -> RunsTable:
    """Runs of six shapes whose losses follow a law, with so many validations each."""
    number = np.repeat(np.arange(RUNS), validations)
    width, depth = (np.array(sizes)[number % len(SHAPES)] for sizes in zip(*SHAPES, strict=True))
    tokens = 2.0**22 * EVERY * np.tile(np.arange(1, validations + 1), RUNS) * (STEPS / EVERY / validations)
    params = params_total(width, depth, 50_304)
    loss = 1.4 + 3 * width**-0.3 + 2 * depth**-0.8 + 100 / params**0.3 + 400 / tokens**0.3
    names = pd.Series(number).map("run{:03d}".format)
    sizes = {"width": width, "depth": depth, "params": params, "vocab_size": 50_304, "lr_base": 5.0}
    return RunsTable(pd.DataFrame({"run": names, "tokens": tokens, "loss": loss, **sizes}))


def page(folder: Path) -> None:
    """Write the page of few and of many validations; the fit is the same."""
    few, many = runs(3), runs(STEPS // EVERY)
    found = fit(few, law="interaction", bootstrap={"n": REFITS})
    for table in (few, many):
        start = time.process_time()
        made = Report("load", folder / "page", Problem.of(found, table), 1e21, table, [FitRow("main", found, "")])
        path = write(made)
        spent, size = time.process_time() - start, path.stat().st_size / 1e6
        print(
            f"page of {RUNS} runs, {len(table.frame):,} validations, {REFITS} refits: {spent:.1f} CPU s, {size:.2f} MB"
        )


def main() -> None:
    """Print the figures."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        page(Path(name))


if __name__ == "__main__":
    main()
