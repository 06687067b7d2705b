"""Exports a ledger as JSON, for ``leasegate ledger export``: to compare, or to revoke by hand what it had issued."""

from __future__ import annotations

import base64
from enum import Enum
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.access.domain import names
from services.access.ledger.db.schema import metadata
from services.access.ledger.inspect.offline import opened

_IDS = frozenset({"lease_id", "accessor"})
"""With these and a session at Vault leases can be revoked, so they are written on demand only. No ledger has a token
or a password.
"""

_LEFT_OUT = frozenset({"answers"})


def export(path: Path, *, with_ids: bool) -> dict[str, Any]:
    """Return all tables but the answers to calls, each row as an object.

    Args:
        path: The file.
        with_ids: Whether whole lease ids and accessors are written, too.

    Raises:
        NoLedger: It is none, or cannot be read.
    """
    with opened(path) as connection:
        inspector = sa.inspect(connection)
        version = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        found: dict[str, Any] = {"version": version}
        for table in metadata.sorted_tables:
            if table.name in _LEFT_OUT or not inspector.has_table(table.name):
                continue
            there = {column["name"] for column in inspector.get_columns(table.name)}
            columns = [
                column for column in table.columns if column.name in there and (with_ids or column.name not in _IDS)
            ]
            found[table.name] = [_row(table.name, row) for row in connection.execute(sa.select(*columns)).mappings()]
        return found


def _row(table: str, row: sa.RowMapping) -> dict[str, Any]:
    shown = {name: _value(value) for name, value in row.items()}
    return {"handle": names.lease_handle(row["id"])} | shown if table == "attempts" else shown


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple):
        return [_value(each) for each in value]
    if isinstance(value, Enum):
        return value.value
    return {field: getattr(value, field) for field in value.__slots__} if hasattr(value, "__slots__") else value
