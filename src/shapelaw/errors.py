"""The one error that users see."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input: the message names the key, what was given, what is allowed and what to do next.

    The scripts print the message as one line and end with exit code 2.
    """


class NotPrepared(UserError):
    """What prepare.py makes is not there yet: nothing was wrong with what was asked."""
