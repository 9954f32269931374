"""A law that a user brings in a file of their own, `path/to/file.py:NAME`: the file is run, and NAME in it is the law."""

from __future__ import annotations

import hashlib

from shapelaw.errors import UserError
from shapelaw.laws.base import Law
from shapelaw.plugins import content_of, run_file, split

_LOADED: dict[tuple[str, str], dict[str, Law]] = {}
"""(absolute path, sha256 of the file) -> name -> law."""


def file_hash(reference: str) -> str:
    """SHA-256 of the file of a reference.

    Raises:
        UserError: if there is no such file.
    """
    return hashlib.sha256(content_of("law", reference)).hexdigest()


def load(reference: str) -> Law:
    """The law NAME of the file.

    Raises:
        UserError: if there is no such file, it cannot be run, or NAME in it is no law.
    """
    path, name = split(reference)
    sha256, module = run_file("law", reference)
    found = {known: value for known, value in vars(module).items() if isinstance(value, Law)}
    laws = _LOADED.setdefault((str(path), sha256), found)
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
