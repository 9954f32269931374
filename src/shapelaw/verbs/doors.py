"""The doors, found by their files: a verb NAME is conf/NAME.yaml and shapelaw/verbs/NAME.py with its `DOOR`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from shapelaw.config.schema import store_schema
from shapelaw.errors import UserError


@dataclass(frozen=True)
class Door:
    """A command.

    Args:
        schema: dataclass of its options; conf/NAME.yaml starts from it as `NAME_schema`.
        work: called with a composed configuration; `work.single`, if there is one, when it is not a sweep.
    """

    schema: type
    work: Callable[[DictConfig], Any]


def project_root() -> Path:
    """Folder that holds conf/ and sweeps/: the repository, in which the package lies under src/.

    Raises:
        UserError: if the package was installed apart from its repository.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / "conf").is_dir():
        raise UserError(f"{root}: holds no conf/; install shapelaw from its repository by pip install -e .")
    return root


def verbs() -> list[str]:
    """Names of all doors."""
    modules = {path.stem for path in Path(__file__).parent.glob("*.py")}
    return sorted(modules & {path.stem for path in (project_root() / "conf").glob("*.yaml")})


def door_of(verb: str) -> Door:
    """The door of a verb; what it needs is imported now."""
    door: Door = importlib.import_module(f"shapelaw.verbs.{verb}").DOOR
    return door


def store_schemas(*chosen: str) -> None:
    """Register the schemas that the configurations of these doors, or of all, start from."""
    for verb in chosen or verbs():
        store_schema(verb, door_of(verb).schema)


def summary_of(verb: str) -> str:
    """What a verb does: the first line of its configuration."""
    with (project_root() / "conf" / f"{verb}.yaml").open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()
