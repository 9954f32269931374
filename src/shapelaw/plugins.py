"""Parts from elsewhere: installed packages add them by entry points, imported on first use; users by a file,
`path/to/file.py:NAME`, or by an importable module, `package.module:NAME`.

A user's part is code that runs, so only whoever starts a command may name it; a suite's files may not.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from shapelaw.errors import UserError

GROUPS = {
    "model": "shapelaw.models",
    "optim": "shapelaw.optimizers",
    "schedule": "shapelaw.schedules",
    "cooldown": "shapelaw.cooldowns",
    "tracker": "shapelaw.trackers",
    "law": "shapelaw.laws",
}
"""Group of the configuration -> entry points by which an installed package adds choices: NAME = "package.module:PART"."""
MARK = ".py:"
"""Text that distinguishes a part in a user's file, `path/to/file.py:NAME`, from a named one."""


@cache
def installed(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name. It imports nothing.

    Raises:
        UserError: if two packages bring different parts with one name.
    """
    named: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = named.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise UserError(
                f"{group}: two installed packages register a part named {entry.name}: {other.value} and {entry.value}; "
                "uninstall one of them"
            )
    return named


def reference_to(group: str, name: str) -> str | None:
    """`package.module:PART` of a choice that an installed package adds to a group of the configuration; None if none does.

    Raises:
        UserError: if its entry point does not name a part of a module, or two packages add it.
    """
    entry = installed(GROUPS[group]).get(name)
    if entry is not None and MODULE.fullmatch(entry.value) is None:
        raise UserError(
            f"{group}={name}: an installed package registers {entry.value}, which is not package.module:NAME; correct "
            f"its entry point {GROUPS[group]}, or uninstall it"
        )
    return entry.value if entry else None


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


MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""A part of a module, `package.module:NAME`."""
DIGITS = 16
"""Digits of the hash of a part's code."""
_RUN: dict[tuple[str, str], ModuleType] = {}
"""(absolute path, sha256 of the file) -> the resulting module, so that a file is run only once."""


def is_file(reference: str) -> bool:
    """Whether a part is named by its file."""
    return MARK in reference


def is_reference(name: str) -> bool:
    """Whether a part is a user's own, by its file or its module.

    >>> is_reference("my/model.py:Mine"), is_reference("lab.models:Mine"), is_reference("adamw")
    (True, True, False)
    """
    return is_file(name) or MODULE.fullmatch(name) is not None


def split(reference: str) -> tuple[Path, str]:
    """The absolute path of a reference, and the name in it."""
    path, _, name = reference.rpartition(":")
    return Path(path).expanduser().absolute(), name


def absolute(reference: str) -> str:
    """The same reference, readable from any folder."""
    if not is_file(reference):
        return reference
    path, name = split(reference)
    return f"{path}:{name}"


def run_file(group: str, reference: str) -> tuple[str, ModuleType]:
    """SHA-256 of the file of a reference, and the module that results from running it.

    The hashed text itself is run, never an older compiled form of it.

    Args:
        group: kind of the part, such as law or model, for the message.
        reference: `path/to/file.py:NAME`.

    Raises:
        UserError: if the file is missing, or cannot be run.
    """
    path, _ = split(reference)
    content = content_of(group, reference)
    sha256 = hashlib.sha256(content).hexdigest()
    if (str(path), sha256) not in _RUN:
        _RUN[str(path), sha256] = _run(f"{group}={reference}", path, content, sha256)
    return sha256, _RUN[str(path), sha256]


def content_of(group: str, reference: str) -> bytes:
    """The bytes of the file of a reference; raises UserError if it cannot be read."""
    path, _ = split(reference)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{group}={reference}: {path} cannot be read ({error.strerror}); give {group}=path/to/file.py:NAME of an "
            "existing file"
        ) from error


def code_of(group: str, reference: str) -> str:
    """The identity of the code of a user's part in a run's identity: sixteen digits of the SHA-256 of its file, or of every
    Python file of its module's package, and of its name. Nothing is run.

    Raises:
        UserError: if the file or the package is missing.
    """
    _, _, name = reference.rpartition(":")
    digest = hashlib.sha256(name.encode())
    if is_file(reference):
        digest.update(content_of(group, reference))
    else:
        for path in _files_of_package(group, reference):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:DIGITS]


def part_of(group: str, reference: str) -> Any:
    """The user's part: NAME in the file, which is run, or in the module, which is imported.

    Raises:
        UserError: if either fails, or lacks the name.
    """
    place, _, name = reference.rpartition(":")
    module = run_file(group, reference)[1] if is_file(reference) else imported(group, reference)
    if not hasattr(module, name):
        names = ", ".join(known for known in vars(module) if not known.startswith("_")) or "none"
        raise UserError(f"{group}={reference}: {place} has no {name}; the names there are {names}")
    return getattr(module, name)


def imported(group: str, reference: str) -> ModuleType:
    """The module of a reference, `package.module:NAME`.

    Raises:
        UserError: if importing it fails.
    """
    name, _, _ = reference.rpartition(":")
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UserError(
            f"{group}={reference}: importing {name} fails ({type(error).__name__}: {error}); install its package here, or give "
            f"{group}=path/to/file.py:NAME"
        ) from error


def _files_of_package(group: str, reference: str) -> list[Path]:
    """The Python files of the package that a module belongs to, in the order of their names."""
    top = reference.partition(":")[0].partition(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        raise UserError(
            f"{group}={reference}: there is no package {top} here; install it, or give {group}=path/to/file.py:NAME"
        )
    origin = Path(spec.origin)
    return sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]


def _run(said: str, path: Path, content: bytes, sha256: str) -> ModuleType:
    module = ModuleType(f"shapelaw_part_{sha256[:DIGITS]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and pickle look up a class
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[module.__name__]
        raise UserError(f"{said}: running {path} fails ({type(error).__name__}: {error}); correct it there") from error
    return module
