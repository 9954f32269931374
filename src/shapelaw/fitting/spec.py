"""One record of how to fit, the data as a law reads them, and the interface of a method."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pkgutil import resolve_name
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shapelaw.config import BootstrapOptions
from shapelaw.config.option import said
from shapelaw.errors import UserError
from shapelaw.fitting.objective import Penalty, Problem, check_delta, check_over_cost
from shapelaw.fitting.result import FitResult
from shapelaw.fitting.solver import Solver
from shapelaw.fitting.solvers import get_solver
from shapelaw.fitting.splits import Holdout
from shapelaw.laws import Law, get_law, law_names
from shapelaw.laws.choices import AUTO, CANDIDATES, LawChoice
from shapelaw.laws.fixed import FixedLaw, whole
from shapelaw.laws.speedup import SpeedupLaw
from shapelaw.plugins import installed, load
from shapelaw.runs.table import RunsTable
from shapelaw.runs.weights import weights_of
from shapelaw.runs.worlds import MIXTURES

Array = NDArray[np.float64]

STARTS = ("varpro", "grid")
TIES = ("priors", "optimum")
GROUP = "shapelaw.methods"
"""Entry points by which an installed package adds a method: in its pyproject.toml, NAME = "module:METHOD"."""
LAW_METHODS = {"parametric": "shapelaw.fitting.parametric:PARAMETRIC"}
LINE_METHODS = {
    "hull": "shapelaw.fitting.line_fit:HULL",
    "binning": "shapelaw.fitting.line_fit:BINNING",
    "isoflop": "shapelaw.fitting.line_fit:ISOFLOP",
}
"""Where shapelaw's own methods are. Like those of other packages, they are imported on first use."""


class Method(ABC):
    """A way to fit, from a table and a spec to a result. Your own method subclasses this and defines `fit`."""

    name: str
    """Its name in results."""
    does: str = "this method"
    """Its effect on a law, in words, for messages."""
    fits_law: ClassVar[bool] = True
    """Whether it fits a law, rather than lines of the optimal size."""
    takes_solution: ClassVar[bool] = False
    """Whether `theta` takes the solution that `solve` found on the same rows, as a third argument."""

    @property
    def options(self) -> dict[str, Any]:
        """Its own options."""
        return {}

    def configured(self, options: Mapping[str, Any]) -> Method:
        """The same method, with those of the given options that it has."""
        return self

    @abstractmethod
    def fit(self, runs: RunsTable, spec: FitSpec) -> FitResult:
        """Fit the kept rows of a table."""

    def theta(self, data: FitData, spec: FitSpec) -> Array:
        """The law's vector that the method finds on some of the rows; hold-outs use it.

        Raises:
            UserError: if the method fits no law to some of the rows.
        """
        raise UserError(
            f"holdout: method={self.name} makes no predictions that could be held out; give method=parametric"
        )


def law_for(law: Law, method: Method) -> Law:
    """The law that a method fits. Only parametric fits can choose a law; for other methods, eq 1 replaces auto."""
    return get_law(CANDIDATES[0]) if law is AUTO and method.name != "parametric" else law


def method_names() -> tuple[str, ...]:
    """Names of all methods, those that fit laws first. It imports nothing."""
    return tuple(dict.fromkeys([*LAW_METHODS, *installed(GROUP), *LINE_METHODS]))


def get_method(method: str | Method, options: Mapping[str, Any] | None = None) -> Method:
    """A method by its name, with those of the options that it has; an object is returned unchanged.

    Raises:
        UserError: for an unknown name.
    """
    if isinstance(method, Method):
        return method
    if method not in method_names():
        raise UserError(f"method={method}: allowed values are {', '.join(method_names())}")
    reference = (LAW_METHODS | LINE_METHODS).get(method)
    named: Method = resolve_name(reference) if reference else load(GROUP, method)
    return named.configured(options or {})


@dataclass(frozen=True)
class FitSpec:
    """Every choice of a fit.

    Args:
        law: the law (methods that fit lines need none); by default auto for method=parametric, params_tokens for others.
        delta: where Huber's function of the log residual becomes linear, in units of log loss.
        counting: how params are counted; None takes the law's own, or `total` if the table lacks the columns for that.
        flops: convention of FLOPs; None takes the recorded column, else exact, else 6n.
        method: the method, with its options.
        solver: one of `solvers.SOLVERS`, or your own object (`solver.Solver`).
        starts: `varpro` (variable projection and random starts) or `grid` (the authors' full grid).
        grid_size: number of starts of a grid of another size.
        bootstrap: refits for intervals; None makes none.
        seed: of random starts and of resampling.
        holdouts: hold-outs whose errors the checklist includes.
        sensitivity: whether the checklist includes the fit at other deltas and countings.
        profile: whether to compute profile intervals of the parameters and the exponent.
        mixture: `refuse` rows whose losses cannot be compared (`shapelaw.runs.worlds`), or `allow` and flag them.
        weights: column with the weights of the rows in the objective, scaled to a mean of 1; None weighs all rows equally.
        over_cost: cost of an overestimate of the loss, as a multiple of that of an underestimate (`objective`).
        speedup: condition that selects a set of runs, whose speedup over the others is fitted (`laws.speedup`).
        fixed: parameter -> its given value, in natural units; the others are fitted.
        ties: `priors` breaks ties between laws that fit equally well by the law's priors (`ridge`); `optimum` takes the
            lowest objective, wherever on the ridge it lies.

    Raises:
        UserError: for other values, and for a law that the method cannot fit.
    """

    law: Law = AUTO
    delta: float = 1e-4
    counting: str | None = None
    flops: str | None = None
    method: Method = field(default_factory=partial(get_method, "parametric"))
    solver: Solver = field(default_factory=partial(get_solver, "newton"))
    starts: str = "varpro"
    grid_size: int | None = None
    bootstrap: BootstrapOptions | None = None
    seed: int = 0
    holdouts: tuple[Holdout, ...] = ()
    sensitivity: bool = False
    profile: bool = False
    mixture: str = "refuse"
    ties: str = "priors"
    fixed: Mapping[str, float] = field(default_factory=dict)
    weights: str | None = None
    speedup: str | None = None
    over_cost: float = 1.0

    def __post_init__(self) -> None:
        check_delta(self.delta)
        check_over_cost(self.over_cost)
        object.__setattr__(self, "law", law_for(self.law, self.method))
        if self.speedup and not isinstance(whole(self.law), SpeedupLaw):
            if self.method.name != "parametric":
                raise UserError(f"speedup: method={self.method.name} fits no law to two sets; give method=parametric")
            if self.law is not AUTO:  # candidates of auto are treated one by one
                object.__setattr__(self, "law", SpeedupLaw.of(self.law))
        if self.fixed and not isinstance(self.law, FixedLaw):
            self._refuse_fixed()
            held = FixedLaw(get_law(CANDIDATES[0]) if self.law is AUTO else self.law, self.fixed)
            if self.law is not AUTO:
                object.__setattr__(self, "law", held)
        if self.starts not in STARTS:
            raise UserError(f"starts={self.starts}: allowed values are {', '.join(STARTS)}")
        if self.grid_size is not None and self.grid_size < 1:
            raise UserError(
                f"grid_size={self.grid_size}: allowed values are whole numbers from 1, or none for the default"
            )
        if self.mixture not in MIXTURES:
            raise UserError(f"mixture={self.mixture}: allowed values are {', '.join(MIXTURES)}")
        if self.ties not in TIES:
            raise UserError(f"ties={self.ties}: allowed values are {', '.join(TIES)}")
        if self.seed < 0:
            raise UserError(f"seed={self.seed}: allowed values are whole numbers from 0; give one")
        for key, given in (("weights", self.weights), ("over_cost", self.over_cost if self.over_cost != 1.0 else None)):
            if given and self.method.name in (*LINE_METHODS, "staged"):
                raise UserError(
                    f"{key}={said(given)}: method={self.method.name} does not take it; give method=parametric"
                )
        if self.method.fits_law:
            self._check_method()

    def _refuse_fixed(self) -> None:
        if self.method.name in (*LINE_METHODS, "staged"):
            raise UserError(
                f"fixed: method={self.method.name} does not fit all parameters of a law at once; give method=parametric"
            )

    def _check_method(self) -> None:
        """Refuse a named method that the law does not list among those that can fit it."""
        name, allowed = self.method.name, self.law.methods
        if name in allowed or name not in method_names():
            return
        others = [law for law in sorted(law_names()) if name in get_law(law).methods]
        raise UserError(
            f"law={self.law.name} with method={name}: {self.method.does} fails for this law; give "
            f"method={' or '.join(allowed)}, or a law of method={name}: allowed values are {', '.join(others)}"
        )

    @classmethod
    def of(
        cls,
        law: str | Law = AUTO,
        *,
        method: str | Method = "parametric",
        options: Mapping[str, Any] | None = None,
        solver: str | Solver = "newton",
        bootstrap: BootstrapOptions | Mapping[str, Any] | None = None,
        holdouts: Iterable[Holdout | str] = (),
        **values: Any,
    ) -> FitSpec:
        """A spec from names.

        Args:
            law, method, solver: names or objects.
            options: options of a method given by name, such as dict(tolerance=0.1) for isoflop.
            bootstrap: options such as dict(n=1000, by="runs", kind="percentile", level=0.9).
            holdouts: hold-outs or their kinds.
            values: the other fields.

        Raises:
            UserError: for an unknown name, or a value that is not allowed.

        >>> FitSpec.of("interaction", delta=1e-3, bootstrap=dict(n=100)).bootstrap.n
        100
        """
        return cls(
            law=law if isinstance(law, Law) else get_law(law),
            method=get_method(method, options),
            solver=get_solver(solver),
            bootstrap=BootstrapOptions.of(bootstrap),
            holdouts=tuple(Holdout.of(holdout) for holdout in holdouts),
            **values,
        )

    @property
    def simplest(self) -> FitSpec:
        """This spec; if the data choose the law, the spec of the first candidate."""
        return replace(self, law=get_law(self.law.candidates[0])) if isinstance(self.law, LawChoice) else self

    @property
    def resampling(self) -> dict[str, Any] | None:
        """Options of the refits as plain values."""
        return None if self.bootstrap is None else dataclasses.asdict(self.bootstrap)


@dataclass(frozen=True)
class FitData:
    """Kept rows as a law reads them.

    Args:
        law: the law.
        counting: how its params are counted.
        columns: predictor -> values, each (n,).
        loss: the quantity that the law predicts, (n,): nats per token, or a share of wrong answers.
        runs: run of each row, (n,).
        prior: breaks ties between parameters that fit the rows equally well.
        weights: weights of the rows, (n,), with a mean of 1 over the whole table; None weighs all rows equally.
    """

    law: Law
    counting: str
    columns: Mapping[str, Array]
    loss: Array
    runs: NDArray[np.str_]
    prior: Penalty | None = None
    weights: Array | None = None

    @classmethod
    def of(cls, table: RunsTable, spec: FitSpec) -> FitData:
        """The kept rows of a table.

        Raises:
            UserError: if the table lacks a predictor, or the law has not been chosen yet.
        """
        if isinstance(spec.law, LawChoice):
            raise UserError(f"law={spec.law.name}: is chosen by a fit; give the name of a law, or the law of a result")
        counting = resolve_counting(table, spec)
        columns = table.columns_for(spec.law, counting, spec.flops)
        weights = weights_of(table, spec.weights) if spec.weights else None
        runs = table.kept["run"].to_numpy(dtype=str)
        return cls(spec.law, counting, columns, table.target(spec.law), runs, weights=weights)

    def rows(self, mask: NDArray[np.bool_]) -> FitData:
        """Some of the rows."""
        columns = {name: values[mask] for name, values in self.columns.items()}
        weights = None if self.weights is None else self.weights[mask]
        return replace(self, columns=columns, loss=self.loss[mask], runs=self.runs[mask], weights=weights)

    def problem(self, spec: FitSpec, weights: ArrayLike | None = None) -> Problem:
        """The objective over the rows, with multiplicities as weights if given.

        Raises:
            UserError: for input that cannot be fitted.
        """
        both = (
            self.weights if weights is None else np.asarray(weights) * (1.0 if self.weights is None else self.weights)
        )
        problem = Problem.of(self.law, self.columns, self.loss, spec.delta, both, spec.over_cost)
        return problem.with_prior(self.prior)

    def residuals(self, theta: ArrayLike) -> Array:
        """Log measured minus log predicted, (n,); for several vectors (t, n)."""
        theta = np.asarray(theta, dtype=np.float64)
        predict = self.law.log_prediction if theta.ndim == 1 else self.law.log_predictions
        return np.asarray(np.log(self.loss) - predict(theta, self.columns))


def resolve_counting(table: RunsTable, spec: FitSpec) -> str:
    """The counting of the spec, else the law's own, else `total` for tables that lack the shapes for that."""
    if spec.counting is not None:
        return spec.counting
    usual = spec.law.default_counting
    return usual if "params" not in spec.law.predictors or table.counts(usual) else "total"


def spec_of(result: FitResult) -> FitSpec:
    """Law, method, counting, fixed parameters, weights and over_cost of a fit: all that is needed to read its rows again."""
    law, settings = result.law or "params_tokens", result.settings
    return FitSpec.of(
        law,
        method=result.method,
        counting=settings.get("counting"),
        flops=settings.get("flops"),
        fixed=settings.get("fixed") or {},
        weights=settings.get("weights"),
        over_cost=settings.get("over_cost", 1.0),
    )
