"""The four answers of the step-and-batch law, each with run-level intervals and whether it lies in the fitted domain.

1. `lowest`: the smallest loss of a size, and the steps and tokens to come near it.
2. `reach`: steps and tokens to a loss, at any batch.
3. `critical`: the critical batch at a loss, and the trade-off of steps against tokens.
4. `trajectory`: the whole loss curve of a size at any batch.

Source: Su et al. 2024 (arXiv 2403.06563), section 3.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.result import FitResult
from shapelaw.fitting.spec import FitData, spec_of
from shapelaw.laws import get_law
from shapelaw.laws.base import in_loss_unit
from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.domain import Ranges, outside_of
from shapelaw.prescribe.surface import level_of
from shapelaw.runs.table import RunsTable
from shapelaw.step_batch.flags import UNKNOWN_FLOORS
from shapelaw.step_batch.law import StepsBatchLaw

Array = NDArray[np.float64]
Parameters = Mapping[str, float]

EXCESSES = (0.1, 0.05, 0.02, 0.01)
"""Shares above the lowest loss for which steps are listed."""
BATCH_FACTORS = tuple(2.0**k for k in range(-5, 6))
"""Batches over the critical one at which the trade-off is listed."""
CURVE_POINTS = 60
FLOPS_PER_PARAMETER = 6.0
"""C = 6 N B S, N as the law counts it (Kaplan et al. 2020, section 2.1)."""
UNITS = {
    "width": "features",
    "depth": "blocks",
    "params": "parameters, as the law counts them",
    "loss": "nats per token",
    "lowest_loss": "nats per token",
    "critical_batch": "tokens",
    "batch_tokens": "tokens",
    "steps_min": "steps",
    "tokens_min": "tokens",
    "steps": "steps",
    "tokens": "tokens",
    "steps_ratio": "1",
    "tokens_ratio": "1",
    "flops": "FLOPs, 6 N B S",
}


@dataclass(frozen=True)
class Size:
    """A size as the law counts it, with its shape if it has one."""

    params: float
    width: int | None = None
    depth: int | None = None

    def __post_init__(self) -> None:
        _check_positive("params", self.params)

    @property
    def label(self) -> str:
        """Its name for people."""
        return f"{self.width}x{self.depth}" if self.width else f"{self.params:,.0f} parameters"

    @property
    def values(self) -> dict[str, float]:
        """Width, depth, params."""
        shape = {"width": float(self.width), "depth": float(self.depth)} if self.width and self.depth else {}
        return {**shape, "params": self.params}


@dataclass(frozen=True)
class StepBatchProblem:
    """A fit of the step-and-batch law, and its runs.

    Args:
        fit: a fit by method=staged.
        runs: its runs.
    """

    fit: FitResult
    runs: RunsTable

    @cached_property
    def law(self) -> StepsBatchLaw:
        """The fit's law."""
        law = get_law(str(self.fit.law))
        assert isinstance(law, StepsBatchLaw)
        return law

    @cached_property
    def level(self) -> float:
        """Share of the refits inside an interval."""
        return level_of(self.fit)

    @cached_property
    def refits(self) -> list[dict[str, float]]:
        """Parameters of every refit of resampled runs."""
        names = list(self.fit.replicates)
        return [dict(zip(names, row, strict=True)) for row in zip(*self.fit.replicates.values(), strict=True)]

    @cached_property
    def ranges(self) -> Ranges:
        """The fitted domain: sizes, batches and adjusted steps of the rows."""
        data = FitData.of(self.runs, spec_of(self.fit))
        batch = data.columns["batch_tokens"]
        steps = data.columns["tokens"] / batch
        steps_min = steps / (1 + self.law.critical_batch(self.fit.parameters, data.loss) / batch)
        columns = {"params": data.columns["params"], "batch_tokens": batch, "steps_min": steps_min}
        return {name: (float(values.min()), float(values.max())) for name, values in columns.items()}

    @cached_property
    def losses(self) -> tuple[float, float]:
        """Range of the losses at which the critical batch was fitted."""
        contours = self.fit.stages["critical_batch"]["contours"]
        fitted = [float(contour["loss"]) for contour in contours if contour["b_crit"] is not None]
        return min(fitted), max(fitted)

    def lowest(self, size: Size) -> Prescription:
        """The smallest loss of a size, L(N), which no number of steps can undercut.

        Raises:
            UserError: if the runs end so far above it that it is unknown.
        """
        if unknown := self._floors_unknown:
            raise UserError(f"the smallest loss of {size.label}: {unknown}; train the sizes longer, then fit again")

        def values(p: Parameters) -> dict[str, float]:
            return {"loss": float(self.law.converged_loss(p, size.params))}

        answer = self._answer(f"the smallest loss of {size.label}", size.values, values)
        loss = answer.values["loss"]
        rows = [
            {"excess": excess} | self._costs(self.fit.parameters, size, loss * (1 + excess), None)
            for excess in EXCESSES
        ]
        return dataclasses.replace(answer, tables={"coming_near": pd.DataFrame(rows)})

    def reach(self, size: Size, loss: float, batch: float | None) -> Prescription:
        """Steps and tokens from a size to a loss, at a batch and along the trade-off.

        Raises:
            UserError: for a loss that the size does not reach, with the reachable range.
        """
        _check_positive("loss", loss, f", in {self.fit.loss_unit}")
        self._check_batch(batch)
        self.law.steps_min_to(self.fit.parameters, size.params, loss)  # refuses a loss that cannot be reached

        def values(p: Parameters) -> dict[str, float]:
            return self._costs(p, size, loss, batch)

        at = f" at batches of {batch:,.0f} tokens" if batch else ""
        answer = self._answer(f"{size.label} to a loss of {loss:g}{at}", size.values | _batch(batch), values)
        critical, steps_min = answer.values["critical_batch"], answer.values["steps_min"]
        table = self._trade_off(critical, steps_min).assign(
            flops=lambda frame: FLOPS_PER_PARAMETER * size.params * frame["tokens"]
        )
        return dataclasses.replace(answer, tables={"trade_off": table}, drawn="trade_off")

    def critical(self, loss: float) -> Prescription:
        """The critical batch at a loss, for any size: there both steps and tokens are twice their minimum."""
        _check_positive("loss", loss, f", in {self.fit.loss_unit}")

        def values(p: Parameters) -> dict[str, float]:
            return {"loss": loss, "critical_batch": float(self.law.critical_batch(p, loss))}

        answer = self._answer(f"the critical batch at a loss of {loss:g}", {}, values, {"loss": self.losses})
        table = self._trade_off(answer.values["critical_batch"], 1.0).drop(columns=["steps", "tokens"])
        return dataclasses.replace(answer, tables={"trade_off": table}, drawn="trade_off")

    def trajectory(self, size: Size, batch: float, tokens: float) -> Prescription:
        """The whole loss curve of a size at a batch, up to `tokens`, with its interval."""
        self._check_batch(batch)
        if not (math.isfinite(tokens) and tokens > batch):
            raise UserError(
                f"tokens={tokens:g}: allowed values are finite numbers above one batch of {batch:,.0f}; give more tokens"
            )
        first = max(1.0, min(self.ranges["steps_min"][0], tokens / batch / 2))
        steps = np.geomspace(first, tokens / batch, CURVE_POINTS)
        columns = {"params": size.params, "tokens": steps * batch, "batch_tokens": batch}
        curve = self.law.predict(self.fit.parameters, columns)
        frame = pd.DataFrame({"steps": steps, "tokens": steps * batch, "loss": curve})
        if self.refits:
            drawn = np.array([self.law.predict(p, columns) for p in self.refits])
            frame["loss_low"], frame["loss_high"] = np.nanquantile(drawn, self._tails, axis=0)

        unknown = self._floors_unknown

        def values(p: Parameters) -> dict[str, float]:
            end = float(self.law.predict(p, {**columns, "tokens": np.array([tokens])})[0])
            critical = float(self.law.critical_batch(p, end))
            flops = FLOPS_PER_PARAMETER * size.params * tokens
            costs = {"steps": tokens / batch, "tokens": tokens, "flops": flops, "critical_batch": critical}
            lowest = {} if unknown else {"lowest_loss": float(self.law.converged_loss(p, size.params))}
            return {"loss": end, **lowest, **costs, "steps_min": tokens / batch / (1 + critical / batch)}

        question = f"the loss curve of {size.label} at batches of {batch:,.0f} tokens, up to {tokens:,.0f} tokens"
        answer = self._answer(question, size.values | _batch(batch), values)
        return dataclasses.replace(answer, tables={"curve": frame}, drawn="curve")

    @property
    def _floors_unknown(self) -> str | None:
        """The fit's statement that the converged losses of its runs are unknown."""
        code = f"{UNKNOWN_FLOORS}: "
        return next((flag.removeprefix(code) for flag in self.fit.flags if flag.startswith(code)), None)

    @property
    def _tails(self) -> list[float]:
        return [(1 - self.level) / 2, (1 + self.level) / 2]

    def _costs(self, p: Parameters, size: Size, loss: float, batch: float | None) -> dict[str, float]:
        """The least cost of a loss, and its cost at a batch; infinite if these parameters do not reach it."""
        critical = float(self.law.critical_batch(p, loss))
        try:
            steps_min = self.law.steps_min_to(p, size.params, loss)
        except UserError:
            steps_min = math.inf
        out = {"loss": loss, "critical_batch": critical, "steps_min": steps_min, "tokens_min": critical * steps_min}
        if batch:
            steps = steps_min * (1 + critical / batch)
            ratios = {"steps_ratio": 1 + critical / batch, "tokens_ratio": 1 + batch / critical}
            flops = FLOPS_PER_PARAMETER * size.params * batch * steps
            out |= {"steps": steps, "tokens": batch * steps, **ratios, "flops": flops}
        return out

    def _trade_off(self, critical: float, steps_min: float) -> pd.DataFrame:
        """Steps and tokens at batches around the critical one, and both over their minimum."""
        factor = np.array(BATCH_FACTORS)
        frame = pd.DataFrame(
            {"batch_tokens": critical * factor, "steps_ratio": 1 + 1 / factor, "tokens_ratio": 1 + factor}
        )
        return frame.assign(steps=steps_min * frame["steps_ratio"], tokens=steps_min * critical * frame["tokens_ratio"])

    def _check_batch(self, batch: float | None) -> None:
        if batch is None:
            return
        _check_positive("batch_tokens", batch)
        rows = self.runs.kept
        context = int(rows["seq_len"].iloc[0]) if "seq_len" in rows else 1
        if batch % context:
            near = max(int(batch // context), 1) * context
            low, high = self.ranges["batch_tokens"]
            raise UserError(
                f"batch_tokens={batch:g}: is not a multiple of the context, seq_len={context}; the nearest are {near} and "
                f"{near + context}; the fitted batches are {low:,.0f} to {high:,.0f}"
            )

    def _answer(
        self,
        question: str,
        asked_about: Mapping[str, float],
        values: Callable[[Parameters], dict[str, float]],
        ranges: Ranges | None = None,
    ) -> Prescription:
        """The fit's own values, their intervals over its refits, and which lie outside the ranges (None: the rows')."""
        fitted = values(self.fit.parameters)
        drawn = pd.DataFrame([values(p) for p in self.refits]).replace([np.inf, -np.inf], np.nan)
        varied = [
            n for n in drawn if drawn[n].notna().sum() > 1 and np.ptp(drawn[n].dropna()) > 1e-9 * abs(fitted[str(n)])
        ]
        intervals = {str(n): tuple(map(float, drawn[n].quantile(self._tails))) for n in varied}
        quantities, ranges = {**asked_about, **fitted}, ranges or self.ranges
        return Prescription(
            question=question,
            law=str(self.fit.law),
            values=quantities,
            units=in_loss_unit({name: UNITS[name] for name in quantities}, self.fit.loss_unit),
            intervals=intervals,  # type: ignore[arg-type]  # pairs
            level=self.level,
            outside=outside_of(ranges, quantities),
            overrides=(),
            notes=self._notes(drawn),
            ranged=frozenset(ranges),
        )

    def _notes(self, drawn: pd.DataFrame) -> tuple[str, ...]:
        notes = []
        if not self.refits:
            notes.append("no intervals: the fit has no refits of resampled runs (bootstrap=runs makes them)")
        failed = int(drawn["steps_min"].isna().sum()) if "steps_min" in drawn else 0
        if failed:
            notes.append(f"{failed} of {len(drawn)} refits never reach this loss and are left out of the intervals")
        codes = ("not_straddled", "not_converged", UNKNOWN_FLOORS, "flat_critical_batch")
        notes += [flag for flag in self.fit.flags if flag.startswith(codes)]
        return tuple(notes)


def _check_positive(option: str, value: float, unit: str = "") -> None:
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{option}={value:g}: allowed values are finite numbers above 0{unit}; give one")


def _batch(batch: float | None) -> dict[str, float]:
    return {"batch_tokens": batch} if batch else {}
