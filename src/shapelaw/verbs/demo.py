"""Trains small models on this machine and fits a scaling law to them: corpus, sweep, cooldowns and fits."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from shapelaw.errors import UserError, WorkFailed
from shapelaw.extras import TRAIN, require
from shapelaw.terminal import write_error
from shapelaw.verbs.doors import Command

STEPS = (
    ("prepare",),
    ("train", "-m", "shape=glob(*)", "lr_base=5,2.5"),
    ("train", "-m", "sweeps=cooldown_nano"),
    ("fit", "-m", "sweeps=demo"),
)
"""Verbs and their arguments, in order."""


def demo(words: Sequence[str]) -> None:
    """Run every step in its own process.

    Raises:
        UserError: for any word, because it takes none, or if a package is missing.
        WorkFailed: if a step fails; the same command continues from there.
    """
    if words:
        raise UserError(
            f"{words[0]}: demo takes no arguments; SHAPELAW_SUITE and SHAPELAW_OUTPUTS choose its suite and folder"
        )
    require("the demo", *TRAIN)
    begun = time.monotonic()
    for step in STEPS:
        write_error(f"== shapelaw {shlex.join(step)}\n")
        if subprocess.run([sys.executable, "-m", "shapelaw", *step], check=False).returncode:
            raise WorkFailed(f"the demo stopped at: shapelaw {shlex.join(step)}; the same command continues from there")
    took = f"{time.monotonic() - begun:.0f} s"
    write_error(f"the demo took {took}; figures and a page: shapelaw report; runs and fits side by side: shapelaw ui\n")


COMMAND = Command("", demo)
