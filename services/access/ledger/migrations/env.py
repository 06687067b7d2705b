"""Run by Alembic, with the connection that ``services.access.ledger.migrate`` gives it."""

from __future__ import annotations

from alembic import context

from services.access.ledger import schema

context.configure(connection=context.config.attributes["connection"], target_metadata=schema.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
