"""Passwords in URIs. No option accepts one, because options are written into records; the environment may hold it instead.

An option names a database or server without its password (`postgresql://me@host/db`). The environment variable that goes with
the option may hold the same URI with the password. Code that connects reads it from there, and no code writes it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

from shapelaw.errors import UserError

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
STORAGE_VARIABLE = "OPTUNA_STORAGE"
VARIABLES = {"hydra.sweeper.storage": STORAGE_VARIABLE}
"""Option -> the variable that may hold it with its password; TRACKING_VARIABLE goes with the others."""
PASSWORD = re.compile(r"(://[^/?#@:\s]*):(?!\d+(?:[/?#\s]|$))[^\s'\"]+@")
"""Between the user's name and the host. Digits after the colon are a port."""
QUERY = re.compile(r"([?&;])(?:\w*passw(?:or)?d|pwd|\w*token|\w*secret|api_?key)=[^&;#\s'\"]*", re.IGNORECASE)
"""A database's password among a URI's further settings."""


def without_password(uri: str) -> str:
    """A URI without its password; a URI without one stays unchanged."""
    named = QUERY.sub(r"\1", PASSWORD.sub(r"\1@", uri))
    return re.sub(r"[?&;]+$", "", re.sub(r"([?&;])[&;]+", r"\1", named)) if named != uri else uri


def hidden(text: str) -> str:
    """A message with *** for every password of a URI in it."""
    return QUERY.sub(r"\1***", PASSWORD.sub(r"\1:***@", text))


def refuse_password(key: str, uri: str) -> None:
    """Refuse a URI that holds a password.

    Raises:
        UserError: telling where to put it, without repeating it.
    """
    named = without_password(uri)
    if named != uri:
        variable = VARIABLES.get(key, TRACKING_VARIABLE)
        raise UserError(
            f"{key}={hidden(uri)}: contains a password, and options are written into every run's records; give "
            f"{key}={named} and the whole address in the environment variable {variable}"
        )


def refuse_passwords(options: Any) -> None:
    """Refuse a password in any text of an options' dataclass, by `refuse_password`."""
    for key, text in texts_of(options):
        refuse_password(key, text)


def connectable(uri: str, variable: str = TRACKING_VARIABLE) -> str:
    """The URI to connect to for one without a password: the environment's, if that is the same with its password."""
    whole = os.environ.get(variable, "")
    return whole if whole and without_password(whole) == uri else uri


def texts_of(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text below a value with its dotted key."""
    if isinstance(value, str):
        yield key, value
        return
    inside = vars(value) if is_dataclass(value) else value
    if isinstance(value, list):
        inside = dict(enumerate(value))
    for name, held in inside.items() if isinstance(inside, dict) else ():
        yield from texts_of(held, f"{key}.{name}" if key else str(name))
