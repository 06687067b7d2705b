"""Migrates a ledger by Alembic; ``services.access.ledger.db.version`` loads this only where a migration is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from services.access.ledger.db.version import NewerVersionError

_FOLDER = Path(__file__).with_name("migrations")


def config(connection: Connection) -> Config:
    """Alembic's configuration for one open connection."""
    made = Config()
    made.set_main_option("script_location", str(_FOLDER))
    made.attributes["connection"] = connection
    return made


def revisions() -> list[str]:
    """The versions that this program knows, oldest first."""
    made = Config()
    made.set_main_option("script_location", str(_FOLDER))
    return [script.revision for script in ScriptDirectory.from_config(made).walk_revisions()][::-1]


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing.

    Raises:
        NewerVersionError: The ledger has one that this program does not know.
    """
    made = config(connection)
    connection.rollback()
    known = {script.revision for script in ScriptDirectory.from_config(made).walk_revisions()}
    current = MigrationContext.configure(connection).get_current_heads()
    connection.rollback()
    if unknown := set(current) - known:
        raise NewerVersionError(f"the ledger is of a newer version ({', '.join(sorted(unknown))})")
    raw: Any = connection.connection.driver_connection
    raw.execute(
        "PRAGMA foreign_keys=OFF"
    )  # SQLite rebuilds a table by dropping it; what refers to it is checked before the commit
    try:
        command.upgrade(made, "head")
    finally:
        connection.rollback()
        raw.execute("PRAGMA foreign_keys=ON")
