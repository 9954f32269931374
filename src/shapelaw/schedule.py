"""Learning-rate schedules as pure functions of tokens. Imports no torch.

A factor multiplies the peak rate of a run (`lr_rules.lr_eff`). It is asked about the tokens seen BEFORE a step, so
step s (from 0) of world batch b tokens runs at the factor of s * b tokens. Nothing is rounded to steps: a warm-up of
80M tokens at 4,194,304 tokens a step (19.07 steps) ramps over the steps 0 (factor 0: only the moments fill) to 19
(factor 0.996) and is over at step 20. A step whose tokens straddle the end of a phase takes the factor at its
beginning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from shapelaw.config import CooldownConfig, ScheduleConfig
from shapelaw.config.option import check_option
from shapelaw.errors import UserError
from shapelaw.plugins import part_of

POINTS = 64
"""Parts of a run or branch, at whose ends a user's function is tried."""
COOLDOWN_FRACTION = 0.1
"""Tokens of the published cooldowns, as a fraction of those seen before (Gemstones, section 3.2)."""


@dataclass(frozen=True)
class Constant:
    """Linear warm-up from 0 over `warmup_tokens`, then 1 (the Gemstones: 80M tokens)."""

    warmup_tokens: float = 80e6

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_tokens)

    def factor(self, tokens_seen: float) -> float:
        """Factor of the step before which `tokens_seen` tokens were seen."""
        return _warmup(tokens_seen, self.warmup_tokens)


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine from 1 to `final_factor` at `total_tokens`; constant after that."""

    total_tokens: float
    warmup_tokens: float = 0.0
    final_factor: float = 0.0

    def __post_init__(self) -> None:
        _check_span(self.warmup_tokens, self.total_tokens, self.final_factor)

    def factor(self, tokens_seen: float) -> float:
        """Factor of the step before which `tokens_seen` tokens were seen."""
        done = _progress(tokens_seen, self.warmup_tokens, self.total_tokens)
        cosine = 0.5 * (1.0 + math.cos(math.pi * done))
        return _warmup(tokens_seen, self.warmup_tokens) * (self.final_factor + (1.0 - self.final_factor) * cosine)


@dataclass(frozen=True)
class Linear:
    """Linear warm-up, then a straight line from 1 to `final_factor` at `total_tokens`; constant after that."""

    total_tokens: float
    warmup_tokens: float = 0.0
    final_factor: float = 0.0

    def __post_init__(self) -> None:
        _check_span(self.warmup_tokens, self.total_tokens, self.final_factor)

    def factor(self, tokens_seen: float) -> float:
        """Factor of the step before which `tokens_seen` tokens were seen."""
        done = _progress(tokens_seen, self.warmup_tokens, self.total_tokens)
        return _warmup(tokens_seen, self.warmup_tokens) * (1.0 - (1.0 - self.final_factor) * done)


@dataclass(frozen=True)
class WarmupStableDecay:
    """Linear warm-up, then 1, then a line to `final_factor` over the last `decay_fraction` of `total_tokens`."""

    total_tokens: float
    warmup_tokens: float = 0.0
    decay_fraction: float = 0.1
    final_factor: float = 0.0

    def __post_init__(self) -> None:
        _check_span(self.warmup_tokens, self.total_tokens, self.final_factor)
        if not 0.0 < self.decay_fraction <= 1.0:
            raise UserError(
                f"schedule.decay_fraction={self.decay_fraction}: allowed values are fractions above 0 up to 1; give e.g. 0.1"
            )

    def factor(self, tokens_seen: float) -> float:
        """Factor of the step before which `tokens_seen` tokens were seen."""
        decay_start = self.total_tokens * (1.0 - self.decay_fraction)
        done = _progress(tokens_seen, decay_start, self.total_tokens)
        return _warmup(tokens_seen, self.warmup_tokens) * (1.0 - (1.0 - self.final_factor) * done)


@dataclass(frozen=True)
class OwnSchedule:
    """A user's: NAME(tokens_seen, total_tokens, warmup_tokens, **options), found by its file or module (docs/your_model.md).

    Args:
        reference: of the function.
        total_tokens, warmup_tokens, options: that it is called with.
        code: what stands for it, so that one that is planned is not exchanged for another.

    Raises:
        UserError: if it is not there, fails, or gives anything but finite factors from 0 on, at any of 65 points of the run.
    """

    reference: str
    total_tokens: float
    warmup_tokens: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""

    def __post_init__(self) -> None:
        for part in range(POINTS + 1):
            self.factor(self.total_tokens * part / POINTS)

    def factor(self, tokens_seen: float) -> float:
        """Factor of the step before which `tokens_seen` tokens were seen."""
        return own_factor(
            "schedule", self.reference, self.code, (tokens_seen, self.total_tokens, self.warmup_tokens), self.options
        )


@cache
def _function(group: str, reference: str, code: str) -> Callable[..., Any]:
    return part_of(group, reference)  # type: ignore[no-any-return]


def own_factor(group: str, reference: str, code: str, values: tuple[float, ...], options: Mapping[str, Any]) -> float:
    """The factor that a user's function gives.

    Raises:
        UserError: in one line, if it fails or gives no factor.
    """
    part = _function(group, reference, code)
    try:
        factor = part(*values, **options)
        sound = isinstance(factor, int | float) and math.isfinite(factor) and factor >= 0
    except Exception as error:
        raise UserError(
            f"{group}={reference}: called with {values} it fails ({type(error).__name__}: {error}); docs/your_model.md says "
            f"what a {group} is called with"
        ) from error
    if not sound:
        raise UserError(
            f"{group}={reference}: called with {values} it gives {factor!r}; "
            "allowed values are finite numbers from 0 on, the factor "
            "on the rate (docs/your_model.md)"
        )
    return float(factor)


SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1.0 - done,
    "sqrt": lambda done: 1.0 - math.sqrt(done),
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}
"""How a cooldown falls from 1 to 0, by the share of it that is done."""


@dataclass(frozen=True)
class Cooldown:
    """From 1 at `start_tokens` to `final_factor` after a further `fraction` of them, along a line or another shape.

    With u the share of the branch that is done and s(u) `linear` 1 - u, `sqrt` 1 - sqrt(u), `cosine` (1 + cos(pi u)) / 2, or a
    user's: final_factor + (1 - final_factor) s(u). It multiplies the factor of the schedule it continues. The last step before
    the end still moves the weights: of n steps, number i (from 0) runs at u = i / n.

    Source: Gemstones, section 3.2 (cooldown ablation, from every 10B tokens up to 100B) for the line; Haegele et al. 2024
    (arXiv 2405.18392), section 3, for 1 - sqrt.
    """

    start_tokens: float
    fraction: float = COOLDOWN_FRACTION
    shape: str = "linear"
    final_factor: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start_tokens) and self.start_tokens > 0):
            raise UserError(f"cooldown.start_tokens={self.start_tokens}: allowed values are positive numbers of tokens")
        if not (math.isfinite(self.fraction) and self.fraction > 0):
            raise UserError(f"cooldown.fraction={self.fraction}: allowed values are positive fractions; give e.g. 0.1")
        check_option(CooldownConfig, "final_factor", self.final_factor, "cooldown.final_factor")
        if self.shape not in SHAPES:
            for part in range(POINTS + 1):
                self._falls(part / POINTS)

    @property
    def end_tokens(self) -> float:
        """Tokens seen when the rate reaches its end."""
        return self.start_tokens * (1.0 + self.fraction)

    def factor(self, tokens_seen: float) -> float:
        """Factor of the step before which `tokens_seen` tokens were seen."""
        left = self._falls(_progress(tokens_seen, self.start_tokens, self.end_tokens))
        return self.final_factor + (1.0 - self.final_factor) * left

    def _falls(self, done: float) -> float:
        if self.shape in SHAPES:
            return SHAPES[self.shape](done)
        return own_factor("cooldown", self.shape, self.code, (done,), self.options)


Schedule = Constant | Cosine | Linear | WarmupStableDecay | OwnSchedule


def lr_factor(tokens_seen: float, schedule: Schedule, cooldown: Cooldown | None = None) -> float:
    """Factor on the peak rate for the step before which `tokens_seen` tokens were seen, between 0 and 1."""
    factor = schedule.factor(tokens_seen)
    return factor if cooldown is None else factor * cooldown.factor(tokens_seen)


def cooldown_end_step(start_step: int, fraction: float = COOLDOWN_FRACTION) -> int:
    """Steps done at the end of a cooldown from `start_step` on: start_step + round(fraction * start_step) - 1.

    All ten published points end there, one step short of the fraction (a half rounds to the even number).
    """
    return start_step + round(fraction * start_step) - 1


def _warmup(tokens_seen: float, warmup_tokens: float) -> float:
    return 1.0 if tokens_seen >= warmup_tokens else tokens_seen / warmup_tokens


def _progress(tokens_seen: float, start: float, end: float) -> float:
    """Fraction of the way from start to end, kept within 0 and 1."""
    if tokens_seen >= end:
        return 1.0
    return max(tokens_seen - start, 0.0) / (end - start)


def _check_warmup(warmup_tokens: float) -> None:
    check_option(ScheduleConfig, "warmup_tokens", warmup_tokens, "schedule.warmup_tokens")


def _check_span(warmup_tokens: float, total_tokens: float, final_factor: float) -> None:
    _check_warmup(warmup_tokens)
    if not (math.isfinite(total_tokens) and total_tokens > warmup_tokens):
        raise UserError(
            f"schedule.total_tokens={total_tokens}: allowed values are numbers above schedule.warmup_tokens={warmup_tokens}"
        )
    check_option(ScheduleConfig, "final_factor", final_factor, "schedule.final_factor")
