"""The authors' way of fitting, kept so that its artefact can be shown beside ours.

scipy's L-BFGS-B with a numerical gradient and default tolerances on the plain objective. The objective shrinks with
delta while the tolerance on the gradient (1e-5) is absolute: at small delta the search stops early and says success.

Source: described in Gemstones (arXiv 2502.06857), section 4; written from that description.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from shapelaw.fitting.objective import Problem

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ReferenceRun:
    """One start of the reference solver."""

    theta: Array
    objective: float
    success: bool


def reference_minimise(problem: Problem, start: Array) -> ReferenceRun:
    """L-BFGS-B from one start, gradient by forward differences, scipy's default tolerances."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # overflow far from the data is part of what is shown
        found = minimize(problem.value, start, method="L-BFGS-B")
    return ReferenceRun(np.asarray(found.x), float(found.fun), bool(found.success))
