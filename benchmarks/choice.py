"""Would another rule choose better than law=auto? The table of rules in docs/laws.md.

    python benchmarks/choice.py [--suite NAME] [--splits FILE] [--delta 1e-3]

Every rule takes one of auto's candidates by their errors on folds of the runs that are fitted, or by an information criterion;
the task's held-out rows then show how well that candidate predicts. As in tournament.py, an entry is the geometric mean of the
error over eq 1's on all tasks of tournament.yaml, and the worst of them. The last rows give the best candidate of every task,
known afterwards, and what auto's rule takes where it has further candidates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapelaw import FitResult, RunsTable, UserError, fit
from shapelaw.fitting.residuals import information_criteria
from shapelaw.fitting.rolling import DISTINCT, cuts, distinct
from shapelaw.fitting.splits import PARAMS_FROM_SHARE
from shapelaw.laws.choices import CANDIDATES, COUNTING
from suites import Task, arguments, tasks

Mask = NDArray[np.bool_]
Folds = list[Mask]
BASE = "params_tokens"
FURTHER = ("kaplan_e", "params_tokens_aspect")
DRAWS, DRAWN_SHARE = 5, 0.25


@dataclass(frozen=True)
class Tried:
    """A candidate on one task: its error on the task's held-out rows over eq 1's, and its error on every fold."""

    ratio: float
    criteria: Mapping[str, float]
    fold_errors: Mapping[str, Sequence[float]]
    identified: bool
    size: int
    """Number of parameters."""


def main() -> None:
    """Print the table as Markdown."""
    asked = arguments(__doc__).parse_args()
    started = time.process_time()
    found = [_tried(task, asked.delta) for task in tasks(asked.splits, asked.suite)]
    print("| rule | mean | worst |\n| --- | --- | --- |")
    for name, rule in RULES.items():
        print(f"| {name} | {_summary([_taken(one, rule, CANDIDATES) for one in found])} |")
    known = [min(one[law].ratio for law in CANDIDATES if law in one) for one in found]
    print(f"| the best candidate of every task, known afterwards | {_summary(known)} |")
    for law in FURTHER:
        print(f"| auto with {law} | {_summary([_taken(one, RULES[AUTO], (*CANDIDATES, law)) for one in found])} |")
    print(f"\n({len(found)} tasks, {time.process_time() - started:.0f} CPU-seconds)")


def _summary(ratios: Sequence[float]) -> str:
    """Geometric mean and worst."""
    return f"{np.exp(np.log(ratios).mean()):.2f} | {max(ratios):.2f}"


def _tried(task: Task, delta: float) -> dict[str, Tried]:
    """Every candidate that can be fitted to the task."""
    folds = {name: make(task.train) for name, make in FOLDS.items()}
    base, out = _task_error(fit(task.train, law=BASE, delta=delta), task), {}
    for law in (*CANDIDATES, *FURTHER):
        try:
            result = _fit(task.train, law, delta)
        except UserError:  # the table lacks what the law reads
            continue
        residuals = _errors(result, task.train)
        criteria = dict(
            zip(("aic", "bic"), information_criteria(residuals, delta, len(result.parameters)), strict=True)
        )
        errors = {name: [_error(task.train, mask, law, delta) for mask in masks] for name, masks in folds.items()}
        ratio = _task_error(result, task) / base
        out[law] = Tried(ratio, criteria, errors, not result.ridge, len(result.parameters))
    return out


def _task_error(result: FitResult, task: Task) -> float:
    """Mean relative error on the task's held-out rows."""
    return float(np.mean(np.abs(np.expm1(_errors(result, task.test)))))


def _fit(runs: RunsTable, law: str, delta: float) -> FitResult:
    counting = COUNTING if runs.counts(COUNTING) else "total"
    return fit(runs, law=law, delta=delta, counting=counting)


def _errors(result: FitResult, runs: RunsTable) -> NDArray[np.float64]:
    """Log of predicted over measured."""
    return np.asarray(np.log(result.predict(runs) / runs.kept["loss"].to_numpy()))


def _error(runs: RunsTable, fitted: Mask, law: str, delta: float) -> float:
    """Mean error on the rows that are not fitted; infinite if the others are too few to fit."""
    try:
        result = _fit(_only(runs, fitted), law, delta)
        return float(np.mean(np.abs(_errors(result, _only(runs, ~fitted)))))
    except UserError:
        return float("inf")


def _only(runs: RunsTable, rows: Mask) -> RunsTable:
    """The table with some of its kept rows."""
    left_out = np.ones(len(runs.frame), dtype=bool)
    left_out[np.flatnonzero(runs.frame["excluded"] == "")[rows]] = False
    return runs.exclude(left_out, "held out")


def _sizes(runs: RunsTable) -> NDArray[np.float64]:
    return np.asarray(runs.params(COUNTING if runs.counts(COUNTING) else "total"))


def _below(values: NDArray[np.float64], share: float) -> Folds:
    """The rows below a share of the largest value; nothing if they have too few different values."""
    mask = values < share * values.max()
    return [mask] if distinct(np.log(values[mask])) >= DISTINCT else []


def _random(runs: RunsTable) -> Folds:
    """A quarter of the sizes left out, five times."""
    sizes, rng = _sizes(runs), np.random.default_rng(0)
    different = np.unique(sizes)
    count = max(int(DRAWN_SHARE * len(different)), 1)
    return [~np.isin(sizes, rng.choice(different, count, replace=False)) for _ in range(DRAWS)]


FOLDS: Mapping[str, Callable[[RunsTable], Folds]] = {
    "half": lambda runs: _below(_sizes(runs), 0.5),
    "three quarters": lambda runs: _below(_sizes(runs), PARAMS_FROM_SHARE),
    "sizes": lambda runs: cuts(_sizes(runs), DISTINCT),
    "tokens": lambda runs: cuts(runs.column("tokens", "choice.py"), DISTINCT),
    "random": _random,
}
"""Name -> masks of the rows that are fitted."""


Rule = Callable[[Tried], float]
"""What a rule measures of a candidate: the lowest is taken. Infinite where it measures nothing."""


def _mean(*names: str, last: int = 0, middle: Callable[[Sequence[float]], float] = np.mean) -> Rule:
    """The mean (or median) error over folds; if none of these can be held out, over growing tokens, as auto does."""

    def rule(one: Tried) -> float:
        errors = [error for name in names for error in one.fold_errors[name][-last:]]
        return float(middle(errors or one.fold_errors["tokens"] or [one.criteria["aic"]]))

    return rule


AUTO = "the largest models held out (auto)"
RULES: Mapping[str, Rule] = {
    AUTO: _mean("three quarters"),
    "half of the largest size": _mean("half"),
    "half and three quarters of the largest size": _mean("half", "three quarters"),
    "growing sizes": _mean("sizes"),
    "growing sizes, the last three cuts": _mean("sizes", last=3),
    "growing sizes, median of the cuts": _mean("sizes", middle=np.median),
    "growing tokens": _mean("tokens"),
    "growing sizes and tokens": _mean("sizes", "tokens"),
    "sizes left out at random": _mean("random"),
    "AIC": lambda one: one.criteria["aic"],
    "BIC": lambda one: one.criteria["bic"],
}


def _taken(tried: Mapping[str, Tried], rule: Rule, candidates: Sequence[str]) -> float:
    """Error of the candidate that the rule takes among those that the table identifies, if it identifies any."""
    able = [tried[law] for law in candidates if law in tried]
    able = [one for one in able if one.identified] or able
    return min(able, key=lambda one: (rule(one), one.size)).ratio


if __name__ == "__main__":
    main()
