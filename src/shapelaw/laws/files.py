"""A law that a user brings in a file of their own, `path/to/file.py:NAME`: the file is run, and NAME in it is the law."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType

from shapelaw.errors import UserError
from shapelaw.laws.base import Law
from shapelaw.plugins import split

_LOADED: dict[tuple[str, str], dict[str, Law]] = {}
"""(absolute path, sha256 of the file) -> name -> law: a file is run once."""


def file_hash(reference: str) -> str:
    """SHA-256 of the file of a reference.

    Raises:
        UserError: if there is no such file.
    """
    return hashlib.sha256(_content(reference)).hexdigest()


def load(reference: str) -> Law:
    """The law NAME of the file.

    Raises:
        UserError: if there is no such file, it cannot be run, or NAME in it is no law.
    """
    path, name = split(reference)
    content = _content(reference)
    key = (str(path), hashlib.sha256(content).hexdigest())
    if key not in _LOADED:
        _LOADED[key] = _run(reference, path, content)
    laws = _LOADED[key]
    if name not in laws:
        raise UserError(
            f"law={reference}: {path} has no law {name}; allowed are {', '.join(laws) or 'none: the file has no law'}; "
            "a law is an instance of a subclass of shapelaw.laws.Law, or a SumLaw"
        )
    return laws[name]


def origin(law: Law) -> tuple[str, str] | None:
    """(reference, sha256 of its file) of a law that `load` has loaded; None for every other."""
    for (path, sha256), laws in _LOADED.items():
        for name, loaded in laws.items():
            if loaded is law:
                return f"{path}:{name}", sha256
    return None


def check_unchanged(reference: str, sha256: str | None, user: str) -> None:
    """Refuse a law whose file is not the one that was fitted.

    Args:
        user: what needs the law, for the message.

    Raises:
        UserError: if the file is missing, or another.
    """
    try:
        there = file_hash(reference)
    except UserError as error:
        raise UserError(f"{user}: {error}; it was fitted from that file: put it back, or fit again") from None
    if there != sha256:
        raise UserError(
            f"{user}: law={reference}: the file was changed after the fit (sha256 {there[:12]}, fitted from "
            f"{str(sha256)[:12]}); put the fitted one back, or fit again"
        )


def _content(reference: str) -> bytes:
    path, _ = split(reference)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"law={reference}: {path} cannot be read ({error.strerror}); give law=path/to/file.py:NAME of a file that is there"
        ) from error


def _run(reference: str, path: Path, content: bytes) -> dict[str, Law]:
    """Every law among the file's names. What is run is what was hashed, never an older compiled form of it."""
    module = ModuleType(f"shapelaw_law_{hashlib.sha256(content).hexdigest()[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and pickle look a class up
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[module.__name__]
        raise UserError(
            f"law={reference}: running {path} fails ({type(error).__name__}: {error}); correct it there"
        ) from error
    return {name: value for name, value in vars(module).items() if isinstance(value, Law)}
