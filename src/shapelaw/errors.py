"""The errors that users see as one line, each with the exit code of the command that it ends."""

from __future__ import annotations

from typing import ClassVar


class UserError(ValueError):
    """Bad input: the message names the key, what was given, what is allowed and what to do next.

    Every command prints the message as one line.
    """

    exit_code: ClassVar[int] = 2


class NotPrepared(UserError):
    """The output of prepare.py is still missing; the request itself was valid."""


class Damaged(UserError):
    """A file that is no longer what the program wrote."""


class Diverged(UserError):
    """A run that diverged.

    Args:
        message: one line.
        step: the step at which it diverged.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class WorkFailed(RuntimeError):
    """Part of the work failed; the rest is finished and kept. The message says what to do next."""

    exit_code: ClassVar[int] = 1


class Interrupted(WorkFailed):
    """Something asked the run to stop; its newest checkpoint is complete and the same command continues it."""
