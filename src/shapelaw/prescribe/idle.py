"""Values that were given and have no effect on the question that is asked: they are refused, not passed over."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from shapelaw.config import PrescribeConfig
from shapelaw.config.option import defaults_of
from shapelaw.errors import UserError
from shapelaw.prescribe.price import UNITS
from shapelaw.prescribe.problem import LEASTS, SPACES
from shapelaw.wording import leaves

USUAL = {"least": LEASTS[0], "space": SPACES[0], "objective": UNITS[0]}
"""What is in force where nothing else is given, of the options whose record has no default."""
IDLE = {
    "budget": ("least", "width", "depth"),
    "loss": ("width", "depth", "compare"),
    "tokens": ("least", "compare", "limits", "rules"),
}
"""Question -> options, and groups of options, that say nothing to it."""


def refuse_idle(asked: PrescribeConfig, question: str) -> None:
    """Refuse what has no effect on a question.

    Args:
        question: `budget`, `loss` or `tokens`.

    Raises:
        UserError: naming all that was given so.
    """
    _refuse(given(asked, *IDLE[question]), f"{question}=NUMBER")
    if asked.space == "params":
        _refuse(given(asked, "rules", *(() if question == "tokens" else ("flops",))), "space=params")


def given(asked: PrescribeConfig, *names: str) -> list[str]:
    """KEY=VALUE of what was given among these options and groups of options."""
    usual, own = _options(defaults_of(PrescribeConfig)) | USUAL, _options(dataclasses.asdict(asked))
    return [f"{key}={own[key]}" for key in own if key.split(".")[0] in names and own[key] != usual[key]]


def _refuse(found: list[str], beside: str) -> None:
    if found:
        raise UserError(f"{', '.join(found)}: without effect beside {beside}; leave out the one or the other")


def _options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their names on the command line: a group's choice by the group's own."""
    return {key.removesuffix(".name"): value for key, value in leaves(values).items()}
