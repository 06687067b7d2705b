"""What people do to requests in the quick path while the service lives and dies: the roles they ask for, and their deeds by chance."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import psycopg

from leasegate.access.v1 import operator_service_pb2 as operator
from services.roles.statements import tolerant
from tests.chaos.agreement import Eyes, open_attempts
from tests.chaos.life import Life
from tests.chaos.wanted import Wanted
from tests.integration.access_world import CREATE, OPERATOR, Callee, World, put_role

STRICT = ('REVOKE ALL ON ALL TABLES IN SCHEMA public FROM "{{name}}";', 'DROP ROLE "{{name}}";')
"""Fails where the role is missing, and where it owns something."""


@dataclass(frozen=True, slots=True)
class RoleKind:
    """A role of the runs: what makes its logins and what drops them."""

    create: Sequence[str]
    revoke: Sequence[str] = ()


ROLES = {
    "psql-role": RoleKind(CREATE),
    "slow-role": RoleKind([*CREATE, "SELECT pg_sleep(0.03);"]),
    "strict-role": RoleKind(CREATE, tolerant(STRICT)),
}


def prepare(made: World) -> None:
    """Write the roles into Vault."""
    for name, kind in ROLES.items():
        made.write_role(f"k8s.-.demo.{name}", create=list(kind.create), revoke=list(kind.revoke))


class People:
    """Those who ask, approve, deny, delete and meddle.

    Attributes:
        did: How often something was done that is a fault to the service.
    """

    def __init__(self, made: World, wanted: Sequence[Wanted]) -> None:
        self._world, self._wanted = made, wanted
        self._digest = 0
        self._sessions: list[psycopg.Connection[Any]] = []
        self.did: Counter[str] = Counter()

    def say_roles(self, life: Life) -> None:
        """Say the roles to the catalogue, as the watcher does."""
        for name, kind in ROLES.items():
            put_role(self._world, cast(Callee, life), name=name, digest=f"{self._digest:064d}", revoke=list(kind.revoke))

    def act(self, each: Wanted, life: Life, rng: random.Random) -> None:
        """Do something to a request, or nothing."""
        chance = rng.random()
        if chance < 0.3 and not each.approved:
            each.approve()
        elif chance < 0.33:
            each.held = 0  # somebody deletes the Secret
        elif chance < 0.35:
            each.delete()
        elif chance < 0.36:
            each.deny()
        elif chance < 0.37:
            self._operator_revokes(each, life)
        elif chance < 0.38:
            self._revoked_in_vault(each)
        elif chance < 0.43:
            each.former_leader()
        elif chance < 0.45:
            self._session_that_owns(each)
        elif chance > 0.997:
            self._role_changes(life)
        elif chance > 0.985:
            self._cut_postgres()

    def _operator_revokes(self, each: Wanted, life: Life) -> None:
        calls = life.as_(OPERATOR).operator
        for lease in calls.ListLeases(operator.ListLeasesRequest()).leases:
            if lease.request == each.uid:
                each.shaken = True
                message = operator.RevokeLeaseRequest(request_id=f"{lease.handle}-{time.monotonic()}", handle=lease.handle, reason="chaos")
                calls.RevokeLease(message)
                return

    def _revoked_in_vault(self, each: Wanted) -> None:
        rows = open_attempts(self._world.ledger)
        if row := next((row for row in rows if row.request == each.uid and row.number == each.held and row.lease_id), None):
            each.shaken = True
            self.did["revoked behind our back"] += 1
            self._world.servers.vault("POST", f"sys/leases/revoke/{row.lease_id}", sync=True)

    def _session_that_owns(self, each: Wanted) -> None:
        """The holder keeps a session open that owns a temporary table, for which PostgreSQL refuses to drop the login."""
        if each.held and len(self._sessions) < 20:
            with suppress(psycopg.OperationalError):
                session = self._world.connect(each.credential)
                self._sessions.append(session)
                session.execute("CREATE TEMP TABLE mine (a int)")
                self.did["drop refused"] += 1

    def _role_changes(self, life: Life) -> None:
        self._digest += 1
        for each in self._wanted:
            each.shaken = True
        self.say_roles(life)

    def _cut_postgres(self) -> None:
        self.did["PostgreSQL cut"] += 1
        eyes = Eyes.of(self._world)
        eyes.cut_postgres()
        eyes.close()

    def close(self) -> None:
        """End the sessions that were left open."""
        for session in self._sessions:
            session.close()
