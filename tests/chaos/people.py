"""What people do to access requests in the quick path while the service lives and dies, by chance."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import psycopg
import yaml

from leasegate.access.v1 import operator_service_pb2 as operator
from services.access.ledger.db.database import Clock
from services.roles.statements import checked
from tests.chaos.agreement import Eyes, open_attempts
from tests.chaos.aims import Lean
from tests.chaos.holders import Holder
from tests.chaos.life import Life
from tests.chaos.wanted import Object, Wanted
from tests.integration.access_world import ALICE, CAROL, CREATE, OPERATOR, Callee, Dar, World, put_role

STRICT = ('REVOKE ALL ON ALL TABLES IN SCHEMA public FROM "{{name}}";', 'DROP ROLE "{{name}}";')
"""Fails where the role is missing, and where it owns something."""


@dataclass(frozen=True, slots=True)
class RoleKind:
    """A role of the runs: what creates its users and what drops them."""

    create: Sequence[str]
    revoke: Sequence[str] = ()
    max_s: int = 86_400


ROLES = {
    "psql-role": RoleKind(CREATE),
    "slow-role": RoleKind([*CREATE, "SELECT pg_sleep(0.03);"]),
    "strict-role": RoleKind(CREATE, STRICT),
    "brief-role": RoleKind(CREATE, max_s=3600),
}
IN_CATALOG = ("reader", "slow-reader", "brief-reader")
"""Roles of callers outside Kubernetes; each is one of those above."""


def prepare(made: World) -> None:
    """Write the roles into Vault, and into the catalog of callers outside Kubernetes."""
    for name, kind in ROLES.items():
        made.write_role(
            f"k8s.-.demo.{name}", max_ttl=f"{kind.max_s}s", create=list(kind.create), revoke=list(checked(kind.revoke))
        )
    catalog = yaml.safe_load(made.catalog_file.read_text())
    reader = next(each for each in catalog["roles"] if each["name"] == "reader")
    for name in ("slow", "brief"):
        role = f"{name}-role"
        changes = {"name": f"{name}-reader", "vault_role": f"k8s.-.demo.{role}", "max_ttl": f"{ROLES[role].max_s}s"}
        catalog["roles"].append({**reader, **changes})
    made.catalog_file.write_text(yaml.safe_dump(catalog))


class People:
    """Those who ask, approve, deny, delete and meddle.

    Attributes:
        did: How often something was done that is a fault to the service.
    """

    def __init__(self, made: World, wanted: Sequence[Wanted], *, clock: Clock) -> None:
        self._world, self._wanted, self._clock = made, wanted, clock
        self._version = 0
        self._sessions: list[psycopg.Connection[Any]] = []
        self.did: Counter[str] = Counter()

    def say_roles(self, life: Life) -> None:
        """Say the roles to the catalog, as the watcher does."""
        for name, kind in ROLES.items():
            create = [*CREATE, f"SELECT {self._version};"]
            changes = {"create": create, "max_ttl_s": kind.max_s, "revoke": list(kind.revoke)}
            put_role(self._world, cast(Callee, life), name=name, **changes)

    def somebody(self, life: Life, lean: Lean, rng: random.Random) -> Wanted:
        """Somebody new who wants access: an object of Kubernetes, or a caller over gRPC."""
        if rng.random() < 0.7:
            return Object(Dar(cast(Callee, life), role=rng.choice(lean.roles or tuple(ROLES))))
        roles = [f"{name.removesuffix('role')}reader" for name in lean.roles] or IN_CATALOG
        return Holder(life, role=rng.choice(roles), target="prod", requester=ALICE, approver=CAROL, clock=self._clock)

    def act(self, each: Wanted, life: Life, lean: Lean, rng: random.Random) -> None:
        """Do something to a request, or nothing."""
        chance = rng.random()
        if rng.random() < lean.ending:
            each.delete()
        elif chance < 0.3 and not each.approved:
            each.approve()
        elif rng.random() < lean.changing:
            self._role_changes(life)
        elif not lean.peaceful:
            self._meddle(each, life, chance)

    def _meddle(self, each: Wanted, life: Life, chance: float) -> None:
        if chance < 0.3:
            return
        if chance < 0.33:
            each.lose()
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
        elif chance > 0.998:
            self._role_changes(life)
        elif chance > 0.993:
            self._cut_postgres()

    def _operator_revokes(self, each: Wanted, life: Life) -> None:
        calls = life.as_(OPERATOR).operator
        for lease in calls.ListLeases(operator.ListLeasesRequest()).leases:
            if lease.access_request_id == each.uid:
                each.shaken = True
                message = operator.RevokeLeaseRequest(
                    request_id=f"{lease.handle}-{time.monotonic()}", handle=lease.handle, reason="chaos"
                )
                calls.RevokeLease(message)
                return

    def _revoked_in_vault(self, each: Wanted) -> None:
        rows = open_attempts(self._world.ledger)
        if row := next(
            (
                row
                for row in rows
                if row.access_request_id == each.uid and row.sequence == each.secret_attempt and row.lease_id
            ),
            None,
        ):
            each.shaken = True
            self.did["revoked by somebody else"] += 1
            self._world.servers.vault("POST", f"sys/leases/revoke/{row.lease_id}", sync=True)

    def _session_that_owns(self, each: Wanted) -> None:
        """The user keeps a session open that owns a temporary table: PostgreSQL refuses to drop the user."""
        if each.secret_attempt and len(self._sessions) < 20:
            with suppress(psycopg.OperationalError):
                session = self._world.connect(each.credential)
                self._sessions.append(session)
                session.execute("CREATE TEMP TABLE mine (a int)")
                self.did["drop refused"] += 1

    def _role_changes(self, life: Life) -> None:
        self._version += 1
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
