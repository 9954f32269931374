"""The fitting core called with plain arrays, as tests find convenient: a law, its columns, the losses, and options by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from shapelaw.config import BootstrapOptions
from shapelaw.fitting import bootstrap as bootstraps
from shapelaw.fitting import flags as flagging
from shapelaw.fitting import profile as profiles
from shapelaw.fitting import solve as solving
from shapelaw.fitting.bootstrap import Bootstrap
from shapelaw.fitting.flags import Flag
from shapelaw.fitting.objective import Problem
from shapelaw.fitting.profile import Profile
from shapelaw.fitting.solve import Solution
from shapelaw.fitting.solvers import newton
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.laws import EXPONENT, Law

Columns = Mapping[str, Any]


def data_of(law: Law, columns: Columns, loss: ArrayLike, runs: ArrayLike | None = None) -> FitData:
    """Rows as a law sees them; each is a run of its own unless runs are given."""
    return FitData(
        law, "total", columns, np.asarray(loss), np.arange(np.size(loss)) if runs is None else np.asarray(runs)
    )


def solve(law: Law, columns: Columns, loss: ArrayLike, weights: ArrayLike | None = None, **options: Any) -> Solution:
    return solving.solve(data_of(law, columns, loss), FitSpec.of(law, **options), weights)


def bootstrap(
    law: Law,
    columns: Columns,
    loss: ArrayLike,
    groups: ArrayLike,
    solution: Solution,
    *,
    n: int = 1000,
    by: str = "runs",
    workers: int = 1,
    **options: Any,
) -> Bootstrap:
    spec = FitSpec.of(law, bootstrap=BootstrapOptions(n=n, by=by, workers=workers), **options)
    return bootstraps.bootstrap(data_of(law, columns, loss, groups), spec, solution)


def profile(
    law: Law,
    columns: Columns,
    loss: ArrayLike,
    solution: Solution,
    statistic: str = EXPONENT,
    *,
    delta: float = 1e-4,
    **options: Any,
) -> Profile:
    return profiles.profile(data_of(law, columns, loss), FitSpec.of(law, delta=delta), statistic, solution, **options)


def constrained_minimum(problem: Problem, solution: Solution, statistic: str, value: float) -> float:
    return profiles.constrained_minimum(newton(problem), solution, statistic, value)


def flags(law: Law, columns: Columns, loss: ArrayLike, solution: Solution, **options: Any) -> tuple[Flag, ...]:
    return flagging.flags(data_of(law, columns, loss), FitSpec.of(law, **options), solution)
