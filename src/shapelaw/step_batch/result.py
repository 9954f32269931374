"""`method=staged` as a fit's result: parameters, intervals, the stages, flags and checklist."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapelaw.config import StagedOptions
from shapelaw.errors import UserError
from shapelaw.fitting.general import GeneralNewton
from shapelaw.fitting.law_fit import LawFit, intervals_of, law_result
from shapelaw.fitting.result import FitResult
from shapelaw.fitting.ridge import Ridge
from shapelaw.fitting.spec import FitData, FitSpec, Method
from shapelaw.runs.table import RunsTable
from shapelaw.step_batch import report
from shapelaw.step_batch.flags import floors_unknown, warnings
from shapelaw.step_batch.pipeline import Estimate, StagedData, estimate
from shapelaw.step_batch.spread import resample

Array = NDArray[np.float64]

KIND = "stage by stage; the value is the sum over stage S's rows of Huber_delta(log measured - log predicted)"


@dataclass(frozen=True)
class Staged(Method):
    """The stages of the step-and-batch law.

    Args:
        staged: options of the stages.
    """

    name: str = "staged"
    does: str = "the estimation stage by stage"
    staged: StagedOptions = field(default_factory=StagedOptions)

    @property
    def options(self) -> dict[str, Any]:
        """Options of the stages."""
        return dataclasses.asdict(self.staged)

    def configured(self, options: Mapping[str, Any]) -> Staged:
        """The method with those of the options that the stages have, or with all of `staged`.

        Raises:
            UserError: for an unknown option in `staged`, or a value that is not allowed.
        """
        chosen = options.get("staged") or {key: options[key] for key in self.options if key in options}
        if isinstance(chosen, StagedOptions):
            return Staged(staged=chosen)
        unknown = set(chosen) - set(self.options)
        if unknown:
            raise UserError(
                f"staged: unknown {', '.join(sorted(unknown))}; allowed names are {', '.join(self.options)}"
            )
        return Staged(staged=StagedOptions(**chosen))

    def fit(self, runs: RunsTable, spec: FitSpec) -> FitResult:
        """Estimate the law stage by stage (see `shapelaw.fitting.fit.fit`).

        Raises:
            UserError: if a stage has no data.
        """
        rows = FitData.of(runs, spec)
        data = StagedData.of(rows, self.staged, spec.delta)
        result = estimated(data)
        fit = LawFit(
            theta=result.theta,
            objective=report.objective(data, result.theta, result.rows),
            kind=KIND,
            search={"solver": "stage by stage", "status": "converged", "n_starts": 1},
            flags=warnings(data, result),
            ridge=_ridge(data, result),
            not_identified=tuple(name for name in ("E",) if rows.law.natural(result.theta).get(name) == 0.0),
            refits=resample(data, result, spec.bootstrap, spec.seed) if spec.bootstrap else None,
            settings={"staged": self.options},
        )
        stages = report.stages(data, result, intervals_of(fit, spec)[0])
        if self.staged.polish:
            stages["polish"] = _polished(rows.rows(result.rows), spec, result)
        return law_result(runs, rows, spec, dataclasses.replace(fit, stages=stages))

    def theta(self, data: FitData, spec: FitSpec) -> Array:
        """All stages on some of the rows."""
        return estimated(StagedData.of(data, self.staged, spec.delta)).theta


STAGED = Staged()


def _ridge(data: StagedData, result: Estimate) -> Ridge | None:
    """The ridge of the size law, if its floors are unknown."""
    nothing = np.empty((0, len(result.theta)))
    return Ridge(("N_c", "alpha_N"), nothing, 0.0, nothing) if floors_unknown(data, result) else None


def estimated(data: StagedData) -> Estimate:
    """All stages on the data themselves.

    Raises:
        UserError: if a stage has no data.
    """
    result = estimate(data)
    if result is None:
        raise UserError(
            "method=staged: the stages find no falling power law: either the runs of each size do not converge towards "
            "a loss (method.converged=last uses their last losses), or the loss does not fall with size"
        )
    return result


def _polished(rows: FitData, spec: FitSpec, staged: Estimate) -> dict[str, Any]:
    """A fit of all parameters at once, from the staged solution, to report beside it."""
    problem = rows.problem(spec)
    theta, objective = GeneralNewton(problem).polish(staged.theta[None]).best
    return {
        "parameters": rows.law.natural(theta),
        "objective": objective,
        "objective_of_the_stages": problem.value(staged.theta),
    }
