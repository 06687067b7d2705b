"""Run by Alembic, with the connection that ``services.access.ledger.db.migrate`` gives it.

All that is missing is one transaction: a process that ends in between leaves the version that was there.
"""

from __future__ import annotations

from alembic import context

from services.access.ledger.db import schema

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=schema.metadata, render_as_batch=True, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if broken:
        raise RuntimeError(
            f"a migration of the ledger has broken {len(broken)} reference(s), the first in {broken[0][0]}"
        )
