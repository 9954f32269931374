"""The interface of a law, on which the solvers, the bootstrap, the profile and the prescriptions rely."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shapelaw.errors import UserError
from shapelaw.runs.columns import is_canonical

Array = NDArray[np.float64]
Columns = Mapping[str, ArrayLike]

LOG_FLOOR = -60.0
"""Lowest logarithm of E, and of a coefficient beside centred predictors: e^-60 is far below one rounding error of any loss."""
LOG_ABSENT = -1e6
"""Logarithm of a coefficient of exactly 0: no exponent of a predictor makes its term noticeable."""
LOG_NOTHING = -36.7
"""Logarithm below which E is zero: less than one rounding error of a loss of 1 nat, which no optimizer can see."""
LOG_CEILING = 700.0
"""Largest logarithm whose exponential is still a float64."""
EXPONENT = "compute_optimal_exponent"
"""Name of the statistic beside the parameters: the exponent of compute-optimal params in FLOPs."""
UNITS = {
    "width": "features",
    "depth": "blocks",
    "params": "parameters",
    "tokens": "tokens",
    "batch_tokens": "tokens",
    "flops": "FLOPs",
    "loss": "nats per token",
}
"""Units of the canonical columns."""


def in_loss_unit(units: Mapping[str, str], loss_unit: str) -> dict[str, str]:
    """Units with those of the loss converted from nats per token to another unit.

    >>> in_loss_unit({"E": "nats per token", "k": "1/nat"}, "bits per byte")
    {'E': 'bits per byte', 'k': '1/(bits per byte)'}
    """
    if loss_unit == UNITS["loss"]:
        return dict(units)
    known = {UNITS["loss"]: loss_unit, "1/nat": f"1/({loss_unit})"}
    return {name: known.get(unit, unit) for name, unit in units.items()}


USUAL_QUESTIONS = ("best", "reach", "at")
"""Questions that a law of sizes and tokens answers: best size for a budget, cheapest size for a loss, loss of a size."""


class Prior(NamedTuple):
    """A normal prior of one entry of theta."""

    centre: float
    sd: float


class Law(ABC):
    """A form of the loss, or of another measured quantity (`target`), as a function of a run's size.

    A subclass names its parts and defines `log_prediction`. The defaults of the rest suit every law whose parameters
    are fitted either directly or in their logarithm (`log_parameters`). The solver's vector theta has one entry
    per name in `parameters`, in that order.
    """

    name: str
    """Key in the registry and in conf/law."""
    formula: str
    """The law as text."""
    source: str
    """Paper and section."""
    predictors: tuple[str, ...]
    """Canonical columns that the law reads, among width, depth, params, tokens and flops, and further axes: other columns
    of the runs, such as heads or experts."""
    parameters: tuple[str, ...]
    """Names in natural units: coefficients rather than their logarithms, E in units of the loss."""
    free_predictors: frozenset[str] = frozenset()
    """Predictors that may be 0 or the same in all rows, because no exponent depends on them alone."""
    histories: frozenset[str] = frozenset()
    """Predictors that hold the history before each row, (n, ...), instead of one value."""
    log_parameters: frozenset[str] = frozenset()
    """Parameters whose entry of theta is a logarithm."""
    exponents: tuple[str, ...] = ()
    """Parameters that are exponents of a predictor."""
    target: str = "loss"
    """Canonical column that the law predicts: loss, or error (the share of wrong answers)."""
    irreducible: str | None = None
    """The parameter that is the irreducible loss, if the law has one."""
    default_counting: str = "total"
    """Convention by which the column params is best counted for this law (see shapelaw.counting)."""
    methods: tuple[str, ...] = ("parametric",)
    """Names of the methods that can fit it; by default a free fit of all parameters at once."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Predictors that are not canonical columns; questions to the law must give their values."""
        return tuple(name for name in self.predictors if not is_canonical(name) and name not in self.histories)

    @property
    def priors(self) -> Mapping[str, Prior]:
        """Entry of theta -> its weak prior, for use if the data cannot tell; empty for a law without priors."""
        return {}

    @property
    def questions(self) -> tuple[str, ...]:
        """Names of the questions that it answers; a law may name fewer, or its own questions."""
        if self.target != "loss" or not self.predictors:
            return ()
        sizes = {*self.predictors} - {*self.axes}
        if sizes == {"flops"}:
            return ("flops",)
        usual = USUAL_QUESTIONS if "tokens" in self.predictors else ()
        return (*usual, "size") if sizes == {"params", "tokens"} else usual

    @property
    def units(self) -> dict[str, str]:
        """Unit of every parameter and of the loss."""
        named = {name: "1" for name in self.parameters}
        if self.irreducible is not None:
            named[self.irreducible] = UNITS["loss"]
        return named | {"loss": UNITS["loss"]}

    def natural(self, theta: ArrayLike) -> dict[str, float]:
        """Parameters in natural units from the solver's vector; an E that no float64 loss shows becomes an exact zero.

        A coefficient outside e^-745 to e^700 becomes 0 or e^700; only the vector holds such a fit.
        """
        values = np.asarray(theta, dtype=np.float64)
        return {
            name: self._from_log(name, value) if name in self.log_parameters else float(value)
            for name, value in zip(self.parameters, values, strict=True)
        }

    def _from_log(self, name: str, value: float) -> float:
        nothing = name == self.irreducible and value <= LOG_NOTHING
        return 0.0 if nothing else from_log(value)

    def theta(self, parameters: Mapping[str, float]) -> Array:
        """The solver's vector from parameters in natural units; the term of a coefficient of 0 is absent.

        Raises:
            UserError: if a parameter is missing, or negative where its logarithm is needed.
        """
        values = self._ordered(parameters)
        for name, value in zip(self.parameters, values, strict=True):
            if name in self.log_parameters and not value >= 0:
                raise UserError(f"{name}={value} in law {self.name}: allowed values are numbers from 0")
        return np.array(
            [
                to_log(value) if name in self.log_parameters else value
                for name, value in zip(self.parameters, values, strict=True)
            ]
        )

    def _ordered(self, parameters: Mapping[str, float]) -> list[float]:
        missing = [name for name in self.parameters if name not in parameters]
        if missing:
            raise UserError(f"law {self.name} needs the parameters {', '.join(self.parameters)}; missing: {missing}")
        return [float(parameters[name]) for name in self.parameters]

    @abstractmethod
    def log_prediction(self, theta: Array, columns: Columns) -> Array:
        """Log of the predicted loss, shape (n,)."""

    def log_predictions(self, thetas: Array, columns: Columns) -> Array:
        """Log of the predicted loss at each of several vectors, (t, p) to (t, n)."""
        return np.array([self.log_prediction(theta, columns) for theta in thetas])

    def jacobian(self, theta: Array, columns: Columns) -> Array:
        """Derivative of the log prediction by theta, shape (n, p).

        This default takes central differences of fourth order, accurate to about 1e-10; your own law may rely on it.
        """
        theta = np.asarray(theta, dtype=np.float64)
        slopes = []
        for i in range(len(theta)):
            step = np.zeros_like(theta)
            step[i] = 1e-3 * max(1.0, abs(theta[i]))
            near = self.log_prediction(theta + step, columns) - self.log_prediction(theta - step, columns)
            far = self.log_prediction(theta + 2 * step, columns) - self.log_prediction(theta - 2 * step, columns)
            slopes.append((8 * near - far) / (12 * step[i]))
        return np.stack(slopes, axis=1)

    def predict(self, parameters: Mapping[str, float], columns: Mapping[str, Any]) -> Array:
        """Predicted loss in nats per token, from parameters in natural units, shape (n,).

        Raises:
            UserError: as for `theta` and `predict_at`.
        """
        return self.predict_at(self.theta(parameters), columns)

    def predict_at(self, theta: Array, columns: Mapping[str, Any]) -> Array:
        """Predicted loss in nats per token, from the solver's vector, shape (n,).

        Raises:
            UserError: at a row where the law has no value, or one too large for a number.
        """
        with np.errstate(all="ignore"):
            predicted = np.asarray(np.exp(self.log_prediction(theta, columns)))
        wrong = np.flatnonzero(~np.isfinite(predicted))
        if len(wrong):
            raise UserError(self._no_number(int(wrong[0]), float(predicted[wrong[0]]), columns))
        return predicted

    def _no_number(self, row: int, value: float, columns: Mapping[str, Any]) -> str:
        reason = f"no positive {self.target}" if np.isnan(value) else f"a {self.target} above 1e308"
        single = [name for name in self.predictors if name not in self.histories]
        read = ((name, np.atleast_1d(np.asarray(columns[name], dtype=np.float64))) for name in single)
        given = ", ".join(f"{name}={values[row if len(values) > 1 else 0]:g}" for name, values in read)
        return (
            f"law={self.name}: its parameters give {reason} at row {row} ({given}); predict closer to the fitted runs, "
            "or choose another law"
        )

    def compute_optimal_exponent(self, parameters: Mapping[str, float]) -> float | None:
        """Exponent a of the compute-optimal parameters N ~ C^a when FLOPs are proportional to params x tokens.

        None if the law defines none in closed form.
        """
        return None

    def slope_constraint(self, slope: float) -> tuple[Array, float] | None:
        """(row, value) such that row @ theta == value exactly when the compute-optimal exponent equals `slope`."""
        return None

    def constraint(self, statistic: str, value: float) -> tuple[Array, float]:
        """(row, target) such that row @ theta == target exactly when the statistic has this value.

        Args:
            statistic: name of a parameter, or `compute_optimal_exponent`.

        Raises:
            UserError: if the statistic is not a linear constraint on theta under this law.
        """
        if statistic == EXPONENT:
            held = self.slope_constraint(value)
            if held is None:
                raise UserError(f"law {self.name} defines no {EXPONENT} in closed form; allowed: {self.parameters}")
            return held
        if statistic not in self.parameters:
            raise UserError(f"statistic={statistic}: allowed values are {', '.join(self.parameters)} and {EXPONENT}")
        row = np.array([float(name == statistic) for name in self.parameters])
        return row, to_log(value) if statistic in self.log_parameters else float(value)

    def start_levels(self, spread: int | None = None) -> tuple[Array, ...]:
        """Levels of each entry of theta from which starts are drawn; `spread` sets their number.

        The default suits log coefficients of up to e^25 and exponents of up to 2.
        """
        return tuple(
            level_range("irreducible" if name == self.irreducible else self._kind(name), spread)
            for name in self.parameters
        )

    def _kind(self, name: str) -> str:
        return "coefficient" if name in self.log_parameters else "exponent"


LEVELS = {
    "exponent": (0.0, 2.0, 5, 2.5),
    "coefficient": (0.0, 25.0, 6, 30.0),
    "irreducible": (-1.0, 1.0, 5, 1.5),
}
"""First level, last level and their number in the authors' grid; last level in their study of grid sizes (Fig 20)."""


def level_range(kind: str, spread: int | None = None) -> Array:
    """Levels of the authors' grid, or `spread` levels over the wider box of their study of grid sizes."""
    low, high, count, high_wide = LEVELS[kind]
    return np.linspace(low, high, count) if spread is None else np.linspace(low, high_wide, spread)


def from_log(log_value: float) -> float:
    """The positive number with this logarithm: 0 or e^700 where no float64 can hold it."""
    return float(np.exp(min(log_value, LOG_CEILING)))


def to_log(value: float) -> float:
    """The logarithm of a number from 0."""
    return float(np.log(value)) if value > 0 else LOG_ABSENT
