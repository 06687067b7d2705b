"""What revokes a credential and what only looks like it, on real servers: at the end no database user is left.

The facts that other files show: a database user that owns a temporary table in an open session is in
test_access_kubernetes.py, a connection that is pointed elsewhere under live leases in test_engine.py, a lease that is
longer than its token in test_lease_life.py, the policies in test_policies.py. The scenes wait for graces and for reads
that may still be under way, so they are played side by side.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from leasegate.access.v1 import watcher_service_pb2 as watcher
from services.access.leases import recover
from services.access.ledger import attempts
from services.access.vault import circuit_breaker
from services.common.errors import LeasegateError, VaultFailedError, VaultUnavailableError
from services.common.names import CLEANUP_ROLE_PREFIX
from services.common.vault.transport import Transport
from tests.eventually import eventually
from tests.integration.access_world import CREATE, DB, WATCHER, Callee, World, add_mount, put_role
from tests.integration.lease_world import (
    Keeper,
    Kept,
    Scenes,
    approved,
    audited,
    offer,
    playing,
    serving,
    tokens_of,
    vault_role,
)

STRICT = ['REVOKE ALL ON ALL TABLES IN SCHEMA public FROM "{{name}}";', 'DROP ROLE "{{name}}";']
ABORTED = 200
CUT_S: dict[str, tuple[float, float]] = {}
"""By mount: after how many seconds the connection of a credential's read is cut."""


@pytest.fixture(scope="module", autouse=True)
def _cutting() -> Iterator[None]:
    """Cut reads of credentials in the middle where ``CUT_S`` says so, without circuit breaker and long pauses."""
    whole = Transport._exchange

    def cut(
        self: Transport, method: str, url: str, payload: bytes | None, headers: dict[str, str], budget_s: float
    ) -> Any:
        mount, creds, role = url.removeprefix("/v1/").partition("/creds/")
        within = CUT_S.get(mount) if creds and method == "GET" and not role.startswith(CLEANUP_ROLE_PREFIX) else None
        return whole(self, method, url, payload, headers, random.uniform(*within) if within else budget_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transport, "_exchange", cut)
        patch.setattr(circuit_breaker, "FAILURES", 10**6)
        patch.setattr(attempts, "ISSUING_GRACE_S", 1.0)
        patch.setattr(recover, "_RETRY_S", 3.0)
        yield


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    folder = tmp_path_factory.mktemp("endings")
    with playing(
        folder, denied_in_a_read, absent, narrowed, without_role, without_mount, apart=(aborted_reads,)
    ) as found:
        yield found


def doubtful(made: World, callee: Callee, role: str, *, revoke: list[str] | None = None) -> Kept:
    """A request whose credential's read was cut: nobody knows whether its database user exists."""
    made.write_role(vault_role(role), create=[*CREATE, "SELECT pg_sleep(0.4);"], revoke=revoke)
    put_role(made, callee, name=role, revoke=revoke)
    kept = approved(callee, role)
    CUT_S[made.mount] = (0.1, 0.3)
    with pytest.raises(VaultUnavailableError):
        kept.claim()
    del CUT_S[made.mount]
    return kept


def pending(kept: Kept) -> str:
    """What the owner sees of database users that are not dropped."""
    return " ".join(each.message for each in kept.dar.end().conditions if each.type == "RevocationPending")


def nothing_left(made: World, *kept: Kept) -> None:
    """Neither an open attempt nor a database user.

    Vault may keep a lease of a read that was cut, without a database user and without a token, until its TTL
    (docs/adr/0023-grace-before-recovery.md).
    """
    roles = {each.dar.desired.db_role.name for each in kept}
    eventually(
        lambda: not any(each.dar.end().open_attempts for each in kept), timeout_s=120, what="the end of every attempt"
    )
    assert not {
        user for user in made.database_users() if user.startswith(tuple(f"token-demo-{role}-" for role in roles))
    }


# -- the facts
# --------------------------------------------------------------------------------------------------


def denied_in_a_read(made: World) -> None:
    """The read takes longer than the grace of its reader, so that its token is revoked while it is under way."""
    made.write_role(vault_role("slow"), create=[*CREATE, "SELECT pg_sleep(4.3);"])
    with serving(made) as callee, Keeper(made, callee):
        put_role(made, callee, name="slow")
        kept, seen = approved(callee, "slow"), list[BaseException]()
        tokens = eventually(lambda: tokens_of(made, kept.dar.uid), what="its token")
        reading = threading.Thread(target=lambda: seen.append(refusal(kept)))
        reading.start()
        eventually(lambda: bool(running_creates(made)), every_s=0.02, what="the read")
        kept.dar.decide("DENIED")
        reading.join(30)
        assert isinstance(seen[0], LeasegateError)
        nothing_left(made, kept)
        assert not made.leases(vault_role("slow"))  # its reader lived, and gave it back
        revoked = min(
            at
            for token in tokens
            for at, _, asked in audited(made.servers, token)
            if asked["path"].endswith("revoke-accessor")
        )
        answered = min(
            at
            for at, kind, _ in audited(made.servers, f"{made.mount}/creds/{vault_role('slow')}")
            if kind == "response"
        )
        assert revoked < answered


def refusal(kept: Kept) -> BaseException:
    try:
        kept.claim()
    except LeasegateError as err:
        return err
    return AssertionError("it was answered")


def running_creates(made: World) -> list[tuple[Any, ...]]:
    return made.servers.psql(
        "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep(4.3)%'"
    )


def test_a_token_revoked_during_its_read_leaves_no_database_user(scenes: Scenes) -> None:
    scenes.of(denied_in_a_read)


def absent(made: World) -> None:
    """The read created no database user, and the team's revocation statements fail on a role that is not there."""
    made.write_role(vault_role("absent"), create=["CREATE NONSENSE"], revoke=STRICT)
    with serving(made) as callee, Keeper(made, callee) as keeper:
        put_role(made, callee, name="absent", revoke=STRICT)
        kept = approved(callee, "absent")
        with pytest.raises(VaultFailedError):
            kept.claim()
        assert kept.dar.end().open_attempts == 1
        nothing_left(made, kept)
        eventually(lambda: not keeper.cleanup_roles, what="cleanup roles that are removed")
        made_one = doubtful(made, callee, "strict", revoke=STRICT)  # with and without its database user
        nothing_left(made, made_one)


def test_an_absent_user_is_recovered_under_strict_revocation_statements(scenes: Scenes) -> None:
    scenes.of(absent)


@dataclass
class Stuck:
    """What the owner saw while the recovery could not go on."""

    message: str


def narrowed(made: World) -> Stuck:
    """The connection allows the team's role alone, by hand; then as the engine writes it, with the cleanup roles."""
    with serving(made) as callee, Keeper(made, callee):
        kept = doubtful(made, callee, "narrow")
        allow(made, vault_role("narrow"))
        kept.dar.end()
        message = eventually(
            lambda: found if "allowed" in (found := pending(kept)) else "", timeout_s=60, what="why it waits"
        )
        allow(made, vault_role("narrow"), "leasegate-cleanup.*")
        nothing_left(made, kept)
        return Stuck(message)


def allow(made: World, *roles: str) -> None:
    config = made.servers.must("GET", f"{made.mount}/config/{DB}")["data"]
    made.servers.must(
        "POST",
        f"{made.mount}/config/{DB}",
        plugin_name=config["plugin_name"],
        connection_url=config["connection_details"]["connection_url"],
        username="postgres",
        password="root",
        username_template="{{ .DisplayName | truncate 63 }}",
        allowed_roles=list(roles),
    )


def test_roles_narrowed_by_allowed_roles_before_the_recovery(scenes: Scenes) -> None:
    seen: Stuck = scenes.of(narrowed)
    assert "cleanup" in seen.message  # its name, or what it is


def without_role(made: World) -> None:
    """The PostgresRole is deleted before the recovery: in Vault, and in the catalog."""
    with serving(made) as callee, Keeper(made, callee):
        kept = doubtful(made, callee, "going", revoke=STRICT)
        made.servers.must("DELETE", f"{made.mount}/roles/{vault_role('going')}")
        callee.as_(WATCHER).watcher.DeleteDbRoleSnapshot(
            watcher.DeleteDbRoleSnapshotRequest(object=kept.dar.desired.db_role)
        )
        kept.dar.end()
        nothing_left(made, kept)


def test_a_role_that_is_deleted_before_the_recovery(scenes: Scenes) -> None:
    scenes.of(without_role)


def without_mount(made: World) -> Stuck:
    """Somebody unmounts it before the recovery, which waits, says so, and ends when the mount exists again."""
    with serving(made) as callee, Keeper(made, callee):
        kept = doubtful(made, callee, "unmounted")
        made.servers.must("DELETE", f"sys/mounts/{made.mount}")
        kept.dar.end()
        message = eventually(
            lambda: found if "cleanup role: " in (found := pending(kept)) else "", timeout_s=60, what="why it waits"
        )
        add_mount(made)
        nothing_left(made, kept)
        return Stuck(message)


def test_a_mount_that_is_deleted_before_the_recovery(scenes: Scenes) -> None:
    seen: Stuck = scenes.of(without_mount)
    assert "404" in seen.message


@dataclass
class Aborted:
    """What the reads left."""

    failed: int
    database_users: int
    leases: int
    husks: int


def aborted_reads(made: World) -> Aborted:
    """Eight clients at once whose connections are cut after 1 to 40 ms, each in the middle of its read."""
    with serving(made) as callee, Keeper(made, callee) as keeper:
        offer(made, callee, "aborted", ttl_s=3600, max_ttl_s=86400)
        with ThreadPoolExecutor(8) as pool:
            kept = list(pool.map(lambda _: approved(callee, "aborted"), range(ABORTED)))
            CUT_S[made.mount] = (0.001, 0.04)
            failed = sum(isinstance(err, VaultUnavailableError) for err in pool.map(refusal, kept))
            made_users, leases = len(made.database_users()), len(made.leases(vault_role("aborted")))
            list(pool.map(lambda each: each.dar.end(), kept))
        nothing_left(made, *kept)
        eventually(lambda: not keeper.cleanup_roles, what="cleanup roles that are removed")
        husks = len(made.leases(vault_role("aborted")))
        made.servers.must("POST", f"sys/leases/revoke-prefix/{made.mount}/creds", sync=True)  # Vault ends each at once
        return Aborted(failed, made_users, leases, husks)


def test_aborted_reads_leave_no_database_user(scenes: Scenes) -> None:
    seen: Aborted = scenes.of(aborted_reads)
    print(
        f"{seen.failed} of {ABORTED} reads aborted: {seen.database_users} database users and {seen.leases} leases;"
        f" now no database user, {seen.husks} leases"
    )
    assert seen.failed > ABORTED / 2
