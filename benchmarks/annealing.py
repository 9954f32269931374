"""Whole loss curves under schedules that the fit has not seen: constant and cosine runs in, the others predicted.

    SHAPELAW_DATA_DIR=FOLDER python benchmarks/annealing.py [--delta 1e-3] [--also wsdcon_9]

FOLDER/others/multipowerlaw_curves.csv holds the curves of Luo et al. 2025 (arXiv 2503.12811): three sizes, nine schedules
each, a loss every 128 steps. An entry is the mean absolute relative error over a predicted curve, and at its end. --also fits
a further schedule. Three laws: Tissue's, the multi-power law, and that with its gamma held at 0.5; three CPU-minutes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from shapelaw import RunsTable, fit, load_runs

CURVES = Path("others/multipowerlaw_curves.csv")
FITTED = ("constant_24000", "constant_72000", "cosine_24000", "cosine_72000")
BATCH_TOKENS = 524_288
"""Of no effect: the law reads steps."""


LAWS: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("annealing", "annealing", {}),
    ("multi_power", "multi_power", {}),
    ("multi_power, gamma 0.5", "multi_power", {"gamma": 0.5}),
)
"""Name, law, and what is held of it."""


def main() -> None:
    """Print the errors as Markdown, law by law, and their means by size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--delta", type=float, default=1e-3)
    parser.add_argument("--also", default="", help="a further schedule to fit")
    given = parser.parse_args()
    curves = table(Path(os.environ["SHAPELAW_DATA_DIR"]) / CURVES)
    sizes, means = sorted(set(curves.kept["params"])), []
    for name, law, fixed in LAWS:
        found = pd.concat([errors(curves, size, given.delta, law, fixed, given.also) for size in sizes])
        wide = found.pivot(index="schedule", columns="size", values="shown")[list(dict.fromkeys(found["size"]))]
        print(f"{name}\n\n{markdown(wide)}\n")
        by_size = found.groupby("size", sort=False)["mean"].mean()
        means.append(by_size.rename(name).map("{:.2%}".format))
        print(
            f"mean over all predicted curves {found['mean'].mean():.2%}, largest of a curve {found['mean'].max():.2%}\n"
        )
    print(markdown(pd.DataFrame(means).rename_axis("law")))


def markdown(wide: pd.DataFrame) -> str:
    """A table of texts."""
    lines = [f"| {wide.index.name} | {' | '.join(wide.columns)} |", "| --- |" + " --- |" * len(wide.columns)]
    return "\n".join(
        lines + [f"| {name} | {' | '.join(row)} |" for name, row in zip(wide.index, wide.to_numpy(), strict=True)]
    )


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


def errors(
    curves: RunsTable,
    params: float,
    delta: float,
    law: str = "annealing",
    fixed: Mapping[str, float] | None = None,
    also: str = "",
) -> pd.DataFrame:
    """Of the predicted curves of one size: schedule, size, mean error, and both errors as text."""
    own = curves.select(f"params == {params}")
    names = [*FITTED, *([also] if also else [])]
    fitted = own.select(" or ".join(f"schedule == '{name}'" for name in names))
    result = fit(fitted, law=law, delta=delta, fixed=fixed or {})
    rows = own.kept.assign(error=np.abs(result.predict(own) / own.kept["loss"] - 1))
    groups = rows[~rows["schedule"].isin(names)].groupby("schedule")["error"]
    means, ends = groups.mean(), groups.last()
    shown = [f"{mean:.2%}, end {end:.2%}" for mean, end in zip(means, ends, strict=True)]
    return pd.DataFrame(
        {"schedule": means.index, "size": f"{params / 1e6:.0f}M", "mean": means.to_numpy(), "shown": shown}
    )


if __name__ == "__main__":
    main()
