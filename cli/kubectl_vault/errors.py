"""The errors of this command: one line that says what is wrong and what to do next."""

from __future__ import annotations


class CommandError(Exception):
    """An error for people. Its text has no token or password."""


class ConflictError(CommandError):
    """The object changed between reading and writing it."""
