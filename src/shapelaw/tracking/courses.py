"""The rate of every step of a tracked run, from its parameters."""

from __future__ import annotations

from collections.abc import Mapping

from shapelaw.schedule import KINDS, SHAPES, Cooldown, Course

FACTOR, SHARE = "schedule.final_factor", "schedule.decay_fraction"
FROM, SHAPE, FINAL = "cooldown_from_tokens", "cooldown.name", "cooldown.final_factor"


def course_of(params: Mapping[str, str]) -> str:
    """The course of a run's rate as `Course.plain` has it; empty where the record leaves it open.

    That is so for a schedule or cooldown of a user's own, a program, a run of before its peak rate or its cooldown's shape was
    recorded, and a branch of a schedule whose own end the branch does not record.
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
    """What a schedule is made of."""
    numbers = {"warmup_tokens": float(params["warmup_tokens"])}
    if kind != "constant":
        numbers |= {"total_tokens": float(params["tokens"]), "final_factor": float(params[FACTOR])}
    return numbers | ({"decay_fraction": float(params[SHARE])} if kind == "wsd" else {})


def _cooldown(params: Mapping[str, str]) -> Cooldown:
    """The branch's own course, which ends where the run does."""
    start, end = float(params[FROM]), float(params["tokens"])
    return Cooldown(start, (end - start) / start, params[SHAPE], float(params[FINAL]))
