"""Do the intervals hold? Coverage, width and interval score of both kinds on the public suites, as in docs/intervals.md.

    python benchmarks/coverage.py [--n 200] [--law auto] [--suite NAME] [--figure docs/images/coverage.png]

Every split of tournament.yaml: fitted on the left, its 90% intervals compared with the held-out losses. The interval score of
Gneiting and Raftery (2007), width + 2/(1 - level) times the distance of what lies outside, is in percent of the loss; lower is
better. The table of factors tells what the interval of a new run would be with the factor of other axes of the rolling
hold-out, or with none; the column of the lowest suite is its coverage. The last line is the width that intervals about the same
predictions need at least: 90% of each task's errors, known afterwards, to either side.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import pandas as pd

from shapelaw import FitResult, RunsTable, fit
from suites import Task, arguments, tasks

KINDS = ("mean", "new_run")
FORMS = {
    "none": (),
    "params": ("params",),
    "tokens": ("tokens",),
    "compute": ("compute",),
    "params, tokens": ("params", "tokens"),
    "params, tokens, compute": ("params", "tokens", "compute"),
}
"""Axes whose largest factor widens the interval of a new run; the last is what a fit does."""
LEVEL = 0.9


def main() -> None:
    """Print the tables as Markdown, and draw the picture where one is asked for."""
    parser = arguments(__doc__)
    parser.add_argument("--n", type=int, default=200, help="refits")
    parser.add_argument("--law", default="auto")
    parser.add_argument("--figure", type=Path, default=None, help="where the picture is written")
    asked = parser.parse_args()
    started = time.process_time()
    found = pd.DataFrame([_measured(task, asked) for task in tasks(asked.splits, asked.suite)])
    print(_table(found, "task"))
    print(_table(found.groupby("suite", sort=False).mean(numeric_only=True).reset_index(), "suite"))
    print(_forms(found))
    print(_overall(found))
    print(f"({len(found)} tasks, {time.process_time() - started:.0f} CPU-seconds)")
    if asked.figure:
        draw(found, asked.figure)


def _measured(task: Task, asked: argparse.Namespace) -> dict[str, object]:
    result = fit(task.train, law=asked.law, delta=asked.delta, bootstrap={"n": asked.n, "level": LEVEL})
    row: dict[str, object] = {
        "task": task.name,
        "suite": task.suite.split("_")[0],
        "law": result.law,
        "rows": len(task.test),
    }
    for kind in KINDS:
        row |= {f"{name} {kind}": value for name, value in _scores(result, task.test, kind).items()}
    for form, axes in FORMS.items():
        factors = [result.new_run.get("factors", {}).get(axis, 1.0) for axis in axes]
        other = dataclasses.replace(result, new_run={**result.new_run, "widening": max([1.0, *factors])})
        row |= {f"{name} {form}": value for name, value in _scores(other, task.test, "new_run").items()}
    errors = np.abs(np.log(result.predict(task.test) / task.test.kept["loss"].to_numpy()))
    return row | {"width known": float(np.expm1(2 * np.quantile(errors, LEVEL)))}


def _scores(result: FitResult, test: RunsTable, kind: str) -> dict[str, float]:
    ends, loss = result.predict(test, kind=kind), test.kept["loss"].to_numpy()
    low, high = ends["low"].to_numpy(), ends["high"].to_numpy()
    missed = np.maximum(low - loss, 0) + np.maximum(loss - high, 0)
    score = (high - low + 2 / (1 - LEVEL) * missed) / loss
    return {
        "coverage": float(np.mean(missed == 0)),
        "width": float(np.median(high / low - 1)),
        "score": float(score.mean()),
    }


def _table(found: pd.DataFrame, first: str) -> str:
    names = [f"{name} {kind}" for name in ("coverage", "width", "score") for kind in KINDS]
    head = [first, *(name.replace("_", " ") for name in names)]
    lines = [f"| {' | '.join(head)} |", "| --- |" + " --- |" * len(names)]
    for _, row in found.iterrows():
        cells = [f"{row[name]:.0%}" if name.startswith("coverage") else f"{row[name]:.1%}" for name in names]
        lines.append("| " + " | ".join([str(row[first]), *cells]) + " |")
    return "\n".join(lines) + "\n"


def _forms(found: pd.DataFrame) -> str:
    """Coverage, width and score with the factor of other axes."""
    head = ("factor of", "coverage", "lowest of a suite", "median width", "interval score, mean (median)")
    lines = [f"| {' | '.join(head)} |", "| --- |" + " --- |" * (len(head) - 1)]
    for form in FORMS:
        coverage, width, score = (found[f"{name} {form}"] for name in ("coverage", "width", "score"))
        lowest = coverage.groupby(found["suite"]).mean().min()
        cells = [f"{coverage.mean():.0%}", f"{lowest:.0%}", f"{width.median():.1%}"]
        lines.append(f"| {form} | {' | '.join(cells)} | {score.mean():.1%} ({score.median():.1%}) |")
    return "\n".join(lines) + "\n"


def _overall(found: pd.DataFrame) -> str:
    out = []
    for kind in KINDS:
        coverage, width, score = (found[f"{name} {kind}"] for name in ("coverage", "width", "score"))
        pooled = float(np.average(coverage, weights=found["rows"]))
        out.append(
            f"{kind}: coverage {coverage.mean():.1%} (mean over tasks; {pooled:.1%} of all rows), median width "
            f"{width.median():.1%}, interval score {score.mean():.1%} (median {score.median():.1%})"
        )
    out.append(f"{LEVEL:.0%} of each task's errors, known afterwards: median width {found['width known'].median():.1%}")
    return "\n".join(out)


def draw(found: pd.DataFrame, path: Path) -> None:
    """Coverage of every task by both kinds, and the level that is asked."""
    import matplotlib.pyplot as plt

    from shapelaw.figures.style import look

    with look():
        figure, axes = plt.subplots(figsize=(7.2, 0.24 * len(found) + 0.9))
        places = np.arange(len(found))[::-1]
        for kind, marker, label in (("mean", "o", "of the law"), ("new_run", "s", "of a new run")):
            axes.plot(100 * found[f"coverage {kind}"], places, marker, label=f"interval {label}", markersize=5)
        axes.axvline(100 * LEVEL, linewidth=1, color="0.5")
        axes.set_yticks(places, [name if len(name) < 70 else f"{name[:67]}..." for name in found["task"]], fontsize=6)
        axes.set(xlabel="held-out losses inside the 90% interval (%)", xlim=(-3, 103))
        axes.legend(loc="lower left")
        figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
