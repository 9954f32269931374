"""Output to the terminal: every printed word, name and path goes through here.

Names and paths come from others. A terminal acts on control characters in them (colours, titles, cursor movements), a console
on [brackets] and :names: of emoji, and bytes that are not UTF-8 cannot be printed at all. So unprintable characters are
spelt out, and only our own tables and bars are drawn.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

KEPT = "\n\t"
"""Unprintable characters that lay out lines."""


def printable(text: object) -> str:
    r"""A text in which everything that a terminal acts on, or cannot print, is spelt in Python's notation.

    >>> printable("a\x1b[31m b\udcff [red]\n")
    'a\\x1b[31m b\\udcff [red]\n'
    """
    words = str(text)
    if words.isprintable():
        return words
    return "".join(letter if letter.isprintable() or letter in KEPT else ascii(letter)[1:-1] for letter in words)


class Terminal(Console):
    """A console that prints texts literally: no markup, no emoji, no highlighting, nothing raw."""

    def __init__(self, stderr: bool = False, **options: Any) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **{"soft_wrap": True, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Text as it is printed, also as a cell of a table."""
        return super().render_str(printable(text), **options)


def terminal(stderr: bool = False, wide: int | None = None, soft_wrap: bool = True) -> Terminal:
    """The terminal on standard output or error.

    Args:
        stderr: whether to use standard error.
        wide: columns if it is not a terminal but a file or a pipe.
        soft_wrap: whether the terminal wraps long lines.
    """
    made = Terminal(stderr, soft_wrap=soft_wrap)
    return made if made.is_terminal or wide is None else Terminal(stderr, soft_wrap=soft_wrap, width=wide)


def write(text: object) -> None:
    """Write to standard output."""
    _write(sys.stdout, text)


def write_error(text: object) -> None:
    """Write to standard error."""
    _write(sys.stderr, text)


def _write(stream: TextIO, text: object) -> None:
    stream.write(printable(text))
    stream.flush()


def prepare_streams() -> None:
    """Let no character fail a command that has done its work: characters outside the stream's encoding are spelt out, also in
    warnings."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not logging.getLogger().handlers:
        logging.lastResort = Spelling()


class Spelling(logging.Handler):
    """Warnings on standard error, one line each."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a warning."""
        try:
            write_error(f"{self.format(record)}\n")
        except Exception:
            self.handleError(record)
