"""Whole loss curves under schedules that the fit has not seen: constant and cosine runs in, the others predicted.

    SHAPELAW_DATA_DIR=FOLDER python benchmarks/annealing.py [--delta 1e-3]

FOLDER/others/multipowerlaw_curves.csv holds the curves of Luo et al. 2025 (arXiv 2503.12811): three sizes, nine schedules
each, a loss every 128 steps. An entry is the mean absolute relative error over a predicted curve, and at its end.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

from shapelaw import RunsTable, fit, load_runs

CURVES = Path("others/multipowerlaw_curves.csv")
FITTED = ("constant_24000", "constant_72000", "cosine_24000", "cosine_72000")
BATCH_TOKENS = 524_288
"""Of no effect: the law reads steps."""


def main() -> None:
    """Print the errors as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--delta", type=float, default=1e-3)
    delta = parser.parse_args().delta
    curves = table(Path(os.environ["SHAPELAW_DATA_DIR"]) / CURVES)
    found = pd.concat([errors(curves, size, delta) for size in sorted(set(curves.kept["params"]))])
    wide = found.pivot(index="schedule", columns="size", values="shown")[list(dict.fromkeys(found["size"]))]
    lines = [f"| schedule | {' | '.join(wide.columns)} |", "| --- |" + " --- |" * len(wide.columns)]
    lines += [f"| {name} | {' | '.join(row)} |" for name, row in zip(wide.index, wide.to_numpy(), strict=True)]
    print("\n".join(lines))
    print(f"\nmean over all predicted curves {found['mean'].mean():.2%}, largest of a curve {found['mean'].max():.2%}")


def table(path: Path) -> RunsTable:
    """Every curve, as a run of its own."""
    return load_runs(
        "csv",
        path=path,
        columns={"run": "size_M+schedule", "params": "size_M"},
        units={"params": "M"},
        constants={"batch_tokens": BATCH_TOKENS},
        midway="keep",
        reduce="none",
    )


def errors(curves: RunsTable, params: float, delta: float) -> pd.DataFrame:
    """Of the predicted curves of one size: schedule, size, mean error, and both errors as text."""
    own = curves.select(f"params == {params}")
    fitted = own.select(" or ".join(f"schedule == '{name}'" for name in FITTED))
    result = fit(fitted, law="annealing", delta=delta)
    rows = own.kept.assign(error=np.abs(result.predict(own) / own.kept["loss"] - 1))
    groups = rows[~rows["schedule"].isin(FITTED)].groupby("schedule")["error"]
    means, ends = groups.mean(), groups.last()
    shown = [f"{mean:.2%}, end {end:.2%}" for mean, end in zip(means, ends, strict=True)]
    return pd.DataFrame(
        {"schedule": means.index, "size": f"{params / 1e6:.0f}M", "mean": means.to_numpy(), "shown": shown}
    )


if __name__ == "__main__":
    main()
