"""A law with some parameters given instead of fitted: `fixed.E=1.6`, `fixed={"E": 1.6}`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from shapelaw.errors import UserError
from shapelaw.laws.base import Array, Columns, Law, Prior
from shapelaw.laws.choices import LawChoice
from shapelaw.laws.sums import SumLaw


class FixedLaw(Law):
    """`law` on the plane of its vectors where some parameters have given values: theta = origin + basis @ free entries.

    Its vector holds only the free entries; `natural` gives all parameters, including the fixed ones.

    Args:
        law: the law.
        fixed: parameter -> value, in natural units.

    Raises:
        UserError: for a name that is not a parameter of the law or cannot be fixed alone, a value that is not a number or has
            the wrong sign, or if no parameter remains to be fitted.

    >>> from shapelaw.laws import get_law
    >>> law = FixedLaw(get_law("params_tokens"), {"E": 1.6, "alpha": 0.5})
    >>> law.parameters, law.natural([6.0, 7.0, 0.3])["alpha"]
    (('A', 'B', 'beta'), 0.5)
    """

    def __init__(self, law: Law, fixed: Mapping[str, float]) -> None:
        self.law, self.fixed = law, _checked(law, fixed)
        self.rows, self.targets = _constraints(law, self.fixed)
        held = [law.parameters.index(name) for name in self.fixed]
        self.free = [k for k in range(len(law.parameters)) if k not in held]
        self.basis = np.eye(len(law.parameters))[:, self.free]
        self.origin = np.zeros(len(law.parameters))
        self.basis[held] = -np.linalg.solve(self.rows[:, held], self.rows[:, self.free])
        self.origin[held] = np.linalg.solve(self.rows[:, held], self.targets)
        self.name, self.formula, self.source = law.name, law.formula, law.source
        self.predictors, self.target, self.methods = law.predictors, law.target, law.methods
        self.free_predictors, self.histories = law.free_predictors, law.histories
        self.default_counting = law.default_counting
        self.parameters = tuple(law.parameters[k] for k in self.free)
        self.log_parameters = law.log_parameters & set(self.parameters)
        self.exponents = tuple(name for name in law.exponents if name in self.parameters)
        self.irreducible = law.irreducible if law.irreducible in self.parameters else None

    @property
    def priors(self) -> Mapping[str, Prior]:
        """Priors of the fitted parameters."""
        return {name: prior for name, prior in self.law.priors.items() if name in self.parameters}

    @property
    def questions(self) -> tuple[str, ...]:
        """Those of the law."""
        return self.law.questions

    @property
    def units(self) -> dict[str, str]:
        """Unit of every parameter, including the fixed ones."""
        return self.law.units

    def expand(self, free: ArrayLike) -> Array:
        """The law's own vectors, (..., p), from free entries, (..., q)."""
        return np.asarray(np.asarray(free, dtype=np.float64) @ self.basis.T + self.origin)

    def reduce(self, thetas: Array) -> Array:
        """Free entries, (..., q), of the law's own vectors, (..., p)."""
        return np.ascontiguousarray(thetas[..., self.free])

    def natural(self, theta: ArrayLike) -> dict[str, float]:
        """All parameters in natural units; the fixed ones are exactly the given values."""
        return self.law.natural(self.expand(theta)) | self.fixed

    def theta(self, parameters: Mapping[str, float]) -> Array:
        """The free entries from parameters in natural units."""
        return self.reduce(self.law.theta({**parameters, **self.fixed}))

    def log_prediction(self, theta: Array, columns: Columns) -> Array:
        """Log prediction of the law there."""
        return self.law.log_prediction(self.expand(theta), columns)

    def log_predictions(self, thetas: Array, columns: Columns) -> Array:
        """Those of the law there."""
        return self.law.log_predictions(self.expand(thetas), columns)

    def jacobian(self, theta: Array, columns: Columns) -> Array:
        """Its derivative by the free entries, (n, q)."""
        return np.asarray(self.law.jacobian(self.expand(theta), columns) @ self.basis)

    def compute_optimal_exponent(self, parameters: Mapping[str, float]) -> float | None:
        """The law's."""
        return self.law.compute_optimal_exponent(parameters)

    def slope_constraint(self, slope: float) -> tuple[Array, float] | None:
        """The law's constraint on the plane; None if the fixed parameters decide it."""
        held = self.law.slope_constraint(slope)
        return None if held is None or not self._on_plane(*held)[0].any() else self._on_plane(*held)

    def constraint(self, statistic: str, value: float) -> tuple[Array, float]:
        """The law's constraint on the plane.

        Raises:
            UserError: as for the law, and for a fixed parameter.
        """
        if statistic not in self.parameters:
            return super().constraint(statistic, value)
        return self._on_plane(*self.law.constraint(statistic, value))

    def _on_plane(self, row: Array, target: float) -> tuple[Array, float]:
        return np.asarray(row @ self.basis), float(target - row @ self.origin)

    def start_levels(self, spread: int | None = None) -> tuple[Array, ...]:
        """The law's, of the free entries."""
        levels = self.law.start_levels(spread)
        return tuple(levels[k] for k in self.free)


def whole(law: Law) -> Law:
    """The law with all its parameters free."""
    return law.law if isinstance(law, FixedLaw) else law


def expanded(law: Law, theta: ArrayLike) -> Array:
    """Vectors of `whole(law)`, (..., p), from those of the law, (..., q)."""
    return law.expand(theta) if isinstance(law, FixedLaw) else np.asarray(theta, dtype=np.float64)


def sum_of(law: Law) -> SumLaw | None:
    """The law as a sum of powers, with or without fixed parameters; None if it is not one."""
    inner = whole(law)
    return inner if isinstance(inner, SumLaw) else None


def _checked(law: Law, fixed: Mapping[str, float]) -> dict[str, float]:
    if isinstance(law, LawChoice) or not law.parameters:
        raise UserError(f"fixed: law={law.name} is chosen by the fit, so nothing can be fixed; give the name of a law")
    for name, value in fixed.items():
        if name not in law.parameters:
            raise UserError(f"fixed.{name}: law={law.name} has no such parameter; it has {', '.join(law.parameters)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"fixed.{name}={value}: allowed values are finite numbers, in {law.units.get(name, '1')}")
        if name in law.log_parameters and not value >= 0:
            raise UserError(f"fixed.{name}={value}: allowed values are numbers from 0, in {law.units.get(name, '1')}")
    if len(fixed) == len(law.parameters):
        raise UserError(f"fixed: all parameters of law={law.name} are fixed, so nothing is left to fit; leave one out")
    return {name: float(value) for name, value in fixed.items()}


def _constraints(law: Law, fixed: Mapping[str, float]) -> tuple[Array, Array]:
    """Rows and targets such that rows @ theta == targets exactly when the parameters have these values."""
    held = []
    for name, value in fixed.items():
        try:
            held.append(law.constraint(name, value))
        except UserError as error:
            raise UserError(f"fixed.{name}: cannot be fixed in law={law.name} ({str(error).split(';')[0]})") from None
    return np.array([row for row, _ in held]), np.array([target for _, target in held])
