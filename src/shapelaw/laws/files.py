"""A user's own law: `path/to/file.py:NAME` in a file, which is run, or `package.module:NAME` in a module of a package,
which is imported."""

from __future__ import annotations

import hashlib
from types import ModuleType

from shapelaw.errors import UserError
from shapelaw.laws.base import Law
from shapelaw.plugins import code_of, content_of, imported, is_file, run_file, split

_LOADED: dict[tuple[str, str], dict[str, Law]] = {}
"""(absolute path or module, hash of its code) -> name -> law."""


def hash_of(reference: str) -> str:
    """Hash of a law's code: SHA-256 of its file, or sixteen digits of that of its package's files.

    Raises:
        UserError: if there is no such file or package.
    """
    if not is_file(reference):
        return code_of("law", reference)
    return hashlib.sha256(content_of("law", reference)).hexdigest()


def load(reference: str) -> Law:
    """The law NAME of the file or module.

    Raises:
        UserError: if the file or module is missing, cannot be run or imported, or its NAME is not a law.
    """
    place, name, sha256, module = _module_of(reference)
    found = {known: value for known, value in vars(module).items() if isinstance(value, Law)}
    laws = _LOADED.setdefault((place, sha256), found)
    if name not in laws:
        what = "file" if is_file(reference) else "module"
        raise UserError(
            f"law={reference}: {place} has no law {name}; "
            f"allowed names are {', '.join(laws) or f'none: the {what} has no law'}; "
            "a law is an instance of a subclass of shapelaw.laws.Law, or a SumLaw"
        )
    return laws[name]


def _module_of(reference: str) -> tuple[str, str, str, ModuleType]:
    """Path or module, the name in it, the hash of its code, and the resulting module."""
    if is_file(reference):
        path, name = split(reference)
        return str(path), name, *run_file("law", reference)
    module, _, name = reference.rpartition(":")
    return module, name, hash_of(reference), imported("law", reference)


def origin(law: Law) -> tuple[str, str] | None:
    """(reference, hash of its code) of a law that `load` has loaded; None for any other."""
    for (path, sha256), laws in _LOADED.items():
        for name, loaded in laws.items():
            if loaded is law:
                return f"{path}:{name}", sha256
    return None


def check_unchanged(reference: str, sha256: str | None, user: str) -> None:
    """Refuse a law whose code has changed since the fit.

    Args:
        user: the object that needs the law, for the message.

    Raises:
        UserError: if the code is missing or different.
    """
    what = "file" if is_file(reference) else "package"
    try:
        there = hash_of(reference)
    except UserError as error:
        raise UserError(f"{user}: {error}; the fit used that {what}: restore it, or fit again") from None
    if there != sha256:
        raise UserError(
            f"{user}: law={reference}: the {what} was changed after the fit (sha256 {there[:12]}, fitted from "
            f"{str(sha256)[:12]}); restore the fitted version, or fit again"
        )
