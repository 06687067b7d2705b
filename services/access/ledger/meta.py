"""Values about the ledger itself, by name."""

from __future__ import annotations

import sqlalchemy as sa

from services.access.ledger.db.database import Tx
from services.access.ledger.db.schema import meta

_table = meta.c


def get(tx: Tx, name: str) -> str | None:
    """Return one value; None if it is not set."""
    found: str | None = tx.execute(sa.select(_table.value).where(_table.name == name)).scalar()
    return found


def names(tx: Tx, prefix: str) -> set[str]:
    """Return the names that begin with ``prefix``, without it."""
    found = tx.execute(sa.select(_table.name).where(_table.name.startswith(prefix, autoescape=True)))
    return {row.name.removeprefix(prefix) for row in found}


def put(tx: Tx, name: str, value: str) -> None:
    """Set one value."""
    drop(tx, name)
    tx.execute(meta.insert().values(name=name, value=value))


def drop(tx: Tx, name: str) -> None:
    """Remove one value."""
    tx.execute(meta.delete().where(_table.name == name))
