"""The public suites of tournament.yaml as runs tables, with their splits, for the benchmarks that fit and predict them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from shapelaw import RunsTable, load_runs
from shapelaw.runs.fetch import local_folder

HERE = Path(__file__).parent
SPLITS = HERE / "tournament.yaml"


@dataclass(frozen=True)
class Task:
    """One split of one suite."""

    suite: str
    train: RunsTable
    test: RunsTable
    split: str

    @property
    def name(self) -> str:
        """Suite and what is predicted."""
        return f"{self.suite}: {self.split}"


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The arguments of every benchmark on these suites."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else None)
    parser.add_argument("--suite", default="", help="part of the names of suites that are tried")
    parser.add_argument("--splits", type=Path, default=SPLITS, help="another file like tournament.yaml")
    parser.add_argument("--delta", type=float, default=1e-3)
    return parser


def tasks(path: Path = SPLITS, only: str = "") -> Iterator[Task]:
    """Every split of every suite that is there; those whose file is missing are named and passed over.

    Args:
        path: a file like tournament.yaml.
        only: part of the names that are wanted.
    """
    for suite, entry in yaml.safe_load(path.read_text()).items():
        if only not in suite:
            continue
        table = _table(suite, entry)
        if table is None:
            continue
        for split in entry["splits"]:
            told = f"{split['train']} -> {split['test']}"
            yield Task(suite, table.select(split["train"]), table.select(split["test"]), told)


def _table(suite: str, entry: Mapping[str, Any]) -> RunsTable | None:
    if "source" in entry:
        table = load_runs(entry["source"], subset=entry.get("subset"))
    else:
        folder = local_folder()
        file = None if folder is None else folder / entry["file"]
        if file is None or not file.is_file():
            print(
                f"{suite}: {entry['file']} is not in SHAPELAW_DATA_DIR={os.environ.get('SHAPELAW_DATA_DIR')}: left out"
            )
            return None
        table = _read(file, entry)
    return table.select(entry["where"]) if entry.get("where") else table


def _read(file: Path, entry: Mapping[str, Any]) -> RunsTable:
    """Rows of a CSV under canonical names; rows without a value in any of them are left out."""
    raw = pd.read_csv(file)
    for name, value in entry.get("only", {}).items():
        raw = raw[raw[name] == value]
    frame = (
        pd.DataFrame({ours: raw[theirs] for ours, theirs in entry["columns"].items()}).dropna().reset_index(drop=True)
    )
    frame["run"] = frame["run"].astype(str) if "run" in frame else [str(i) for i in range(len(frame))]
    factors = {name: {"K": 1e3, "M": 1e6, "B": 1e9}.get(unit, unit) for name, unit in entry.get("units", {}).items()}
    return RunsTable(frame.assign(**{name: frame[name] * float(factor) for name, factor in factors.items()}))
