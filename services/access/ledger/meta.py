"""What the ledger says about itself: single values by name."""

from __future__ import annotations

import sqlalchemy as sa

from services.access.ledger.db.database import Tx
from services.access.ledger.db.schema import meta

_table = meta.c


def get(tx: Tx, name: str) -> str | None:
    """One value; None if it is not there."""
    found: str | None = tx.execute(sa.select(_table.value).where(_table.name == name)).scalar()
    return found


def names(tx: Tx, prefix: str) -> set[str]:
    """The names that begin with ``prefix``, without it."""
    found = tx.execute(sa.select(_table.name).where(_table.name.startswith(prefix, autoescape=True)))
    return {row.name.removeprefix(prefix) for row in found}


def put(tx: Tx, name: str, value: str) -> None:
    """Set one value."""
    drop(tx, name)
    tx.execute(meta.insert().values(name=name, value=value))


def drop(tx: Tx, name: str) -> None:
    """Take one value away."""
    tx.execute(meta.delete().where(_table.name == name))
