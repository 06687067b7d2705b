"""Brings a ledger's tables to the version that this program expects: created as a whole, or migrated by Alembic."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.access.ledger.db import schema

_VERSION_TABLE = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""As Alembic creates it."""


class NewerVersionError(Exception):
    """The ledger was written by a later version of the program."""


def bring_up(connection: Connection) -> None:
    """Create the tables of a new ledger, or run the migrations that are missing; each in one transaction.

    Alembic is loaded for a migration alone: it takes 10 MiB for as long as the process lives. A new ledger needs none,
    see https://alembic.sqlalchemy.org/en/latest/cookbook.html#building-an-up-to-date-database-from-scratch.

    Raises:
        NewerVersionError: The ledger has a version that this program does not know.
    """
    version = _version_of(connection)
    connection.rollback()
    if version is None:
        _create(connection)
    elif version != schema.VERSION:
        from services.access.ledger.db.migrate import upgrade

        upgrade(connection)


def _version_of(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table(_VERSION_TABLE.name):
        return None
    return str(connection.execute(sa.select(_VERSION_TABLE.c.version_num)).scalar() or "")


def _create(connection: Connection) -> None:
    schema.metadata.create_all(connection)
    _VERSION_TABLE.create(connection)
    connection.execute(_VERSION_TABLE.insert().values(version_num=schema.VERSION))
    connection.commit()
