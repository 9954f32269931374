"""Options of the parts of a run that a user may exchange for their own: model, optimizer, schedule, cooldown."""

from __future__ import annotations

from typing import Any

from shapelaw.config.option import option, record
from shapelaw.config.values import ScheduleKind, positive
from shapelaw.errors import UserError
from shapelaw.plugins import is_reference

READERS = {
    "decay_fraction": (ScheduleKind.wsd,),
    "final_factor": (ScheduleKind.wsd, ScheduleKind.cosine, ScheduleKind.linear),
}
"""Options of a schedule -> the kinds that read them."""


OURS = "transformer"
"""The built-in model."""


@record("model")
class ModelConfig:
    """What is trained."""

    name: str = option(
        "transformer (the built-in one), or a model of your own: path/to/file.py:NAME or package.module:NAME "
        "(docs/your_model.md).",
        default=OURS,
    )
    options: dict[str, Any] = option(
        "Options of a model of your own, which it is called with: +model.options.experts=4.", default_factory=dict
    )

    @property
    def own(self) -> bool:
        """Whether it is a user's."""
        return self.name != OURS

    def check(self) -> None:
        """A name that means something, and options for who reads them."""
        if self.own and not is_reference(self.name):
            raise UserError(
                f"model={self.name}: allowed are {OURS}, path/to/file.py:NAME and package.module:NAME; give one"
            )
        if self.options and not self.own:
            raise UserError(
                f"model.options.{next(iter(self.options))}: model={OURS} reads no options; give a model of your own, or leave "
                "it out"
            )


@record("schedule")
class ScheduleConfig:
    """The rate's course over the run."""

    kind: ScheduleKind = option("How the rate goes on after the warm-up; wsd: constant, then falling.")
    warmup_tokens: float = option("Linear warm-up from 0 over so many tokens.", low=0, unit="tokens")
    decay_fraction: float = option(
        "wsd: share of the run, at its end, over which the rate falls linearly to final_factor.",
        default=0.0,
        low=0,
        high=1,
    )
    final_factor: float = option(
        "wsd, cosine, linear: the rate at the end, as a share of the peak.", default=0.0, low=0, high=1
    )

    def check(self) -> None:
        """Refuse what the kind does not read: it would make another run of the same."""
        for key, kinds in READERS.items():
            value = getattr(self, key)
            if value != 0 and self.kind not in kinds:
                raise UserError(
                    f"schedule.{key}={value:g}: schedule={self.kind.value} does not read it; leave it out, or give "
                    f"{' or '.join(f'schedule={kind.value}' for kind in kinds)}"
                )


@record("cooldown")
class CooldownConfig:
    """A branch that continues a run's checkpoint and anneals its rate linearly to 0."""

    fraction: float = option(
        "Tokens of the branch as a share of those seen at its start; 0 is no cooldown.", default=0.0, low=0
    )
    from_tokens: float = option(
        "Tokens seen where it branches off; the nearest checkpoint's.", default=0.0, low=0, unit="tokens"
    )

    def check(self) -> None:
        """A branch starts after the first step."""
        if self.fraction:
            positive("cooldown.from_tokens", self.from_tokens)


@record("optim")
class OptimConfig:
    """AdamW; the defaults are the paper's."""

    beta1: float = option("Decay of the mean of gradients.", default=0.9, low=0, below=1)
    beta2: float = option("Decay of the mean of their squares.", default=0.95, low=0, below=1)
    eps: float = option("Number added to the square root of the second moment.", default=1e-8, low=0)
    weight_decay: float = option(
        "Decoupled weight decay of every matrix, and of no norm: times the rate, the share that a step takes off.",
        default=0.1,
        low=0,
    )
    clip_norm: float = option("Global norm to which gradients are clipped; 0 is no clipping.", default=1.0, low=0)
    decay_embedding: bool = option("Whether the token embedding decays, too.", default=True)
