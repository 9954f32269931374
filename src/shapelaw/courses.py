"""The rate of every step of a tracked run, from its parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from shapelaw.schedule import SHAPES, Constant, Cooldown, Cosine, Linear, WarmupStableDecay, lr_factor

FACTOR, SHARE = "schedule.final_factor", "schedule.decay_fraction"
FROM, SHAPE, FINAL = "cooldown_from_tokens", "cooldown.name", "cooldown.final_factor"


KINDS: Mapping[str, type[Constant | Cosine | Linear | WarmupStableDecay]] = {
    "constant": Constant,
    "cosine": Cosine,
    "linear": Linear,
    "wsd": WarmupStableDecay,
}
"""Schedules whose course follows from their numbers alone."""


@dataclass(frozen=True)
class Course:
    """The rate of every step of a run, from numbers in its record.

    Args:
        peak: rate at factor 1.
        batch_tokens: tokens of one step.
        schedule, cooldown: as for `lr_factor`.

    >>> Course.of(Course(0.5, 100, Linear(400.0)).plain()).rates(3)
    [0.5, 0.375, 0.25]
    """

    peak: float
    batch_tokens: int
    schedule: Constant | Cosine | Linear | WarmupStableDecay
    cooldown: Cooldown | None = None

    @classmethod
    def of(cls, plain: str) -> Course:
        """The course from the result of `plain`."""
        read = json.loads(plain)
        kind, cooldown = KINDS[read["schedule"].pop("kind")], read["cooldown"]
        return cls(read["peak"], read["batch_tokens"], kind(**read["schedule"]), cooldown and Cooldown(**cooldown))

    def plain(self) -> str:
        """As JSON, the same for the same course."""
        kind = next(name for name, known in KINDS.items() if isinstance(self.schedule, known))
        return json.dumps({**asdict(self), "schedule": {"kind": kind, **asdict(self.schedule)}}, sort_keys=True)

    def rates(self, steps: int) -> list[float]:
        """Rate of each of the first `steps` steps."""
        seen = range(0, steps * self.batch_tokens, self.batch_tokens)
        return [self.peak * lr_factor(tokens, self.schedule, self.cooldown) for tokens in seen]


def course_of(params: Mapping[str, str]) -> str:
    """The course of a run's rate in the form of `Course.plain`; empty if the record does not determine it.

    That is the case for a user's own schedule or cooldown, a program, a run from before peak rates or shapes of cooldowns were
    recorded, and a branch that does not record the end of its main run's schedule.
    """
    kind, branch = params.get("schedule", ""), float(params.get(FROM, 0.0)) > 0
    told = {"lr_eff", "warmup_tokens", *([SHAPE] if branch else [])} <= params.keys()
    if not told or "trainer" in params or kind not in KINDS or (branch and kind != "constant"):
        return ""
    if branch and params[SHAPE] not in SHAPES:
        return ""
    schedule = KINDS[kind](**_numbers(kind, params))
    return Course(
        float(params["lr_eff"]), int(params["batch_tokens"]), schedule, _cooldown(params) if branch else None
    ).plain()


def _numbers(kind: str, params: Mapping[str, str]) -> dict[str, float]:
    """The numbers of a schedule."""
    numbers = {"warmup_tokens": float(params["warmup_tokens"])}
    if kind != "constant":
        numbers |= {"total_tokens": float(params["tokens"]), "final_factor": float(params[FACTOR])}
    return numbers | ({"decay_fraction": float(params[SHARE])} if kind == "wsd" else {})


def _cooldown(params: Mapping[str, str]) -> Cooldown:
    """The branch's own course, which ends where the run does."""
    start, end = float(params[FROM]), float(params["tokens"])
    return Cooldown(start, (end - start) / start, params[SHAPE], float(params[FINAL]))
