"""How many times faster one set of runs learns than another: one law for both, in which its tokens count `speedup` times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike

from shapelaw.errors import UserError
from shapelaw.laws.base import LOG_CEILING, Array, Columns, Law, Prior
from shapelaw.laws.sums import Design, SumLaw, Term

SET = "compared_set"
"""Column: 1 for the rows of the compared set, 0 for the others."""
SPEEDUP = "speedup"
SCALED = ("tokens", "flops")
"""Predictors that the speedup can multiply."""


@dataclass(frozen=True, kw_only=True)
class SpeedupLaw(SumLaw):
    """A law of two sets of runs that share all its parameters; a token of the second set counts as `speedup` tokens.

    So at equal params, the second set reaches a loss with 1/speedup of the tokens (or FLOPs, for a law of FLOPs). The term
    B/tokens^beta becomes B exp(h set)/tokens^beta with h = -beta ln speedup, so it stays a sum of powers; theta holds h.

    Args:
        law: the law that both sets share.

    >>> from shapelaw.laws import get_law
    >>> law, sizes = get_law("speedup(params_tokens)"), {"params": [1e8] * 2, "tokens": [4e9, 2e9], SET: [0.0, 1.0]}
    >>> first, second = law.predict({"A": 400.0, "B": 400.0, "alpha": 0.3, "beta": 0.3, "E": 1.7, SPEEDUP: 2.0}, sizes)
    >>> bool(abs(first - second) < 1e-12)
    True
    """

    law: SumLaw

    @classmethod
    def of(cls, law: Law) -> SpeedupLaw:
        """The same law of two sets.

        Raises:
            UserError: for a law that is not a sum of powers with one term in tokens, or in FLOPs.
        """
        terms = [_scaled(term) for term in law.terms] if isinstance(law, SumLaw) else []
        if not isinstance(law, SumLaw) or isinstance(law, SpeedupLaw) or len([s for s in terms if s]) != 1:
            raise UserError(
                f"speedup: law={law.name} cannot be shared by two sets of runs; give a sum of powers with one term of tokens "
                "or FLOPs, such as params_tokens"
            )
        own = {field.name: getattr(law, field.name) for field in fields(SumLaw)}
        scaled = next(name for name in terms if name)
        changed = (
            replace(term, grows={**term.grows, SET: SPEEDUP}) if name else term
            for term, name in zip(law.terms, terms, strict=True)
        )
        named = {
            "name": f"{SPEEDUP}({law.name})",
            "formula": f"{law.formula}, {scaled} of the second set times {SPEEDUP}",
        }
        return cls(**{**own, **named, "terms": tuple(changed)}, law=law)

    @property
    def _place(self) -> int:
        """Where theta holds h."""
        return len(self.terms) + [name for term in self.terms for name, _, _ in term.exponents].index(SPEEDUP)

    @property
    def _slope(self) -> tuple[Array, float]:
        """(row, constant) such that h = (row @ theta + constant) ln speedup: minus the exponent of the scaled predictor."""
        row, place = np.zeros(len(self.parameters)), len(self.terms)
        for term in self.terms:
            for _, predictor, sign in term.exponents:
                row[place] = sign if SET in term.grows and predictor in SCALED else 0.0
                place += 1
        fixed = sum(p for t in self.terms if SET in t.grows for name, p in t.fixed.items() if name in SCALED)
        return row, float(fixed)

    @property
    def parameters(self) -> tuple[str, ...]:  # type: ignore[override]
        """The law's parameters, with the speedup after its exponents."""
        own = self.law.parameters
        return (*own[: self._place], SPEEDUP, *own[self._place :])

    @property
    def exponents(self) -> tuple[str, ...]:  # type: ignore[override]
        """The law's."""
        return self.law.exponents

    @property
    def free_predictors(self) -> frozenset[str]:  # type: ignore[override]
        """The set."""
        return frozenset({SET})

    @property
    def priors(self) -> Mapping[str, Prior]:
        """The law's."""
        return self.law.priors

    @property
    def questions(self) -> tuple[str, ...]:
        """None, because a size belongs to no set."""
        return ()

    @property
    def units(self) -> dict[str, str]:
        """The law's units; the speedup is a factor."""
        return self.law.units | {SPEEDUP: "times"}

    def natural(self, theta: ArrayLike) -> dict[str, float]:
        """Parameters in natural units; a speedup that no exponent bounds is capped at e^700."""
        values = np.asarray(theta, dtype=np.float64)
        own = self.law.natural(np.delete(values, self._place))
        row, constant = self._slope
        slope = float(row @ values) + constant
        log_speedup = float(values[self._place]) / slope if slope else 0.0
        speedup = float(np.exp(np.clip(log_speedup, -LOG_CEILING, LOG_CEILING)))
        return {name: speedup if name == SPEEDUP else own[name] for name in self.parameters}

    def theta(self, parameters: Mapping[str, float]) -> Array:
        """The solver's vector.

        Raises:
            UserError: as for the law, and for a speedup that is not positive.
        """
        speedup = dict(zip(self.parameters, self._ordered(parameters), strict=True))[SPEEDUP]
        if not speedup > 0:
            raise UserError(f"{SPEEDUP}={speedup} in law {self.name}: allowed values are numbers above 0")
        theta = np.insert(self.law.theta(parameters), self._place, 0.0)
        row, constant = self._slope
        theta[self._place] = (row @ theta + constant) * np.log(speedup)
        return theta

    def design(self, columns: Columns) -> Design:
        """As for every sum; the set enters as its own logarithm."""
        given = {name: np.exp(np.asarray(v, dtype=np.float64)) if name == SET else v for name, v in columns.items()}
        return super().design(given)

    def compute_optimal_exponent(self, parameters: Mapping[str, float]) -> float | None:
        """The law's, the same for both sets."""
        return self.law.compute_optimal_exponent(parameters)

    def slope_constraint(self, slope: float) -> tuple[Array, float] | None:
        """The law's."""
        held = self.law.slope_constraint(slope)
        return None if held is None else (np.insert(held[0], self._place, 0.0), held[1])

    def constraint(self, statistic: str, value: float) -> tuple[Array, float]:
        """The law's; a speedup ties h to the exponent."""
        if statistic != SPEEDUP:
            row, target = self.law.constraint(statistic, value)
            return np.insert(row, self._place, 0.0), target
        slopes, constant = self._slope
        row = -slopes * np.log(value)
        row[self._place] = 1.0
        return row, constant * float(np.log(value))

    def start_levels(self, spread: int | None = None) -> tuple[Array, ...]:
        """The law's, and h from -0.3 to 0.3: speedups of a half to 2 at an exponent of 0.4."""
        levels = self.law.start_levels(spread)
        return (*levels[: self._place], np.linspace(-0.3, 0.3, spread or 3), *levels[self._place :])


def _scaled(term: Term) -> str:
    """The predictor of a term that the speedup can multiply."""
    return next((name for name in SCALED if name in term.predictors), "")


def speedup_of(name: str, find: Callable[[str], Law]) -> SpeedupLaw | None:
    """The law of two sets that a saved fit names; None for any other name."""
    inside = name.startswith(f"{SPEEDUP}(") and name.endswith(")")
    return SpeedupLaw.of(find(name[len(SPEEDUP) + 1 : -1])) if inside else None
