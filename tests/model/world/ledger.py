"""The real ledger as several replicas share it, begun from a template for each world."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from services.access.domain.models import DbRole, VaultTargetRow
from services.access.ledger import catalog
from services.access.ledger.db import database
from services.access.ledger.db.database import Ledger, Tx, open_ledger
from services.common.errors import LedgerUnavailableError
from services.common.names import target_digest
from tests.model.world.jobs import Killed
from tests.model.world.vault import MAX_TTL_S, MOUNT, ROLE, TTL_S

BEGIN = 1_000_000.0


class SharedLedger(Ledger):
    """The ledger as one replica has it; replicas share the file, as no rule relies on there being one process."""

    full = dead = inside = False

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """As the real one, unless the disk is full or the replica dead."""
        if self.dead:
            raise Killed
        if self.full:
            raise LedgerUnavailableError("the ledger cannot be used: database or disk is full")
        self.inside = True
        try:
            with super().write() as tx:
                yield tx
        finally:
            self.inside = False


@cache
def engine(file: Path) -> Engine:
    """One for all worlds, as it keeps the compiled statements. No world loses power, so nothing waits for the disk."""
    made = database._engine(file)
    sa.event.listen(made, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    return made


def reset(made: Engine, template: Path) -> None:
    """Begin with the template again."""
    made.dispose()
    for suffix in ("", "-wal", "-shm"):
        template.with_name(f"ledger.db{suffix}").unlink(missing_ok=True)
    template.with_name("ledger.db").write_bytes(template.read_bytes())


def make_template(file: Path) -> None:
    """A ledger with the one Vault and the one role."""
    ledger = open_ledger(file, clock=lambda: BEGIN)
    at = "https://vault.test:8200"
    target = VaultTargetRow(0, "-", "demo", "vault", target_digest(at), at, at, "", b"", False, "")
    role = DbRole(
        0, "-", "c1", "demo", "psql-role", 0, MOUNT, ROLE, "db", ("DROP ROLE;",), TTL_S, MAX_TTL_S, "r1", False
    )
    with ledger.write() as tx:
        catalog.put_role(tx, replace(role, target=catalog.put_target(tx, target).id))
    with ledger._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()
