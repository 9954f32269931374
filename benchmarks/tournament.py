"""Which law predicts what it has not seen: every law on every public suite, as the table of docs/laws.md.

    python benchmarks/tournament.py [--suite NAME] [--splits FILE] [--delta 1e-3]

Each law is fitted to the smaller runs (or fewer tokens, less compute) and predicts the rest; the splits are those of
tournament.yaml. An entry is the mean absolute relative error; below, the geometric mean of its ratio to eq 1's and the worst
ratio, over the tasks on which the law can be fitted.
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd

from shapelaw import UserError, fit
from shapelaw.laws.choices import CANDIDATES
from suites import Task, arguments, tasks

BASE = "params_tokens"
LAWS = (
    BASE,
    "params_tokens_interaction",
    "interaction",
    "skaling",
    "skaling_aspect",
    "params_tokens_aspect",
    "kaplan_e",
    "width_depth_params_tokens",
    "auto",
    "median3",
)


def main() -> None:
    """Print the table as Markdown."""
    asked = arguments(__doc__).parse_args()
    started = time.process_time()
    rows = [_row(task, asked.delta) for task in tasks(asked.splits, asked.suite)]
    table = pd.DataFrame(rows).set_index("task")
    print(_markdown(table))
    print(_hindsight(table))
    print(f"({len(table)} tasks, {time.process_time() - started:.0f} CPU-seconds)")


def _row(task: Task, delta: float) -> dict[str, object]:
    measured = task.test.kept["loss"].to_numpy()
    row: dict[str, object] = {"task": task.name}
    for law in LAWS:
        try:
            result = fit(task.train, law=law, delta=delta)
            row[law] = float(np.mean(np.abs(result.predict(task.test) / measured - 1)))
            if law == "auto":
                row["taken"] = str(result.law)
        except UserError:  # the table lacks what the law reads
            row[law] = np.nan
    return row


def _markdown(table: pd.DataFrame) -> str:
    lines = [f"| task | {' | '.join(LAWS)} | auto takes |", "| --- |" + " --- |" * (len(LAWS) + 1)]
    for name, row in table.iterrows():
        lines.append(f"| {name} | {' | '.join(_percent(row[law]) for law in LAWS)} | {row['taken']} |")
    ratios = table[list(LAWS)].div(table[BASE], axis=0)
    means, worst = np.exp(np.log(ratios).mean()), ratios.max()
    lines.append(f"| **geometric mean over eq 1's** | {' | '.join(f'{means[law]:.2f}' for law in LAWS)} | |")
    lines.append(f"| **worst** | {' | '.join(f'{worst[law]:.2f}' for law in LAWS)} | |")
    lines.append(f"| tasks | {' | '.join(str(ratios[law].notna().sum()) for law in LAWS)} | |")
    return "\n".join(lines)


def _hindsight(table: pd.DataFrame) -> str:
    """What no choice among auto's candidates can beat: on every task, the one that predicts the held-out rows best."""
    best = table[list(CANDIDATES)].min(axis=1) / table[BASE]
    mean, worst = np.exp(np.log(best).mean()), best.max()
    return f"the best of auto's candidates on every task, known afterwards: {mean:.2f}, worst {worst:.2f}"


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2%}"


if __name__ == "__main__":
    main()
