"""Lists the named sweeps: the question of each, and the verb that runs it."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shapelaw.config.option import keys_of
from shapelaw.errors import UserError
from shapelaw.terminal import write
from shapelaw.verbs.doors import Command, project_root, schema_of

SWEEPING = ("train", "fit")
"""Verbs whose -m takes named sweeps, the usual one first."""
OVERRIDE = re.compile(r"override /?(.+)")


@dataclass(frozen=True)
class NamedSweep:
    """A file of sweeps/.

    Args:
        name: NAME in `sweeps=NAME`.
        question: the question that it answers.
        keys: keys of options and groups that it sets or sweeps.
    """

    name: str
    question: str
    keys: frozenset[str]

    @classmethod
    def read(cls, file: Path) -> NamedSweep:
        """The sweep that a file describes; a file that is not valid YAML, which its verb will report, has no keys."""
        text = file.read_text(encoding="utf-8")
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError:
            content = None
        return cls(file.stem, _question(text), frozenset(_keys(_mapping(content))))

    def is_of(self, verb: str) -> bool:
        """Whether a verb has all of its keys."""
        return verb in SWEEPING and self.keys <= {key.partition(".")[0] for key in keys_of(schema_of(verb))}

    @property
    def verbs(self) -> list[str]:
        """The verbs that have all of its keys."""
        return [verb for verb in SWEEPING if self.is_of(verb)]


def _question(text: str) -> str:
    """The comment after `Question:` at a file's head."""
    lines = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    return " ".join(line for line in lines if not line.startswith("@")).removeprefix("Question:").strip()


def _keys(content: dict[str, Any]) -> Iterator[str]:
    """First words of the keys that a sweep chooses, sets and sweeps, except for Hydra's own."""
    chosen = [key for default in content.get("defaults") or [] for key in _mapping(default)]
    swept = _mapping(_mapping(_mapping(content.get("hydra")).get("sweeper")).get("params"))
    words = [*(OVERRIDE.sub(r"\1", key).lstrip("/") for key in chosen), *content, *swept]
    yield from {re.split(r"[./@]", word)[0] for word in words} - {"defaults", "hydra"}


def _mapping(content: object) -> dict[str, Any]:
    """The content if it is a mapping, else an empty one."""
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def sweep_files() -> dict[str, Path]:
    """Files of the named sweeps by name: those of the present suite, and those that come with shapelaw."""
    folders = (Path(os.environ["SHAPELAW_ROOT"]), Path(os.environ["SHAPELAW_SUITE_DIR"]))
    return {file.stem: file for folder in folders for file in sorted((folder / "sweeps").glob("*.yaml"))}


def check_sweep(verb: str, arguments: Sequence[str]) -> None:
    """Refuse a named sweep of another verb.

    Raises:
        UserError: with the command that runs it.
    """
    _check_globs(verb, arguments)
    name = next((word.removeprefix("sweeps=") for word in arguments if word.startswith("sweeps=")), "")
    if name not in (files := sweep_files()):
        return
    sweep = NamedSweep.read(files[name])
    if not sweep.is_of(verb) and (verbs := sweep.verbs):
        raise UserError(f"sweeps={name}: is a sweep of {verbs[0]}; run: shapelaw {verbs[0]} -m sweeps={name}")


def _check_globs(verb: str, arguments: Sequence[str]) -> None:
    """Refuse a glob without choices, which Hydra would silently ignore."""
    for word in arguments if verb not in SWEEPING else ():
        key, _, value = word.partition("=")
        if value.startswith("glob(") and not (project_root() / "conf" / key).is_dir():
            raise UserError(
                f"{word}: glob lists the choices of a group, and {key} is not a group; give a pattern of folders where "
                f"{verb} takes one, such as '{key}=outputs/runs/nano/*'"
            )


def show(words: Sequence[str]) -> None:
    """Print every named sweep as the command that runs it, with its question.

    Raises:
        UserError: for any word, because it takes none.
    """
    if words:
        raise UserError(f"{words[0]}: sweeps takes no arguments; to run a sweep, give shapelaw VERB -m sweeps=NAME")
    width = min(max(shutil.get_terminal_size((100, 1)).columns, 60), 120)
    for _, file in sorted(sweep_files().items()):
        sweep = NamedSweep.read(file)
        write("".join(f"shapelaw {verb} -m sweeps={sweep.name}\n" for verb in sweep.verbs))
        write(textwrap.fill(sweep.question, width, initial_indent="    ", subsequent_indent="    ") + "\n\n")


COMMAND = Command("", show)
