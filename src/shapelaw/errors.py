"""The errors that users see in one line, each with the exit code of the command that it ends."""

from __future__ import annotations

from typing import ClassVar


class UserError(ValueError):
    """Bad input: the message names the key, what was given, what is allowed and what to do next.

    Every command prints the message as one line.
    """

    exit_code: ClassVar[int] = 2


class NotPrepared(UserError):
    """What prepare.py makes is not there yet: nothing was wrong with what was asked."""


class Damaged(UserError):
    """A file that is not what the program wrote there."""


class Diverged(UserError):
    """A run that diverged.

    Args:
        message: a line.
        step: at which it did.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class WorkFailed(RuntimeError):
    """Some of the work could not be done; the rest is finished and kept. The message says what to do next."""

    exit_code: ClassVar[int] = 1


class Interrupted(WorkFailed):
    """The run was asked to stop; its newest checkpoint is whole and the same command continues it."""
