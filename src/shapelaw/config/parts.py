"""Options of the parts of a run that a user may exchange for their own: model, optimizer, schedule, cooldown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


OPTIMIZERS = ("adamw", "amsgrad", "nadamw", "radamw", "muon")
COOLDOWNS = ("linear", "sqrt", "cosine")
MOMENTUM = 0.95
"""Of Muon, as Jordan et al. 2024 have it."""
OURS = "transformer"
"""The built-in model."""


def refuse_unknown(group: str, name: str, known: Sequence[str]) -> None:
    """Raises UserError for a choice that is neither a known one nor a user's own."""
    if name not in known and not is_reference(name):
        allowed = ", ".join(known)
        raise UserError(
            f"{group}.name={name}: allowed values are {allowed}, path/to/file.py:NAME and package.module:NAME; give one"
        )


def refuse_options(group: str, name: str, options: Mapping[str, Any], own: bool) -> None:
    """Raises UserError for options of a choice that reads none."""
    if options and not own:
        raise UserError(
            f"{group}.options.{next(iter(options))}: {group}={name} reads no options; leave it out, or give your own {group}"
        )


@record("model")
class ModelConfig:
    """What is trained."""

    name: str = option(
        "transformer (the built-in one), or your own model: path/to/file.py:NAME or package.module:NAME "
        "(docs/your_model.md).",
        default=OURS,
    )
    options: dict[str, Any] = option(
        "Options that your own model is called with: +model.options.experts=4.", default_factory=dict
    )

    @property
    def own(self) -> bool:
        """Whether it is a user's."""
        return self.name != OURS

    def check(self) -> None:
        """A name that means something, and options for who reads them."""
        refuse_unknown("model", self.name, (OURS,))
        refuse_options("model", self.name, self.options, self.own)


@record("schedule")
class ScheduleConfig:
    """The rate's course over the run."""

    kind: ScheduleKind = option("Course of the rate after the warm-up; wsd: constant, then falling.")
    warmup_tokens: float = option("Tokens of the linear warm-up from 0.", low=0, unit="tokens")
    decay_fraction: float = option(
        "wsd: share of the run, at its end, over which the rate falls linearly to final_factor.",
        default=0.0,
        low=0,
        high=1,
    )
    final_factor: float = option(
        "wsd, cosine, linear: the rate at the end, as a share of the peak.", default=0.0, low=0, high=1
    )
    name: str = option(
        "own: the schedule, given as schedule=path/to/file.py:NAME or schedule=package.module:NAME; NAME(tokens_seen, "
        "total_tokens, warmup_tokens, **options) returns the factor on the peak rate.",
        default="",
    )
    options: dict[str, Any] = option("own: options that the schedule is called with.", default_factory=dict)

    def check(self) -> None:
        """Refuse what the kind does not read: it would make another run of the same."""
        own = self.kind is ScheduleKind.own
        if own != bool(self.name) or (own and not is_reference(self.name)):
            raise UserError(
                f"schedule.name={self.name or 'null'} with schedule.kind={self.kind.value}: give your own schedule as "
                "schedule=path/to/file.py:NAME or schedule=package.module:NAME"
            )
        refuse_options("schedule", self.kind.value, self.options, own)
        for key, kinds in READERS.items():
            value = getattr(self, key)
            if value != 0 and self.kind not in kinds:
                raise UserError(
                    f"schedule.{key}={value:g}: schedule={self.kind.value} does not read it; leave it out, or give "
                    f"{' or '.join(f'schedule={kind.value}' for kind in kinds)}"
                )


@record("cooldown")
class CooldownConfig:
    """A branch that continues a run's checkpoint and anneals its rate."""

    name: str = option(
        "How the rate falls over the branch: linear, sqrt (1 - sqrt, Haegele et al. 2024), cosine, or your own shape, given "
        "as cooldown=path/to/file.py:NAME or cooldown=package.module:NAME; NAME(done, **options) returns the factor.",
        default="linear",
    )
    final_factor: float = option(
        "The rate at the end of the branch, as a share of the rate at its start.", default=0.0, low=0, below=1
    )
    options: dict[str, Any] = option("Options that your own shape is called with.", default_factory=dict)

    fraction: float = option(
        "Tokens of the branch as a share of those seen at its start; 0 means no cooldown.", default=0.0, low=0
    )
    from_tokens: float = option(
        "Tokens seen at the start of the branch, which begins at the nearest checkpoint.",
        default=0.0,
        low=0,
        unit="tokens",
    )

    def check(self) -> None:
        """A branch starts after the first step, and its shape is known."""
        refuse_unknown("cooldown", self.name, COOLDOWNS)
        refuse_options("cooldown", self.name, self.options, is_reference(self.name))
        if self.fraction:
            positive("cooldown.from_tokens", self.from_tokens)


@record("optim")
class OptimConfig:
    """The optimizer; the defaults are the paper's AdamW."""

    name: str = option(
        "adamw, amsgrad (AdamW with the largest second moment), nadamw and radamw (NAdam and RAdam with decoupled decay), muon "
        "(for hidden matrices; AdamW for the rest), or your own: path/to/file.py:NAME or package.module:NAME.",
        default="adamw",
    )

    beta1: float = option("Decay of the mean of gradients.", default=0.9, low=0, below=1)
    beta2: float = option("Decay of the mean of their squares.", default=0.95, low=0, below=1)
    eps: float = option("Number added to the square root of the second moment.", default=1e-8, low=0)
    weight_decay: float = option(
        "Decoupled weight decay of every matrix, but not of norms: times the rate, it is the share that a step takes off.",
        default=0.1,
        low=0,
    )
    clip_norm: float = option("Global norm to which gradients are clipped; 0 turns clipping off.", default=1.0, low=0)
    decay_embedding: bool = option("Whether the token embedding decays too.", default=True)
    momentum: float = option("muon: decay of the mean of gradients.", default=MOMENTUM, low=0, below=1)
    lr_factors: dict[str, float] = option(
        "Beginning of parameters' names -> factor on their rate: +optim.lr_factors.embedding=0.5; the first match wins.",
        default_factory=dict,
    )
    options: dict[str, Any] = option("Options that your own optimizer is called with.", default_factory=dict)

    @property
    def own(self) -> bool:
        """Whether it is a user's."""
        return is_reference(self.name)

    def check(self) -> None:
        """Refuse what the optimizer does not read, and factors that are no rate's."""
        refuse_unknown("optim", self.name, OPTIMIZERS)
        refuse_options("optim", self.name, self.options, self.own)
        if self.momentum != MOMENTUM and self.name != "muon":
            raise UserError(
                f"optim.momentum={self.momentum:g}: optim={self.name} does not read it; leave it out, or give optim=muon"
            )
        for name, factor in self.lr_factors.items():
            positive(f"optim.lr_factors.{name}", factor)
