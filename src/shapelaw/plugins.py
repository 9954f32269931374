"""Parts that others bring: installed packages by entry points, imported when they are first asked for; users by their files."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from shapelaw.errors import UserError

MARK = ".py:"
"""What tells a part of a user's file, `path/to/file.py:NAME`, from one that has a name."""


@cache
def installed(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name; nothing is imported.

    Raises:
        UserError: if two packages bring different parts of one name.
    """
    named: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = named.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise UserError(
                f"{group}: two installed packages bring a part named {entry.name}: {other.value} and {entry.value}; "
                "uninstall one of them"
            )
    return named


@cache
def load(group: str, name: str) -> Any:
    """The part of this name.

    Raises:
        UserError: if its package cannot be imported.
    """
    entry = installed(group)[name]
    try:
        return entry.load()
    except Exception as error:
        raise UserError(
            f"{name}: {entry.value} of an installed package cannot be imported ({type(error).__name__}: {error}); "
            "repair that package, or uninstall it"
        ) from error


def is_file(reference: str) -> bool:
    """Whether a part is asked for by its file."""
    return MARK in reference


def split(reference: str) -> tuple[Path, str]:
    """The absolute path of a reference, and the name in it."""
    path, _, name = reference.rpartition(":")
    return Path(path).expanduser().absolute(), name


def absolute(reference: str) -> str:
    """The same reference, readable from any folder."""
    path, name = split(reference)
    return f"{path}:{name}"
