"""Vault sealed or unreachable, PostgreSQL down, auths missing, the service stopped: all converges afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from google.protobuf.duration_pb2 import Duration

from leasegate.access.v1 import lease_pb2
from leasegate.access.v1 import watcher_service_pb2 as watcher
from leasegate.types.v1 import types_pb2
from services.common import errors
from tests.eventually import eventually
from tests.integration.access_world import (
    CLUSTER_UID,
    WATCHER,
    Callee,
    Dar,
    Watcher,
    World,
    in_process,
    put_role,
    start,
    world,
)
from tests.servers import real_servers


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Servers of their own: they are sealed and stopped here."""
    with real_servers() as servers, world(servers, tmp_path_factory.mktemp("outages")) as found:
        yield found


@pytest.fixture
def callee(made: World) -> Iterator[Callee]:
    with in_process(made, overlap_s=1, claim_backoff_s=2) as found, Watcher(made, found):
        put_role(made, found)
        yield found


def gone(made: World, *credentials: lease_pb2.Credential) -> None:
    eventually(
        lambda: not {each.username for each in credentials} & made.database_users(),
        timeout_s=30,
        what="dropped database users",
    )


def issued(dar: Dar) -> lease_pb2.Credential:
    """The credential that the watcher gets in the end."""
    got: list[lease_pb2.Credential] = []

    def claim() -> bool:
        with suppress(errors.LeasegateError):
            if dar.ensure().next_step == watcher.NEXT_STEP_CLAIM:
                got.append(dar.claim())
        return bool(got)

    eventually(claim, timeout_s=30)
    return got[0]


def test_sealed_in_the_middle(made: World, callee: Callee) -> None:
    first, second = Dar(callee), Dar(callee)
    credential = first.issue()
    second.ensure()
    made.servers.bao.seal()
    try:
        ended = first.end()  # answers at once
        assert ended.open_attempts == 1
        second.decide()
        with pytest.raises((errors.VaultSealedError, errors.VaultUnavailableError)):
            second.claim()
        eventually(lambda: "sealed" in first.end().conditions[0].message)
        assert second.ensure().access_request.conditions[0].reason == "FailedToGetCredential"
    finally:
        made.servers.bao.unseal()
    gone(made, credential)
    another = issued(second)
    assert made.can_log_in(another)
    second.end()
    gone(made, another)
    eventually(lambda: not second.end().open_attempts, timeout_s=30)


def test_a_revoke_outlives_the_process(made: World) -> None:
    with in_process(made) as callee:
        put_role(made, callee)
        dar = Dar(callee)
        credential = dar.issue()
        made.servers.bao.seal()
        assert dar.end().open_attempts == 1
    made.servers.bao.unseal()
    assert made.can_log_in(credential)
    with in_process(made) as callee:
        gone(made, credential)
        eventually(lambda: not dar.again(callee).end().open_attempts)


def test_the_database_is_down(made: World, callee: Callee) -> None:
    first, second = Dar(callee), Dar(callee)
    credential = first.issue()
    second.ensure()
    second.decide()
    made.servers.postgres.process.terminate()
    try:
        first.end()
        with pytest.raises(errors.VaultFailedError):
            second.claim()
        eventually(lambda: "Vault cannot reach the database" in first.end().conditions[0].message)
        # That is no refusal to drop: our own statements are not needed for it.
        assert first.end().open_attempts == 1
    finally:
        made.servers.postgres.start()
    gone(made, credential)
    another = issued(second)
    second.end()
    gone(made, another)
    eventually(lambda: not made.database_users(), timeout_s=30)
    eventually(lambda: not second.end().open_attempts, timeout_s=30)


def test_vault_is_killed_while_it_is_asked(made: World, callee: Callee) -> None:
    dar = Dar(callee)
    credential = dar.issue()
    made.servers.bao.process.kill()
    assert dar.end().open_attempts == 1
    other = Dar(callee)
    other.ensure()
    other.decide()
    with pytest.raises(errors.VaultUnavailableError):
        other.claim()
    made.servers.bao.start()
    gone(made, credential)
    another = issued(other)
    other.end()
    gone(made, another)


def test_with_a_teams_auth_a_restart_requests_it_again(made: World) -> None:
    with in_process(made, own=False) as callee:
        put_role(made, callee)
        ref = give_auth(made, callee)
        put_snapshot(made, callee, ref)
        dar = Dar(callee)
        dar.ensure()
        answer = dar.decide()
        assert "ApprovalNotEnforced" in {each.type for each in answer.access_request.conditions}
        credential = dar.claim()
        dar.acknowledge(credential.attempt)
    with in_process(made, own=False) as callee:
        mine = dar.again(callee)
        assert mine.end().open_attempts == 1
        calls = callee.as_(WATCHER).watcher
        eventually(lambda: _wants_auth(calls))
        assert credential.username in made.database_users()
        give_auth(made, callee)
        gone(made, credential)
        assert not _wants_auth(calls)
    with in_process(made, own=False) as callee:
        put_role(made, callee)


def give_auth(made: World, callee: Callee) -> types_pb2.VaultTargetRef:
    target = types_pb2.VaultTarget(
        source=types_pb2.ObjectRef(cluster="-", cluster_uid=CLUSTER_UID, namespace="demo", name="vault"),
        address=made.servers.vault_addr,
        ca_bundle=made.servers.vault_ca.read_bytes(),
        token=types_pb2.TokenAuth(token=made.servers.token_with("leasegate-access")),
    )
    answer = callee.as_(WATCHER).watcher.EnsureVaultTarget(watcher.EnsureVaultTargetRequest(target=target))
    assert not answer.service_auth
    return answer.target


def put_snapshot(made: World, callee: Callee, ref: types_pb2.VaultTargetRef) -> None:
    snapshot = made.snapshot()
    snapshot.target.CopyFrom(ref)
    callee.as_(WATCHER).watcher.PutDbRoleSnapshot(watcher.PutDbRoleSnapshotRequest(snapshot=snapshot))


def _wants_auth(calls: object) -> bool:
    answer = calls.WatchChanges(watcher.WatchChangesRequest(max_wait=Duration(seconds=1)))  # type: ignore[attr-defined]
    return any(change.HasField("vault_auth_needed") for change in answer.changes)


def test_a_refused_auth_is_an_error(made: World) -> None:
    with in_process(made, own=False) as callee:
        target = types_pb2.VaultTarget(
            source=types_pb2.ObjectRef(cluster="-", cluster_uid=CLUSTER_UID, namespace="demo", name="wrong"),
            address=made.servers.vault_addr,
            ca_bundle=made.servers.vault_ca.read_bytes(),
            token=types_pb2.TokenAuth(token="s.nosuchtoken"),
        )
        with pytest.raises(errors.VaultAuthRefusedError) as caught:
            callee.as_(WATCHER).watcher.EnsureVaultTarget(watcher.EnsureVaultTargetRequest(target=target))
        assert "nosuchtoken" not in str(caught.value)


@pytest.mark.usefixtures("callee")
def test_a_second_process_on_the_ledger_is_refused(made: World) -> None:
    with pytest.raises(AssertionError, match="only one may"):
        start(made)
