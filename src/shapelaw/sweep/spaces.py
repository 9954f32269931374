"""The space of a search: intervals, and lists to choose from; each value of any other list gets its own study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override

from shapelaw.errors import UserError

PROBES = (0.0, 0.5, 1.0)
"""Positions on an axis, from its lower to its upper end, that are checked before the first trial. Their jobs define a study's
question, so other positions would separate a study from its earlier starts."""


@dataclass(frozen=True)
class Interval:
    """Every number from low to high, on a logarithmic or linear scale."""

    low: float
    high: float
    log: bool

    def at(self, share: float) -> float:
        """The number at a share of the way from low to high, on the interval's scale."""
        if share in (0.0, 1.0):
            return self.high if share else self.low
        if self.log:
            return math.exp((1 - share) * math.log(self.low) + share * math.log(self.high))
        return (1 - share) * self.low + share * self.high


@dataclass(frozen=True)
class Choices:
    """One of several values, in the notation of overrides."""

    values: tuple[str, ...]

    def at(self, share: float) -> str:
        """The value at a share of the way through the list."""
        return self.values[round(share * (len(self.values) - 1))]


@dataclass(frozen=True)
class Space:
    """The axes of a search by their keys."""

    axes: Mapping[str, Interval | Choices]

    def probes(self) -> list[dict[str, float | str]]:
        """Lower ends, middles and upper ends of all axes."""
        return [{key: axis.at(share) for key, axis in self.axes.items()} for share in PROBES]

    def further_probes(self) -> list[dict[str, float | str]]:
        """The other values of every list, each with the middles of the other axes."""
        first, middle, last = self.probes()
        return [
            {**middle, key: value}
            for key, axis in self.axes.items()
            if isinstance(axis, Choices)
            for value in axis.values
            if value not in (first[key], middle[key], last[key])
        ]

    def described(self) -> dict[str, dict[str, Any]]:
        """Its plain values; two searches with equal ones have the same space."""
        return {key: asdict(axis) for key, axis in sorted(self.axes.items())}


def lines(values: Mapping[str, float | str]) -> list[str]:
    """The overrides that set the values of a point; a float keeps all its digits."""
    return [f"{key}={value}" for key, value in values.items()]


def split(overrides: Sequence[Override], choose: Sequence[str], log: Sequence[str]) -> tuple[Space, list[Override]]:
    """The space of a search, and the overrides that are not part of it.

    Args:
        overrides: parsed; the last one of a key counts.
        choose: keys whose lists of values are searched instead of giving one study per value.
        log: keys whose intervals are on a logarithmic scale unless they are tagged linear.

    Raises:
        UserError: for an empty interval, one on a logarithmic scale that is not above 0, or nothing to search.
    """
    last = {override.get_key_element(): override for override in overrides}
    unswept = [key for key in choose if key not in last or not last[key].is_sweep_override()]
    if unswept:
        raise UserError(f"hydra.sweeper.choose: {unswept[0]} has no list of values; give {unswept[0]}=A,B,...")
    axes = {key: _axis(key, override, log) for key, override in last.items() if _searched(key, override, choose)}
    if not axes:
        raise UserError(
            "hydra/sweeper=optuna: there is nothing to search; give an interval, such as 'lr_base=interval(0.5,50)', or the "
            "key of a list in hydra.sweeper.choose=[KEY]"
        )
    return Space(axes), [override for key, override in last.items() if key not in axes]


def _searched(key: str, override: Override, choose: Sequence[str]) -> bool:
    return override.is_interval_sweep() or key in choose


def _axis(key: str, override: Override, log: Sequence[str]) -> Interval | Choices:
    if not override.is_interval_sweep():
        return Choices(tuple(dict.fromkeys(override.sweep_string_iterator())))
    sweep = override.value()
    assert isinstance(sweep, IntervalSweep)
    assert sweep.start is not None
    assert sweep.end is not None
    low, high, given = float(sweep.start), float(sweep.end), override.input_line
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(
            f"{given}: the lower end must be below the upper one, both finite; give {key}=interval(LOW,HIGH)"
        )
    scaled = (key in log or "log" in sweep.tags) and "linear" not in sweep.tags
    if scaled and low <= 0:
        raise UserError(
            f"{given}: on a logarithmic scale both ends must be above 0; raise the lower one, or give "
            f"{key}=tag(linear,interval({low:g},{high:g}))"
        )
    return Interval(low, high, scaled)
