"""The life of leases on real servers: renewed, shortened, rotated, revoked by others, outliving sessions and restarts.

The scenes wait for TTLs most of the time, so they are played side by side; each test asks for the end of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from leasegate.access.v1 import lease_pb2
from leasegate.access.v1 import watcher_service_pb2 as watcher
from services.common.errors import ConflictError, LeasegateError
from tests.eventually import eventually
from tests.integration.access_world import Callee, World, start
from tests.integration.lease_sealed import LEASES, RATE, Outage, sealed
from tests.integration.lease_world import (
    Client,
    Holder,
    Keeper,
    Kept,
    Scenes,
    approved,
    audited,
    database_users,
    end_all,
    lease_shown,
    many,
    offer,
    playing,
    seconds,
    serving,
    tokens_of,
    vault_role,
)

ROTATIONS = 100


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    folder = tmp_path_factory.mktemp("leases")
    together = (rotations, truncated, generations, revoked_by_others, holders, restarts)
    with playing(folder, *together, apart=(short_tokens, sealed)) as found:
        yield found


# -- rotation
# --------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What a steady client saw."""

    rotations: int
    database_users: int
    failed: list[str]


def rotations(made: World) -> Seen:
    """Longest life 32 s, overlap 8 s: each credential is replaced after 16 s and kept beside its successor for 8 s."""
    service = start(made, **{"rotation-overlap": "8s"})
    try:
        with Keeper(made, service.callee) as keeper:
            offer(made, service.callee, "rotates", ttl_s=24, max_ttl_s=32)
            kept = [keeper.keep(each) for each in many(service.callee, "rotates", 36)]
            with Client(made, kept) as one, Client(made, kept[::-1]) as other:
                eventually(
                    lambda: rotated(kept) >= ROTATIONS, timeout_s=200, every_s=0.5, what=f"{ROTATIONS} rotations"
                )
            seen = Seen(rotated(kept), one.count + other.count, one.failed + other.failed)
            end_all(made, "rotates", keeper.forget())
        return seen
    finally:
        service.close()


def rotated(kept: list[Kept]) -> int:
    return sum(each.claims - 1 for each in kept)


def test_a_client_connects_through_100_rotations_without_a_failure(scenes: Scenes) -> None:
    seen: Seen = scenes.of(rotations)
    print(f"{seen.rotations} rotations, {seen.database_users} database users, {len(seen.failed)} failed")
    assert seen.failed == []
    assert seen.rotations >= ROTATIONS
    assert seen.database_users > seen.rotations


# -- what Vault cuts short
# --------------------------------------------------------------------------------------------------


def truncated(made: World) -> Seen:
    """Vault grants less than the catalog says: by the role's max TTL, its TTL, or the mount's if the role has none."""
    made.servers.must("POST", f"sys/mounts/{made.mount}/tune", max_lease_ttl="36s")
    with serving(made, overlap_s=3) as callee, Keeper(made, callee) as keeper:
        offer(made, callee, "cut-max", ttl_s=20, max_ttl_s=36, told_max_s=86400)
        offer(made, callee, "cut-ttl", ttl_s=20, max_ttl_s=20, told_ttl_s=3600, told_max_s=86400)
        offer(made, callee, "no-max", ttl_s=20, max_ttl_s=0)
        kept = [keeper.keep(each) for role in ("cut-max", "cut-ttl", "no-max") for each in many(callee, role, 2)]
        with Client(made, kept) as client:
            eventually(lambda: all(each.claims >= 2 for each in kept), timeout_s=120, what="a rotation of each")
        seen = Seen(rotated(kept), client.count, client.failed)
        for role in ("cut-max", "cut-ttl", "no-max"):
            end_all(made, role, [each for each in keeper.forget() if each.dar.desired.db_role.name == role])
    return seen


def test_what_vault_cuts_short_is_replaced_in_time(scenes: Scenes) -> None:
    seen: Seen = scenes.of(truncated)
    assert seen.failed == []
    assert seen.rotations < seen.database_users


def short_tokens(made: World) -> Seen:
    """The token of each attempt lives for 24 s, its lease for an hour: the token's end is the credential's."""
    role = made.servers.must("GET", "auth/token/roles/leasegate")["data"]
    made.servers.must("POST", "auth/token/roles/leasegate", **token_role(role, "24s"))
    with serving(made, overlap_s=300) as callee, Keeper(made, callee) as keeper:
        offer(made, callee, "outlives", ttl_s=3600, max_ttl_s=86400)
        offer(made, callee, "for-ever", ttl_s=3600, max_ttl_s=0)
        kept = [keeper.keep(each) for role in ("outlives", "for-ever") for each in many(callee, role, 2)]
        first = [each.credential for each in kept]
        with Client(made, kept) as client:
            eventually(lambda: all(each.claims >= 3 for each in kept), timeout_s=120, what="two rotations each")
            eventually(
                lambda: not {each.username for each in first} & made.database_users(),
                timeout_s=60,
                what="the end of the first",
            )
        for lease in (each.lease for each in first):
            assert seconds(lease.expire_time) - seconds(lease.issue_time) <= 25
        return Seen(rotated(kept), client.count, client.failed)


def token_role(now: dict[str, Any], longest: str) -> dict[str, Any]:
    keys = ("allowed_policies", "orphan", "renewable", "token_no_default_policy")
    return {**{key: now[key] for key in keys if key in now}, "token_explicit_max_ttl": longest}


def test_a_lease_longer_than_its_token_is_replaced_before_the_token_ends(scenes: Scenes) -> None:
    seen: Seen = scenes.of(short_tokens)
    assert seen.failed == []
    assert seen.rotations <= 40  # a life that is cut short is no reason to replace a credential again and again


# -- generations of the service's own session
# ------------------------------------------------------------------------------------------------


@dataclass
class Generations:
    """What was there in the end."""

    database_users: int
    issued: int
    working: int
    leases: int


def generations(made: World) -> Generations:
    """Sessions of the service that last 5 s at most, so that it opens others, once because somebody revoked one."""
    short_service_auth(made, seconds_=5)
    with serving(made) as callee, Keeper(made, callee):
        offer(made, callee, "stays", ttl_s=3600, max_ttl_s=86400)
        offer(made, callee, "renews", ttl_s=24, max_ttl_s=3600)
        kept, seen = [*many(callee, "stays", 2), *many(callee, "renews", 2)], set[str]()
        for generation in range(1, 5):
            until_generation(made, seen, generation)
            kept.append(claimed(callee, "stays"))
        for accessor in live_sessions(made):
            made.servers.must("POST", "auth/token/revoke-accessor", accessor=accessor)
        kept.append(claimed(callee, "stays"))
        eventually(lambda: not seen & set(live_sessions(made)), timeout_s=30, what="the end of every earlier session")
        eventually(
            lambda: all(
                each.dar.ensure(secret_attempt=each.secret_attempt).access_request.lease.HasField("renew_time")
                for each in kept[2:4]
            ),
            timeout_s=30,
        )
        working = sum(made.can_log_in(each.credential) for each in kept)
        leases = len(made.leases(vault_role("stays"))) + len(made.leases(vault_role("renews")))
        for role in ("stays", "renews"):
            end_all(made, role, [each for each in kept if each.dar.desired.db_role.name == role])
        return Generations(len(seen), len(kept), working, leases)


def short_service_auth(made: World, *, seconds_: int) -> None:
    """Another AppRole for this world alone, whose tokens live that long."""
    s, role = made.servers, "auth/approle/role/short-lived"
    ttl = f"{seconds_}s"
    s.must(
        "POST",
        role,
        token_policies=["leasegate-access"],
        token_no_default_policy=True,
        token_ttl=ttl,
        token_max_ttl=ttl,
    )
    (made.folder / "role_id").write_text(s.must("GET", f"{role}/role-id")["data"]["role_id"])
    (made.folder / "secret_id").write_text(s.must("POST", f"{role}/secret-id")["data"]["secret_id"])


def live_sessions(made: World) -> list[str]:
    """Accessors of the tokens of that AppRole."""
    found = []
    for accessor in made.servers.must("LIST", "auth/token/accessors")["data"]["keys"]:
        status, body = made.servers.vault("POST", "auth/token/lookup-accessor", accessor=accessor)
        if status == 200 and (body["data"].get("meta") or {}).get("role_name") == "short-lived":
            found.append(accessor)
    return found


def until_generation(made: World, seen: set[str], number: int) -> None:
    """Wait until the service has logged in so many times."""

    def there() -> bool:
        seen.update(live_sessions(made))
        return len(seen) >= number

    eventually(there, timeout_s=60, what=f"session number {number}")


def claimed(callee: Callee, role: str) -> Kept:
    """A request with a credential; while the service's session was revoked a claim may fail once or twice."""
    kept = approved(callee, role)

    def claim() -> bool:
        try:
            kept.claim()
        except LeasegateError:
            return False
        return True

    eventually(claim, timeout_s=30)
    return kept


def test_when_the_service_logs_in_again_nothing_issued_before_dies(scenes: Scenes) -> None:
    seen: Generations = scenes.of(generations)
    print(f"{seen.database_users} sessions of the service, {seen.issued} credentials, {seen.working} work")
    assert seen.database_users >= 4
    assert seen.working == seen.issued == seen.leases


# -- revoked by somebody else
# --------------------------------------------------------------------------------------------------


def revoked_by_others(made: World) -> dict[str, tuple[lease_pb2.Lease, lease_pb2.Lease]]:
    """Each lease as it was last and its successor's, by the way in which it was revoked."""
    with serving(made, overlap_s=1) as callee, Keeper(made, callee) as keeper:
        offer(made, callee, "taken", ttl_s=20, max_ttl_s=3600)
        offer(made, callee, "all-taken", ttl_s=20, max_ttl_s=3600)
        by_id, by_token, untouched = many(callee, "taken", 3)
        (by_prefix,) = many(callee, "all-taken", 1)
        former = {way: each.credential for way, each in (("id", by_id), ("token", by_token), ("prefix", by_prefix))}
        s = made.servers
        s.must("POST", "sys/leases/revoke", lease_id=by_id.credential.lease.lease_id, sync=True)
        for accessor in tokens_of(made, by_token.dar.uid):
            s.must("POST", "auth/token/revoke-accessor", accessor=accessor)
        s.must("POST", f"sys/leases/revoke-prefix/{made.mount}/creds/{vault_role('all-taken')}", sync=True)
        last = {way: lease_shown(callee, credential.lease.handle) for way, credential in former.items()}
        kept = {way: keeper.keep(each) for way, each in (("id", by_id), ("token", by_token), ("prefix", by_prefix))}
        keeper.keep(untouched)
        eventually(lambda: all(each.claims == 2 for each in kept.values()), timeout_s=60, what="new credentials")
        assert all(made.can_log_in(each.credential) for each in (*kept.values(), untouched))
        assert untouched.claims == 1
        found = {way: (last[way], each.credential.lease) for way, each in kept.items()}
        gone = {credential.username for credential in former.values()}
        eventually(
            lambda: not gone & made.database_users(), timeout_s=30, what="no database user of a replaced attempt"
        )
        everything = keeper.forget()
        for role in ("taken", "all-taken"):
            end_all(made, role, [each for each in everything if each.dar.desired.db_role.name == role])
    return found


@pytest.mark.parametrize("way", ["id", "token", "prefix"])
def test_a_lease_that_somebody_else_revoked_is_replaced_by_its_renewal(scenes: Scenes, way: str) -> None:
    last, successor = scenes.of(revoked_by_others)[way]
    assert seconds(successor.issue_time) < seconds(
        last.expire_time
    )  # the renewal was due after three fifths of its TTL


# -- holders
# --------------------------------------------------------------------------------------------------


def holders(made: World) -> dict[str, lease_pb2.Lease]:
    """One renews, claims another and releases; one falls silent; one loses its lease in Vault."""
    with serving(made, overlap_s=2) as callee, Keeper(made, callee):
        made.write_role("held", ttl="15s", max_ttl="40s")
        steady, silent, robbed = (Holder(callee, "held") for _ in range(3))
        first, lost, taken = steady.claim(), silent.claim(), robbed.claim()
        made.servers.must("POST", "sys/leases/revoke", lease_id=taken.lease.lease_id, sync=True)
        with pytest.raises(ConflictError, match="claim another"):
            robbed.renew()
        assert made.can_log_in(robbed.claim())
        robbed.release()
        eventually(lambda: steady.renew().should_claim, timeout_s=60, every_s=3, what="should_claim")
        assert time.time() < seconds(lease_shown(callee, first.lease.handle).max_expire_time)
        assert made.can_log_in(first)
        second = steady.claim()
        eventually(lambda: first.username not in made.database_users(), timeout_s=30)
        assert made.can_log_in(second)
        eventually(
            lambda: lost.username not in made.database_users(),
            timeout_s=30,
            what="the end of the silent holder's credential",
        )
        with pytest.raises(ConflictError):
            silent.renew()
        steady.release()
        of = {"replaced": first, "silent": lost, "released": second}
        eventually(
            lambda: all(
                lease_shown(callee, each.lease.handle).state == lease_pb2.LEASE_STATE_CLOSED for each in of.values()
            ),
            timeout_s=30,
        )
        assert not made.leases("held")
        return {name: lease_shown(callee, each.lease.handle) for name, each in of.items()}


def test_holders_renew_claim_and_release_and_a_silent_one_loses_access(scenes: Scenes) -> None:
    ended: dict[str, lease_pb2.Lease] = scenes.of(holders)
    silent = ended["silent"]
    assert seconds(silent.close_time) >= seconds(silent.expire_time)  # not before its TTL
    assert {name: lease.end_reason for name, lease in ended.items()} == {
        "replaced": "another credential replaced it",
        "silent": "its holder did not renew it",
        "released": "its access request was deleted or released",
    }


# -- restarts
# --------------------------------------------------------------------------------------------------


@dataclass
class Restarts:
    """What was there before the first restart and after the last."""

    before: tuple[set[str], set[str]]
    after: tuple[set[str], set[str]]
    reads_between: int
    steps: set[int]
    working: int


def restarts(made: World) -> Restarts:
    """Killed, and stopped in order, with 20 credentials in use that have to be renewed all the while."""
    service = start(made)
    try:
        offer(made, service.callee, "lasting", ttl_s=32, max_ttl_s=3600)
        kept = many(service.callee, "lasting", 20)
        before, reads = there(made), creds_read(made)
        steps, again = set[int](), list[Kept]()
        for killed in (True, False):
            restarted_at = time.time()
            service.kill() if killed else service.close()
            service.callee.close()
            service = start(made)
            again = [Kept(each.dar.again(service.callee), each.secret_attempt, each.credential) for each in kept]
            steps |= {each.dar.ensure(secret_attempt=each.secret_attempt).next_step for each in again}
            eventually(
                lambda now=again, since=restarted_at: all(renewed_since(each, since) for each in now),  # type: ignore[misc]
                timeout_s=60,
                every_s=1,
                what="renewals",
            )
        steps |= {each.dar.ensure(secret_attempt=each.secret_attempt).next_step for each in again}
        working = sum(made.can_log_in(each.credential) for each in kept)
        seen = Restarts(before, there(made), creds_read(made) - reads, steps, working)
        end_all(made, "lasting", again)
        return seen
    finally:
        service.close()


def there(made: World) -> tuple[set[str], set[str]]:
    return database_users(made, "lasting"), made.leases(vault_role("lasting"))


def renewed_since(kept: Kept, at: float) -> bool:
    return seconds(kept.dar.ensure(secret_attempt=kept.secret_attempt).access_request.lease.renew_time) > at


def creds_read(made: World) -> int:
    """How often Vault was asked for a credential of this mount, as its audit log says."""
    creds = f"{made.mount}/creds/"
    return sum(kind == "request" and asked["path"].startswith(creds) for _, kind, asked in audited(made.servers, creds))


def test_a_restart_issues_nothing(scenes: Scenes) -> None:
    seen: Restarts = scenes.of(restarts)
    assert seen.before == seen.after
    assert [len(each) for each in seen.after] == [20, 20]
    assert (seen.steps, seen.reads_between, seen.working) == ({watcher.NEXT_STEP_NONE}, 0, 20)


# -- Vault sealed
# --------------------------------------------------------------------------------------------------


def test_a_third_of_a_ttl_without_vault_ends_no_lease(scenes: Scenes) -> None:
    seen: Outage = scenes.of(sealed)
    print(f"{seen.renewals} renewals after the return, at most {seen.peak} in one second where {RATE} are configured")
    assert seen.before == seen.after
    assert [len(each) for each in seen.after] == [LEASES, LEASES]
    assert seen.claims == LEASES  # nothing was issued again
    assert seen.renewals >= LEASES
    assert seen.peak <= 1.1 * RATE + 8  # a tenth of a second is evened out, and each worker's call takes its time
