"""Resampled runs through all stages: intervals of every parameter and of each stage's results."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from shapelaw.config import BootstrapOptions
from shapelaw.errors import UserError
from shapelaw.fitting.bootstrap import Bootstrap
from shapelaw.step_batch.pipeline import Estimate, StagedData, estimate

Array = NDArray[np.float64]

TRIES = 100
"""Number of draws after which a stage without data counts as a fault of the table."""


def resample(data: StagedData, estimated: Estimate, wanted: BootstrapOptions, seed: int) -> Bootstrap:
    """Draw runs with replacement and repeat all stages; a draw that leaves a stage without data is drawn again.

    Raises:
        UserError: for resampling by rows, or if hardly any draw has data for all stages.
    """
    if wanted.by != "runs":
        raise UserError(f"bootstrap.by={wanted.by}: method=staged draws whole runs; give bootstrap=runs or none")
    rng = np.random.default_rng(seed)
    thetas = np.array([_draw(data, estimated, rng) for _ in range(wanted.n)])
    left_out = np.array(list(_jackknife(data, estimated)))
    return Bootstrap(data.law, estimated.theta, thetas, np.full(len(thetas), np.nan), left_out, "runs", seed)


def _draw(data: StagedData, estimated: Estimate, rng: np.random.Generator) -> Array:
    count = len(data.curves)
    for _ in range(TRIES):
        refit = estimate(data, rng.multinomial(count, np.full(count, 1 / count)).astype(np.float64), estimated)
        if refit is not None:
            return refit.theta
    raise UserError(
        f"bootstrap: none of {TRIES} draws of the {count} runs is enough for all three stages; give more runs (several "
        "sizes at several batches), or bootstrap=none"
    )


def _jackknife(data: StagedData, estimated: Estimate) -> Iterator[Array]:
    """theta without each run in turn, if the others have data for all stages."""
    for i in range(len(data.curves)):
        refit = estimate(data, (np.arange(len(data.curves)) != i).astype(np.float64), estimated)
        if refit is not None:
            yield refit.theta
