"""Does `shapelaw next` choose better runs than chance? Simulated on the published Gemstones, as in docs/next.md.

    OMP_NUM_THREADS=1 python benchmarks/next_run.py [--law NAME] [--starts 12] [--seeds 8]

Each start has five random shapes below 120M parameters, trained in full. Then one run after the other is chosen among the
published shapes below 2B, for half or all of its tokens, until the FLOPs spent on them reach a level; its
rows are those that were measured. The error is the mean absolute relative error on the rows of the 2B models. Chance chooses
among the same runs, `--seeds` times for every start, and its median counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from shapelaw import RunsTable, UserError, fit, load_runs
from shapelaw.prescribe.candidates import Candidates
from shapelaw.prescribe.next_run import LossOf, plan
from shapelaw.prescribe.world import World

SMALL, LARGE = 1.2e8, 1.5e9
LEVELS = (6e20, 1.2e21, 2.4e21)
PARTS = (1 / 2, 1.0)
DELTA = 1e-3


def main() -> None:
    """Print the median errors at every level, and in how many starts the choice beats chance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--law", default="interaction")
    parser.add_argument("--starts", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=8, help="of chance, for every start")
    asked = parser.parse_args()
    begun, runs = time.process_time(), load_runs("gemstones", subset="hot_100b+")
    ours, chance = [], []
    for start in range(asked.starts):
        ours.append(_simulated(runs, asked.law, start, _informed(asked.law)))
        luck = [np.random.default_rng(1000 * start + seed) for seed in range(asked.seeds)]
        chance.append(np.median([_simulated(runs, asked.law, start, _random(rng)) for rng in luck], axis=0))
        print(f"start {start}: {_shown(ours[-1])} chosen, {_shown(chance[-1])} by chance", flush=True)
    for place, level in enumerate(LEVELS):
        mine, theirs = np.array(ours)[:, place], np.array(chance)[:, place]
        print(
            f"{level:.2g} FLOPs: median error on the 2B models {np.median(mine):.2%} chosen, "
            f"{np.median(theirs):.2%} by chance; better in {(mine < theirs).sum()} of {len(mine)} starts"
        )
    print(f"({asked.law}; {time.process_time() - begun:.0f} CPU-seconds)")


def _shown(errors: np.ndarray) -> str:
    return ", ".join(f"{error:.2%}" for error in errors)


Chooser = Callable[[RunsTable, Candidates], int]


def _simulated(runs: RunsTable, law: str, start: int, choose: Chooser) -> np.ndarray:
    """Error at each level of FLOPs."""
    kept = runs.kept
    sizes = kept.groupby("run")["params"].first()
    rng = np.random.default_rng(start)
    first = rng.choice(sizes.index[sizes < SMALL].to_numpy(), 5, replace=False)
    have, spent, errors = kept[kept["run"].isin(first)], 0.0, []
    test = kept[kept["params"] > LARGE]
    for level in LEVELS:
        while True:
            table = _table(runs, have)
            names, candidates = _left(table, runs, have, level - spent)
            if not names:
                break
            place = choose(table, candidates)
            run, tokens = names[place]
            rows = kept[(kept["run"] == run) & (kept["tokens"] <= tokens)]
            spent += float(candidates.flops[place])
            have = pd.concat([have[have["run"] != run], rows])
        predicted = fit(_table(runs, have), law=law, delta=DELTA).predict(_table(runs, test))
        errors.append(float(np.mean(np.abs(predicted / test["loss"].to_numpy() - 1))))
    return np.array(errors)


def _table(runs: RunsTable, rows: pd.DataFrame) -> RunsTable:
    return RunsTable(rows.reset_index(drop=True), runs.about, runs.recorded)


def _left(
    table: RunsTable, runs: RunsTable, have: pd.DataFrame, budget: float
) -> tuple[list[tuple[str, float]], Candidates]:
    """(run, tokens) of everything that is affordable, measured and not trained so far."""
    kept, trained = runs.kept, have.groupby("run")["tokens"].max()
    rows = []
    for run, whole in kept[kept["params"] < LARGE].groupby("run"):
        for part in PARTS:
            tokens = float(whole["tokens"].max()) * part
            if tokens > trained.get(run, 0.0) and (whole["tokens"] <= tokens).sum() > 0:
                rows.append((run, tokens, int(whole["width"].iloc[0]), int(whole["depth"].iloc[0])))
    names, tokens, widths, depths = zip(*rows, strict=True)
    world = World.of(_ANY, table)
    every = Candidates(world.points(widths, depths), np.array(tokens))
    inside = np.flatnonzero(every.flops <= budget)
    return [(names[i], tokens[i]) for i in inside], every.take(inside)


_ANY = fit(
    pd.DataFrame({"run": range(9), "params": [1e8, 2e8, 4e8] * 3, "tokens": [1e9] * 3 + [4e9] * 3 + [9e9] * 3})
    .assign(loss=lambda rows: 1.5 + 400 / rows["params"] ** 0.34 + 400 / rows["tokens"] ** 0.28)
)  # fmt: skip
"""A fit whose conventions are the usual ones."""


def _informed(law: str) -> Chooser:
    def choose(table: RunsTable, candidates: Candidates) -> int:
        made = fit(table, law=law, delta=DELTA)
        target = LossOf(made, World.of(made, table).points([2048], [27]), 3.5e11)
        try:
            return plan(made, table, candidates, target)[0].place
        except UserError:
            return int(np.argmin(candidates.flops))

    return choose


def _random(rng: np.random.Generator) -> Chooser:
    return lambda table, candidates: int(rng.integers(len(candidates)))


if __name__ == "__main__":
    main()
