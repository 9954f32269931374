"""The doors, found by their files: a verb NAME is conf/NAME.yaml and shapelaw/verbs/NAME.py with its `DOOR`; the record
of its options, NameConfig, is in shapelaw.config, so that its help imports nothing that does its work.

A few commands have no options and so no configuration: shapelaw/verbs/NAME.py with its `COMMAND`.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from omegaconf import DictConfig

from shapelaw import config
from shapelaw.config.schema import store_schema
from shapelaw.errors import UserError

Door: TypeAlias = Callable[[DictConfig], Any]
"""The work of a verb, called with a composed configuration; if it has `single`, that is called outside of sweeps."""


@dataclass(frozen=True)
class Command:
    """A command without options.

    Args:
        usage: the words after its name.
        run: called with these words.
    """

    usage: str
    run: Callable[[Sequence[str]], None]


PACKAGE = Path(__file__).resolve().parents[1]
COMMANDS = ("demo", "examples", "init", "sweeps", "ui")


def project_root() -> Path:
    """Folder with conf/ and sweeps/: the package's own if it was installed from a wheel, else the repository.

    Raises:
        UserError: if neither has them.
    """
    root = PACKAGE if is_wheel() else PACKAGE.parents[1]
    if not (root / "conf").is_dir():
        raise UserError(f"{root}: contains no conf/; install shapelaw with pip, from its repository or a wheel")
    return root


def is_wheel() -> bool:
    """Whether the package was installed from a wheel, outside of a repository."""
    return (PACKAGE / "conf").is_dir()


def verbs() -> list[str]:
    """Names of all doors."""
    modules = {path.stem for path in Path(__file__).parent.glob("*.py")}
    return sorted(modules & {path.stem for path in (project_root() / "conf").glob("*.yaml")})


def command_of(name: str) -> Command:
    """The command with a name; its imports happen now."""
    command: Command = importlib.import_module(f"shapelaw.verbs.{name}").COMMAND
    return command


def door_of(verb: str) -> Door:
    """The door of a verb; its imports happen now."""
    door: Door = importlib.import_module(f"shapelaw.verbs.{verb}").DOOR
    return door


def schema_of(verb: str) -> type:
    """The record of a verb's options, from which conf/NAME.yaml starts as `NAME_schema`; nothing else of the verb is imported.

    >>> schema_of("noise_scale").__name__
    'NoiseScaleConfig'
    """
    schema: type = getattr(config, f"{verb.title().replace('_', '')}Config")
    return schema


def store_schemas(*chosen: str) -> None:
    """Register the schemas that the configurations of these doors, or of all, start from."""
    for verb in chosen or verbs():
        store_schema(verb, schema_of(verb))


def summary_of(verb: str) -> str:
    """What a verb does: the first line of its configuration, or of a command's module."""
    if verb in COMMANDS:
        text = ast.get_docstring(ast.parse((PACKAGE / "verbs" / f"{verb}.py").read_text(encoding="utf-8")))
        return (text or "").partition("\n")[0]
    with (project_root() / "conf" / f"{verb}.yaml").open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()
