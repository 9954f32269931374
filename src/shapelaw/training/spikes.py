"""A detector of divergence and spikes in the loss and the gradient norm of a run. Pure: numbers in, verdicts out.

The running scale is robust: with m and s the median and 1.4826 times the median absolute deviation (the standard deviation
of a normal distribution) of the last `window_steps` sound steps, a loss above m + loss_mads * s is high; so is the logarithm
of a gradient norm above its own such limit. `sustain_steps` high steps in a row are a spike; fewer are noise. What is no number
is one at once.

A scale that runs along climbs with a loss that climbs in small steps. So two limits do not move with it: `over_best_nats` above
the run's own best, the lowest running median it had, and, once warm-up is over, `over_chance_nats` above what a model has that
knows nothing: ln(vocabulary), which gives every token the same probability, or the loss of the first step where that is higher.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from shapelaw.config import SpikeRule, SpikesConfig
from shapelaw.config.option import option, part_of, record

NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
LEAST_SCALE = 1e-3
"""Of losses (nats per token) and of log norms: steps as equal as that have no scale of their own."""


@record("spikes")
class RunSpikeRule(SpikeRule):
    """The rule of one run: with what its vocabulary and its warm-up say of a loss."""

    chance_nats: float = option("Loss of a model that knows nothing: ln(vocabulary).", above=0, unit="nats per token")
    warmup_steps: int = option("Steps of the warm-up.", low=0)

    @classmethod
    def of(cls, config: SpikesConfig, vocab_size: int, warmup_steps: int) -> RunSpikeRule:
        """The rule of a configuration, for a run of so many tokens to choose from and steps of warm-up."""
        return cls(**vars(part_of(SpikeRule, config)), chance_nats=math.log(vocab_size), warmup_steps=warmup_steps)


@dataclass(frozen=True)
class Verdict:
    """A spike.

    Args:
        first_step: its first high step, counted as steps done.
        step: the step at which it was certain.
        what: `loss`, `gradient norm`, or `not a number`.
        loss: at that step.
        limit: of the loss there; NaN where there is none yet.
    """

    first_step: int
    step: int
    what: str
    loss: float
    limit: float


@dataclass
class Detector:
    """Looks at every step of a run once, in order. Its state is plain lists, part of a checkpoint.

    Args:
        rule: when a step is high.
        losses, log_norms: of the last sound steps.
        suspects: (step, loss, log norm, if measured) of the high steps in a row that are no spike yet.
        inside: whether the steps still are those of a spike that was told.
        spikes: told so far.
        best: lowest running median of the losses since the last spike that was told; none before there are enough.
        blind: sound steps until a best is looked for: a told spike may be the run's new level, and its window is to be past.
        start: loss of the first step, whose weights have learnt nothing; 0 if it was not seen.
    """

    rule: RunSpikeRule
    losses: list[float] = field(default_factory=list)
    log_norms: list[float] = field(default_factory=list)
    suspects: list[tuple[int, float, float | None]] = field(default_factory=list)
    inside: bool = False
    spikes: int = 0
    best: float | None = None
    blind: int = 0
    start: float = 0.0

    def look(self, first: int, losses: Sequence[float], norms: Sequence[float]) -> list[Verdict]:
        """Judge steps first, first + 1, ...; a norm of 0 was not measured. The scale is that before the first of them."""
        self._take_marks(first, losses)
        scale_limit = _limit(self.losses, self.rule.loss_mads, self.rule.least_steps)
        norm_limit = _limit(self.log_norms, self.rule.norm_mads, self.rule.least_steps)
        verdicts = []
        for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), first):
            loss_limit = min(scale_limit, self._fixed_limit(step))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                verdicts.append(Verdict(self._first(step), step, "not a number", loss, loss_limit))
                continue
            log_norm = math.log(norm) if norm > 0 else None
            norm_is_high = log_norm is not None and log_norm > norm_limit
            high = "loss" if loss > loss_limit else "gradient norm" if norm_is_high else ""
            if self._take(step, loss, log_norm, bool(high)):
                verdicts.append(Verdict(self.suspects[0][0], step, high, loss, loss_limit))
                self._settle()
                self.inside, self.best, self.blind = True, None, self.rule.window_steps
        self.spikes += len(verdicts)
        return verdicts

    def state(self) -> dict[str, Any]:
        """Everything but the rule, as JSON has it."""
        values = asdict(self)
        del values["rule"]
        return values

    @classmethod
    def restore(cls, rule: RunSpikeRule, state: dict[str, Any]) -> Detector:
        """The detector that `state` is of."""
        return cls(rule, **{**state, "suspects": [tuple(suspect) for suspect in state["suspects"]]})

    def _take_marks(self, first: int, losses: Sequence[float]) -> None:
        if first == 1 and losses and math.isfinite(losses[0]):
            self.start = losses[0]
        if not self.blind and len(self.losses) >= self.rule.least_steps:
            middle = float(np.median(self.losses))
            self.best = middle if self.best is None else min(self.best, middle)

    def _fixed_limit(self, step: int) -> float:
        """Above which a loss is high whatever the running scale says."""
        over_best = math.inf if self.best is None else self.best + self.rule.over_best_nats
        if step <= self.rule.warmup_steps or len(self.losses) < self.rule.least_steps:
            return over_best
        return min(over_best, max(self.rule.chance_nats, self.start) + self.rule.over_chance_nats)

    def _first(self, step: int) -> int:
        return self.suspects[0][0] if self.suspects else step

    def _take(self, step: int, loss: float, log_norm: float | None, high: bool) -> bool:
        """Count a step in; whether it makes a spike certain."""
        self.suspects.append((step, loss, log_norm))
        if high and not self.inside:
            return len(self.suspects) >= self.rule.sustain_steps
        self.inside = high
        self._settle()
        return False

    def _settle(self) -> None:
        """What was suspected belongs to the scale from now on: it was noise, or is the run's new level."""
        self.losses += [loss for _, loss, _ in self.suspects]
        self.log_norms += [norm for *_, norm in self.suspects if norm is not None]
        self.blind = max(self.blind - len(self.suspects), 0)
        self.suspects = []
        del self.losses[: -self.rule.window_steps], self.log_norms[: -self.rule.window_steps]


def _limit(values: Sequence[float], mads: float, least: int) -> float:
    """Above which a value is high; infinity before there are enough."""
    if len(values) < least:
        return math.inf
    sample = np.asarray(values)
    middle = np.median(sample)
    scale = NORMAL * np.median(np.abs(sample - middle))
    return float(middle + mads * max(scale, LEAST_SCALE))
