"""The named sweeps: what each asks, and the verb that runs it."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shapelaw.config.option import keys_of
from shapelaw.errors import UserError
from shapelaw.verbs.doors import Command, door_of

SWEEPING = ("train", "fit")
"""Verbs whose -m takes named sweeps, the usual one first."""
OVERRIDE = re.compile(r"override /?(.+)")


@dataclass(frozen=True)
class NamedSweep:
    """A file of sweeps/.

    Args:
        name: as `sweeps=NAME` has it.
        question: that it answers.
        keys: of options and groups that it sets or sweeps.
    """

    name: str
    question: str
    keys: frozenset[str]

    @classmethod
    def read(cls, file: Path) -> NamedSweep:
        """The sweep that a file describes."""
        text = file.read_text(encoding="utf-8")
        return cls(file.stem, _question(text), frozenset(_keys(yaml.safe_load(text) or {})))

    @property
    def verbs(self) -> tuple[str, ...]:
        """Those that have all of its keys."""
        return tuple(verb for verb in SWEEPING if self.keys <= _known(verb))


def _question(text: str) -> str:
    """The comment after `Question:` at a file's head."""
    lines = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    return " ".join(line for line in lines if not line.startswith("@")).removeprefix("Question:").strip()


def _keys(content: dict[str, Any]) -> Iterator[str]:
    """First words of what a sweep sets, but for Hydra's own."""
    for default in content.pop("defaults", []):
        for key in default if isinstance(default, dict) else ():
            yield OVERRIDE.sub(r"\1", key).lstrip("/").partition("/")[0]
    swept = (content.pop("hydra", None) or {}).get("sweeper", {}).get("params") or {}
    yield from (key.partition(".")[0] for key in (*content, *swept))


def _known(verb: str) -> set[str]:
    """First words of all keys of a verb's options."""
    return {key.partition(".")[0] for key in keys_of(door_of(verb).schema)} | {"hydra"}


def named_sweeps() -> dict[str, NamedSweep]:
    """Those of the suite in force, and those that come with shapelaw, by name."""
    folders = (Path(os.environ["SHAPELAW_ROOT"]), Path(os.environ["SHAPELAW_SUITE_DIR"]))
    files = {file.stem: file for folder in folders for file in sorted((folder / "sweeps").glob("*.yaml"))}
    return {name: NamedSweep.read(file) for name, file in sorted(files.items())}


def show(words: Sequence[str]) -> None:
    """Print every named sweep as the command that runs it, with its question.

    Raises:
        UserError: for any word, as it takes none.
    """
    if words:
        raise UserError(f"{words[0]}: sweeps takes no words; run one by shapelaw VERB -m sweeps=NAME")
    width = min(max(shutil.get_terminal_size((100, 1)).columns, 60), 120)
    for sweep in named_sweeps().values():
        sys.stdout.write("".join(f"shapelaw {verb} -m sweeps={sweep.name}\n" for verb in sweep.verbs))
        sys.stdout.write(textwrap.fill(sweep.question, width, initial_indent="    ", subsequent_indent="    ") + "\n\n")


COMMAND = Command("", show)
