"""Whether ledger, Vault and PostgreSQL say the same, read from each by itself."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos.wanted import Wanted
from tests.integration.access_world import World

PATIENCE_S = 15.0
LOST = "LOST:"
"""Begins what is said of a user or a lease that is lost; whatever else is said went wrong, but lost nothing."""
_OPEN = """SELECT access_request_id, sequence, state, database_user, lease_id, due_at, id, error, failures, vault_role
FROM attempts WHERE state NOT IN ('closed')"""


AskVault = Callable[[str, str, dict[str, Any]], tuple[int, dict[str, Any]]]
"""Method, path and body, as root; answers HTTP status and body."""


@dataclass(frozen=True, slots=True)
class Row:
    """One attempt that is not closed."""

    access_request_id: str
    sequence: int
    state: str
    database_user: str
    lease_id: str
    due_at: float | None
    id: str
    error: str
    failures: int
    vault_role: str


def open_attempts(ledger: Path) -> list[Row]:
    """The ledger's attempts, read from its file."""
    with sqlite3.connect(ledger) as connection:
        rows = [Row(*row) for row in connection.execute(_OPEN)]
    connection.close()
    return rows


class Eyes:
    """The superuser's view of PostgreSQL and Vault, over one connection that is reopened; for one thread."""

    def __init__(self, *, vault: AskVault, postgres_url: str, mounts: Sequence[str]) -> None:
        self._vault, self._url, self._mounts = vault, postgres_url, mounts
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None

    @classmethod
    def of(cls, made: World) -> Eyes:
        """Those of the quick path."""

        def ask(method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            return made.servers.vault(method, path, **body)

        return cls(vault=ask, postgres_url=made.servers.postgres_url, mounts=(made.mount,))

    def psql(self, sql: str) -> list[tuple[object, ...]]:
        """Run SQL as the superuser."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = psycopg.connect(self._url, autocommit=True)
                done = self._connection.execute(sql.encode())
                return done.fetchall() if done.description else []
            except psycopg.OperationalError:  # cut by this harness
                self.close()
                if time.monotonic() > end:
                    raise

    def database_users(self) -> dict[str, bool]:
        """The attempts' roles in PostgreSQL, and whether each may log in."""
        return {
            str(name): bool(may)
            for name, may in self.psql("SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname LIKE 'token-%'")
        }

    def idle(self) -> bool:
        """Whether PostgreSQL does nothing for Vault at this moment."""
        others = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
        busy = f"SELECT 1 FROM pg_stat_activity WHERE {others} AND state <> 'idle'"  # noqa: S608
        return not self.psql(busy)

    def cut_postgres(self) -> None:
        """End all of Vault's sessions in PostgreSQL, in the midst of whatever they do."""
        others = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
        self.psql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")  # noqa: S608

    def leases(self) -> set[str]:
        """Every lease of the mounts that Vault holds."""
        found: set[str] = set()
        for mount in self._mounts:
            for folder in self._keys(f"sys/leases/lookup/{mount}/creds/"):
                found |= {
                    f"{mount}/creds/{folder}{key}" for key in self._keys(f"sys/leases/lookup/{mount}/creds/{folder}")
                }
        return found

    def _keys(self, path: str) -> list[str]:
        status, body = self._vault("LIST", path, {})
        assert status in (200, 404), f"LIST {path}: {status}"
        return body["data"]["keys"] if status == 200 else []

    def lease_issued_at(self, lease_id: str) -> float | None:
        """When Vault made a lease, seconds since 1970; None if there is no such lease."""
        status, body = self._vault("POST", "sys/leases/lookup", {"lease_id": lease_id})
        return seconds_of(body["data"]["issue_time"]) if status == 200 else None

    def revoke(self, lease_id: str) -> int:
        """End a lease now; answers the HTTP status."""
        return self._vault("POST", f"sys/leases/revoke/{lease_id}", {"sync": True})[0]

    def cleanup_roles(self) -> list[str]:
        """The cleanup roles that are left in Vault."""
        return [
            name
            for mount in self._mounts
            for name in self._keys(f"{mount}/roles")
            if name.startswith("leasegate-cleanup.")
        ]

    def close(self) -> None:
        if self._connection:
            self._connection.close()


def lost(said: Iterable[str]) -> int:
    """How many of these tell of something that is lost."""
    return sum(LOST in each for each in said)


def seconds_of(time_of_vault: str) -> float:
    """Seconds since 1970 of one of Vault's times, which have nanoseconds."""
    whole, _, rest = time_of_vault.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{rest or 0}")


def alive_meanwhile(eyes: Eyes, wanted: Sequence[Wanted], rows: Sequence[Row]) -> list[str]:
    """Lists credentials in use that ended before their time; asked while no process runs."""
    database_users = eyes.database_users()
    in_use = {
        (row.access_request_id, row.sequence): row
        for row in rows
        if row.state in ("issued", "active", "retiring", "replaced")
    }
    broken = []
    for each in wanted:
        if each.ended or each.shaken or not each.secret_attempt:
            continue
        row = in_use.get((each.uid, each.secret_attempt))
        if row and not database_users.get(row.database_user):
            broken.append(
                f"{LOST} {each.uid}: its Secret has attempt {each.secret_attempt} ({row.state}), whose user is dropped"
            )
    return broken


def all_quiet(eyes: Eyes, wanted: Sequence[Wanted], rows: Sequence[Row], made: World) -> tuple[list[str], set[str]]:
    """Lists what is broken at rest, and the leases that only Vault has and whose users are dropped."""
    database_users, leases = eyes.database_users(), eyes.leases()
    active = {row.access_request_id: row for row in rows if row.state == "active"}
    broken = [
        f"{row.access_request_id}: attempt {row.sequence} is {row.state}"
        for row in rows
        if row.state not in ("active", "pending", "token_ready")
    ]
    owned = {row.database_user for row in active.values()}
    broken += [f"{LOST} PostgreSQL has {user}, which no active attempt owns" for user in database_users.keys() - owned]
    unleased = [row for row in active.values() if row.lease_id not in leases]
    broken += [
        f"{LOST} Vault has lost the lease of attempt {row.sequence} of {row.access_request_id} ({row.vault_role})"
        for row in unleased
    ]
    for each in wanted:
        row = active.get(each.uid)
        if each.ended or not each.approved:
            broken += [f"{each.uid} is over, but attempt {row.sequence} is active"] if row and each.ended else []
        elif row is None or each.secret_attempt != row.sequence:
            broken.append(
                f"{each.uid}: the Secret holds {each.secret_attempt}, active is {row.sequence if row else 'none'}"
            )
        elif not made.can_log_in(each.credential):
            broken.append(f"{LOST} {each.uid}: the credential of attempt {row.sequence} does not work")
    return broken, leases - {row.lease_id for row in active.values()}
