"""What a person is told when something does not work: one line that says what is wrong and what to do next."""

from __future__ import annotations


class CommandError(Exception):
    """One thing that went wrong, in a person's words. Holds no token or password."""


class ConflictError(CommandError):
    """The object changed between reading and writing it."""
