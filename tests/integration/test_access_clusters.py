"""Row H3: a watcher's certificate is bound to one cluster, and nobody but the operator's file defines catalog roles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from leasegate.access.v1 import approval_pb2
from leasegate.access.v1 import operator_service_pb2 as operator
from leasegate.access.v1 import requester_service_pb2 as requester
from leasegate.access.v1 import watcher_service_pb2 as watcher
from leasegate.types.v1 import types_pb2
from services.common import errors
from tests.integration.access_world import (
    ALICE,
    BOB,
    CAROL,
    CLUSTER_UID,
    DB,
    OPERATOR,
    OTHER_CLUSTER_UID,
    OTHER_WATCHER,
    WATCHER,
    Callee,
    Dar,
    World,
    approve,
    ask,
    in_process,
    put_role,
    world,
)
from tests.servers import Servers


@pytest.fixture(scope="module")
def made(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(servers, tmp_path_factory.mktemp("clusters"), mount="team/clusters") as found:
        yield found


@pytest.fixture(scope="module")
def service(made: World) -> Iterator[Callee]:
    with in_process(made) as found:
        yield found


@pytest.fixture
def callee(made: World, service: Callee) -> Callee:
    put_role(made, service)
    return service


def refs(message: Message) -> Iterator[types_pb2.ObjectRef]:
    """The objects that a message names."""
    for _, value in message.ListFields():
        if isinstance(value, types_pb2.ObjectRef):
            yield value
        elif isinstance(value, Message):
            yield from refs(value)


def calls(made: World, callee: Callee) -> dict[str, Message]:
    """A request of each RPC of the watcher that names an object of Kubernetes."""
    ref = Dar(callee).desired.object
    target = types_pb2.VaultTarget(source=ref, address=made.servers.vault_addr)
    return {
        "EnsureAccessRequest": Dar(callee).desired,
        "DeleteAccessRequest": watcher.DeleteAccessRequestRequest(object=ref),
        "EnsureVaultTarget": watcher.EnsureVaultTargetRequest(target=target),
        "PutDbRoleSnapshot": watcher.PutDbRoleSnapshotRequest(snapshot=made.snapshot()),
        "DeleteDbRoleSnapshot": watcher.DeleteDbRoleSnapshotRequest(object=made.snapshot().object),
    }


def test_h3_objects_of_another_cluster_are_refused_by_each_call(made: World, callee: Callee) -> None:
    for method, request in calls(made, callee).items():
        for number, _ in enumerate(refs(request)):
            for uid in (OTHER_CLUSTER_UID, "", CLUSTER_UID.upper(), CLUSTER_UID + " "):
                wrong = type(request)()
                wrong.CopyFrom(request)
                list(refs(wrong))[number].cluster_uid = uid
                with pytest.raises(errors.CallerNotAllowedError, match=f"{CLUSTER_UID}.*--watcher-cluster"):
                    getattr(callee.as_(WATCHER).watcher, method)(wrong)


def test_h3_objects_without_a_namespace_are_refused_by_each_call(made: World, callee: Callee) -> None:
    for method, request in calls(made, callee).items():
        for number, _ in enumerate(refs(request)):
            wrong = type(request)()
            wrong.CopyFrom(request)
            list(refs(wrong))[number].namespace = ""
            with pytest.raises(errors.SpecInvalidError, match="namespace"):
                getattr(callee.as_(WATCHER).watcher, method)(wrong)


def test_h3_the_operators_catalog_is_changed_by_no_watcher(made: World, callee: Callee) -> None:
    """Else two approvals became one, or an approved role another one."""
    asked = ask(callee)
    for uid in (CLUSTER_UID, ""):
        snapshot = made.snapshot()
        snapshot.object.CopyFrom(types_pb2.ObjectRef(name="reader", cluster_uid=uid))
        with pytest.raises((errors.SpecInvalidError, errors.CallerNotAllowedError)):
            callee.as_(WATCHER).watcher.PutDbRoleSnapshot(watcher.PutDbRoleSnapshotRequest(snapshot=snapshot))
        with pytest.raises((errors.SpecInvalidError, errors.CallerNotAllowedError)):
            callee.as_(WATCHER).watcher.DeleteDbRoleSnapshot(
                watcher.DeleteDbRoleSnapshotRequest(object=snapshot.object)
            )
    assert approve(callee, asked.id, digest=asked.digest).approval_state == approval_pb2.APPROVAL_STATE_APPROVED


def elsewhere(callee: Callee) -> Dar:
    """An access request like another one, of the other cluster."""
    dar = Dar(callee)
    dar.calls = callee.as_(OTHER_WATCHER)
    for ref in refs(dar.desired):
        ref.cluster_uid = OTHER_CLUSTER_UID
    return dar


def test_h3_two_clusters_of_one_name_share_no_role_and_no_request(made: World, callee: Callee) -> None:
    mine, theirs = Dar(callee), elsewhere(callee)
    mine.ensure()
    assert mine.decide().access_request.approval_state == approval_pb2.APPROVAL_STATE_APPROVED
    assert not theirs.ensure().access_request.digest  # the role of that name is the first cluster's
    snapshot = made.snapshot(create=["CREATE ROLE \"{{name}}\" SUPERUSER LOGIN PASSWORD '{{password}}'"])
    snapshot.object.cluster_uid = OTHER_CLUSTER_UID
    theirs.calls.watcher.PutDbRoleSnapshot(watcher.PutDbRoleSnapshotRequest(snapshot=snapshot))
    assert mine.ensure().access_request.approval_state == approval_pb2.APPROVAL_STATE_APPROVED
    theirs.desired.object.uid = mine.uid
    for call in (theirs.ensure, theirs.end):
        with pytest.raises(errors.CallerNotAllowedError):
            call()
    theirs.calls.watcher.DeleteDbRoleSnapshot(watcher.DeleteDbRoleSnapshotRequest(object=snapshot.object))
    assert mine.ensure().access_request.digest
    mine.end()


def test_h3_a_ledger_id_that_a_watcher_knows_pauses_its_cluster_alone(servers: Servers, tmp_path: Path) -> None:
    with world(servers, tmp_path, mount="team/paused") as made, in_process(made) as callee:
        put_role(made, callee)
        mine, over_grpc = Dar(callee), ask(callee).id
        mine.ensure()
        poll = watcher.WatchChangesRequest(known_ledger_id="f" * 32, max_wait=Duration())
        assert callee.as_(OTHER_WATCHER).watcher.WatchChanges(poll).issuance_paused
        assert callee.as_(OPERATOR).operator.GetLedger(operator.GetLedgerRequest()).ledger.issuance_paused
        assert mine.decide(claim=True).HasField("credential")
        approve(callee, over_grpc)
        claim = requester.ClaimCredentialRequest(access_request_id=over_grpc)
        assert callee.as_(ALICE).requester.ClaimCredential(claim).HasField("credential")
        theirs = elsewhere(callee)
        paused = {each.type: each.reason for each in theirs.ensure().access_request.conditions}
        assert paused["IssuancePaused"] == "LedgerMismatch"
        assert callee.as_(WATCHER).watcher.WatchChanges(poll).issuance_paused
        paused = {each.type: each.reason for each in mine.ensure().access_request.conditions}
        assert paused["IssuancePaused"] == "LedgerMismatch"
        mine.end()


def test_only_watchers_call_watcher_service(callee: Callee) -> None:
    for san in (ALICE, BOB, CAROL, OPERATOR):
        with pytest.raises(errors.CallerNotAllowedError):
            callee.as_(san).watcher.WatchChanges(watcher.WatchChangesRequest())


def test_h3_no_watcher_pauses_or_revokes_what_another_cluster_has(made: World, callee: Callee) -> None:
    mine, later = Dar(callee), Dar(callee)
    credential = mine.issue()
    later.ensure()
    theirs = callee.as_(OTHER_WATCHER).watcher
    where: dict[str, Any] = {"target": made.target_ref(), "mount": made.mount}
    report = theirs.Quiesce(watcher.QuiesceRequest(**where, revoke_leases=True)).quiesce_report
    assert report.open_attempts  # the mount is not free for anybody
    paused = theirs.PauseDbRoles(watcher.PauseDbRolesRequest(**where, connection=DB))
    put_role(made, callee)  # which would be stale, or be waited for
    assert later.decide(claim=True).HasField("credential")
    assert made.can_log_in(credential)
    ours = callee.as_(WATCHER).watcher
    number = ours.PauseDbRoles(watcher.PauseDbRolesRequest(**where, connection=DB)).pause_number
    assert number > paused.pause_number
    theirs.Resume(watcher.ResumeRequest(**where, connection=DB, connection_written=True))
    theirs.Resume(watcher.ResumeRequest(**where))
    another = Dar(callee)
    another.ensure()
    assert not another.decide(claim=True).HasField("credential")
    assert ours.Resume(watcher.ResumeRequest(**where, connection=DB, connection_written=True)).paused_db_roles
    newest = watcher.PutDbRoleSnapshotRequest(snapshot=made.snapshot(), pause_number=number + 1)
    assert not ours.PutDbRoleSnapshot(newest).paused
    assert another.ensure(claim=True).HasField("credential")
    for dar in (mine, later, another):
        dar.end()
