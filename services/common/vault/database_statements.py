"""SQL of a database role as Vault keeps it."""

from __future__ import annotations

from collections.abc import Iterable


def as_stored(statements: Iterable[str]) -> tuple[str, ...]:
    """Return statements without white space around them: Vault takes it off, so that a role shows what was written.

    A YAML block scalar ends with a line break.
    """
    return tuple(statement.strip() for statement in statements)
