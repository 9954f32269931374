"""A law on a hyperplane of its parameters, which the general solver needs for a profile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapelaw.laws import Columns, Law

Array = NDArray[np.float64]


class RestrictedLaw(Law):
    """`law` where row @ theta == target; its vector is theta without the entry on which the constraint depends most."""

    def __init__(self, law: Law, row: Array, target: float) -> None:
        self.law = law
        pivot = int(np.argmax(np.abs(row)))
        self.free = np.array([k for k in range(len(row)) if k != pivot])
        self.basis = np.eye(len(row))[:, self.free]
        self.basis[pivot] = -row[self.free] / row[pivot]
        self.origin = np.zeros(len(row))
        self.origin[pivot] = target / row[pivot]
        self.name, self.formula, self.source = f"{law.name} restricted", law.formula, law.source
        self.predictors = law.predictors
        self.histories = law.histories
        self.parameters = tuple(law.parameters[k] for k in self.free)
        self.log_parameters = law.log_parameters & set(self.parameters)

    def reduce(self, thetas: Array) -> Array:
        """Free entries of each row."""
        return np.asarray(thetas[:, self.free])

    def expand(self, reduced: Array) -> Array:
        """The law's own theta."""
        return np.asarray(self.origin + self.basis @ reduced)

    def log_prediction(self, theta: Array, columns: Columns) -> Array:
        """Log prediction on the hyperplane."""
        return self.law.log_prediction(self.expand(theta), columns)

    def jacobian(self, theta: Array, columns: Columns) -> Array:
        """Derivative of the log prediction by the free entries."""
        return np.asarray(self.law.jacobian(self.expand(theta), columns) @ self.basis)
