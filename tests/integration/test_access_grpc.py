"""Access requests over gRPC on real servers: create, approve, claim, acknowledge, release, and every refusal."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from leasegate.access.v1 import access_request_pb2, approval_pb2, lease_pb2
from leasegate.access.v1 import approver_service_pb2 as approver
from leasegate.access.v1 import operator_service_pb2 as operator
from leasegate.access.v1 import requester_service_pb2 as requester
from services.common import errors
from tests.eventually import eventually
from tests.integration.access_world import (
    ALICE,
    BOB,
    CAROL,
    OPERATOR,
    WATCHER,
    Callee,
    World,
    approve,
    ask,
    deny,
    in_process,
    world,
)
from tests.servers import Servers


@pytest.fixture(scope="module")
def made(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(servers, tmp_path_factory.mktemp("access")) as found:
        yield found


@pytest.fixture(scope="module")
def callee(made: World) -> Iterator[Callee]:
    with in_process(made, overlap_s=1) as found:
        yield found


def claim(callee: Callee, uid: str, *, san: str = ALICE, secret_attempt: int = 0) -> lease_pb2.Credential:
    return (
        callee.as_(san)
        .requester.ClaimCredential(
            requester.ClaimCredentialRequest(access_request_id=uid, known_attempt=secret_attempt)
        )
        .credential
    )


def acknowledge(callee: Callee, uid: str, attempt: int) -> access_request_pb2.AccessRequest:
    message = requester.AcknowledgeCredentialRequest(access_request_id=uid, attempt=attempt)
    return callee.as_(ALICE).requester.AcknowledgeCredential(message).access_request


def get(callee: Callee, uid: str, *, san: str = ALICE) -> access_request_pb2.AccessRequest:
    return (
        callee.as_(san)
        .requester.GetAccessRequest(requester.GetAccessRequestRequest(access_request_id=uid))
        .access_request
    )


def release(callee: Callee, uid: str, *, request_id: str = "") -> access_request_pb2.AccessRequest:
    message = requester.ReleaseAccessRequestRequest(
        request_id=request_id or secrets.token_hex(8), access_request_id=uid
    )
    return callee.as_(ALICE).requester.ReleaseAccessRequest(message).access_request


def gone(made: World, credential: lease_pb2.Credential) -> None:
    eventually(lambda: credential.username not in made.database_users(), timeout_s=15, what="dropped database user")
    assert not made.can_log_in(credential)


def test_from_create_to_release_the_database_user_comes_and_goes(made: World, callee: Callee) -> None:
    uid = ask(callee).id
    with pytest.raises(errors.ApprovalRequiredError):
        claim(callee, uid)
    approve(callee, uid)
    credential = claim(callee, uid)
    assert made.can_log_in(credential)
    shown = acknowledge(callee, uid, credential.attempt)
    assert shown.active_attempt == credential.attempt
    assert shown.access_state == access_request_pb2.ACCESS_STATE_ACTIVE
    assert shown.lease.lease_id.startswith(f"{made.mount}/creds/")
    assert release(callee, uid).approval_state == approval_pb2.APPROVAL_STATE_WITHDRAWN
    gone(made, credential)
    eventually(lambda: get(callee, uid).access_state == access_request_pb2.ACCESS_STATE_CLOSED)
    assert not made.leases()
    with pytest.raises(errors.AccessEndedError):
        claim(callee, uid)


def test_the_database_user_carries_the_name_of_its_attempt(made: World, callee: Callee) -> None:
    uid = ask(callee).id
    approve(callee, uid)
    credential = claim(callee, uid)
    assert credential.username == credential.lease.username
    assert credential.username.startswith("token-reader-")
    release(callee, uid)
    gone(made, credential)


def test_an_approver_over_grpc_sees_the_grant(callee: Callee) -> None:
    uid = ask(callee, ticket="OPS-1").id
    pages = callee.as_(CAROL).approver.ListPendingAccessRequests(approver.ListPendingAccessRequestsRequest())
    (found,) = (each for each in pages.access_requests if each.id == uid)
    assert (found.grant.reason, found.grant.ticket, found.grant.vault) == ("to look", "OPS-1", "prod")
    with pytest.raises(errors.SpecInvalidError, match="ticket"):
        ask(callee, ticket="x" * 257)
    release(callee, uid)


def test_nothing_is_issued_on_deny(made: World, callee: Callee) -> None:
    uid = ask(callee).id
    before = made.database_users()
    assert deny(callee, uid).approval_state == approval_pb2.APPROVAL_STATE_DENIED
    with pytest.raises(errors.ApprovalDeniedError):
        claim(callee, uid)
    with pytest.raises(errors.AlreadyDecidedError, match=CAROL):
        approve(callee, uid)
    with pytest.raises(errors.AlreadyDecidedError):
        deny(callee, uid)
    assert made.database_users() == before


def test_a_deny_after_the_approval_revokes(made: World, callee: Callee) -> None:
    uid = ask(callee).id
    approve(callee, uid)
    credential = claim(callee, uid)
    acknowledge(callee, uid, credential.attempt)
    assert deny(callee, uid).access_state in (
        access_request_pb2.ACCESS_STATE_REVOKING,
        access_request_pb2.ACCESS_STATE_CLOSED,
    )
    gone(made, credential)
    eventually(lambda: not get(callee, uid).open_attempts)


def test_who_may_decide(callee: Callee) -> None:
    uid = ask(callee).id
    with pytest.raises(errors.CallerNotAllowedError):
        approve(callee, uid, san=ALICE)  # her own
    with pytest.raises(errors.CallerNotAllowedError):
        approve(callee, uid, san=BOB)  # no approver
    with pytest.raises(errors.DigestStaleError):
        approve(callee, uid, digest="0" * 64)
    approved = approve(callee, uid, digest=get(callee, uid).digest)
    assert [(d.approver, d.proof) for d in approved.decisions] == [
        (CAROL, approval_pb2.APPROVER_PROOF_CLIENT_CERTIFICATE)
    ]
    with pytest.raises(errors.AlreadyDecidedError):
        approve(callee, uid)
    with pytest.raises(errors.AccessRequestNotFoundError):
        approve(callee, "unknown")


def test_a_request_is_its_requesters_alone(callee: Callee) -> None:
    uid = ask(callee).id
    approve(callee, uid)
    for san in (BOB, WATCHER):
        with pytest.raises(errors.AccessRequestNotFoundError):
            get(callee, uid, san=san)
        with pytest.raises(errors.AccessRequestNotFoundError):
            claim(callee, uid, san=san)
    with pytest.raises(errors.CallerNotAllowedError):
        get(callee, uid, san=CAROL)


def test_the_same_request_id_acts_once(callee: Callee) -> None:
    first = ask(callee, request_id="once")
    assert ask(callee, request_id="once").id == first.id
    assert ask(callee, request_id="once", san=BOB).id != first.id
    with pytest.raises(errors.RequestIdReusedError):
        ask(callee, request_id="once", ttl_s=60)
    approved = approve(callee, first.id, request_id="yes")
    again = approve(callee, first.id, request_id="yes")
    assert (again.approval_state, len(again.decisions)) == (approved.approval_state, 1)
    assert (
        release(callee, first.id, request_id="bye").approval_state
        == release(callee, first.id, request_id="bye").approval_state
    )


def test_only_what_the_catalog_names(callee: Callee) -> None:
    calls = callee.as_(ALICE).requester
    for target, role in (("prod", "writer"), ("elsewhere", "reader")):
        with pytest.raises(errors.DbRoleNotFoundError):
            calls.CreateAccessRequest(
                requester.CreateAccessRequestRequest(request_id=secrets.token_hex(4), vault_target=target, db_role=role)
            )
    with pytest.raises(errors.SpecInvalidError):
        calls.CreateAccessRequest(requester.CreateAccessRequestRequest(vault_target="prod", db_role="reader"))
    with pytest.raises(errors.SpecInvalidError):
        calls.CreateAccessRequest(
            requester.CreateAccessRequestRequest(
                request_id="x", vault_target="prod", db_role="reader", ttl=Duration(nanos=1)
            )
        )


def test_lists_have_pages(callee: Callee) -> None:
    made = {ask(callee, san=BOB).id for _ in range(5)}
    calls, token, seen = callee.as_(BOB).requester, "", []
    while True:
        page = calls.ListAccessRequests(requester.ListAccessRequestsRequest(page_size=2, page_token=token))
        seen += [each.id for each in page.access_requests]
        if not (token := page.next_page_token):
            break
    assert made <= set(seen)
    assert len(seen) == len(set(seen))
    pending = (
        callee.as_(CAROL)
        .approver.ListPendingAccessRequests(approver.ListPendingAccessRequestsRequest(page_size=500))
        .access_requests
    )
    assert made <= {each.id for each in pending}
    with pytest.raises(errors.SpecInvalidError):
        calls.ListAccessRequests(requester.ListAccessRequestsRequest(page_token="nonsense"))


def test_wait_ends_with_the_decision(callee: Callee) -> None:
    uid = ask(callee).id
    calls = callee.as_(ALICE).requester
    first = calls.WaitAccessRequest(requester.WaitAccessRequestRequest(access_request_id=uid))
    revision = eventually(lambda: _settled(calls, uid, first.revision))
    answers: list[requester.WaitAccessRequestResponse] = []
    message = requester.WaitAccessRequestRequest(
        access_request_id=uid, revision=revision, max_wait=Duration(seconds=20)
    )
    waiting = threading.Thread(target=lambda: answers.append(calls.WaitAccessRequest(message, timeout=30)))
    waiting.start()
    approve(callee, uid)
    waiting.join(timeout=10)
    assert answers[0].access_request.approval_state == approval_pb2.APPROVAL_STATE_APPROVED


def _settled(calls: object, uid: str, revision: str) -> str:
    """The revision once the token is made, after which nothing changes by itself."""
    wait = calls.WaitAccessRequest  # type: ignore[attr-defined]
    now: str = wait(
        requester.WaitAccessRequestRequest(
            access_request_id=uid, revision=revision, max_wait=Duration(nanos=300_000_000)
        )
    ).revision
    return now


def test_the_holder_renews(made: World, callee: Callee) -> None:
    uid = ask(callee).id
    approve(callee, uid)
    credential = claim(callee, uid)
    calls = callee.as_(ALICE).requester
    with pytest.raises(errors.ConflictError):  # not acknowledged yet
        calls.RenewLease(requester.RenewLeaseRequest(request_id="r0", access_request_id=uid))
    acknowledge(callee, uid, credential.attempt)
    with pytest.raises(errors.ConflictError):  # she holds it already
        claim(callee, uid, secret_attempt=credential.attempt)
    renewed = calls.RenewLease(requester.RenewLeaseRequest(request_id="r1", access_request_id=uid))
    assert renewed.lease.HasField("renew_time")
    assert not renewed.should_claim
    again = calls.RenewLease(requester.RenewLeaseRequest(request_id="r1", access_request_id=uid))
    assert again.lease.renew_time == renewed.lease.renew_time
    release(callee, uid)
    gone(made, credential)
    with pytest.raises(errors.AccessEndedError):
        calls.RenewLease(requester.RenewLeaseRequest(request_id="r2", access_request_id=uid))


def test_the_holder_should_claim_near_the_longest_life(made: World, callee: Callee) -> None:
    made.write_role("brief", ttl="3s", max_ttl="8s")
    calls = callee.as_(ALICE).requester
    uid = calls.CreateAccessRequest(
        requester.CreateAccessRequestRequest(request_id="brief", vault_target="prod", db_role="brief")
    ).access_request.id
    approve(callee, uid)
    first = claim(callee, uid)
    acknowledge(callee, uid, first.attempt)

    def issued_again() -> bool:
        return calls.RenewLease(
            requester.RenewLeaseRequest(request_id=secrets.token_hex(4), access_request_id=uid)
        ).should_claim

    eventually(issued_again, every_s=0.5)
    assert made.can_log_in(first)
    second = claim(callee, uid, secret_attempt=first.attempt)
    acknowledge(callee, uid, second.attempt)
    gone(made, first)
    assert made.can_log_in(second)
    gone(made, second)  # its holder stops renewing
    release(callee, uid)


def test_what_nobody_acknowledged_ends_with_the_next_acknowledge(made: World, callee: Callee) -> None:
    uid = ask(callee).id
    approve(callee, uid)
    first, second = claim(callee, uid), claim(callee, uid)
    assert second.attempt > first.attempt
    assert made.can_log_in(first)  # it was answered, so it may be in use
    with pytest.raises(errors.ConflictError):
        acknowledge(callee, uid, first.attempt)
    acknowledge(callee, uid, second.attempt)
    gone(made, first)
    assert made.can_log_in(second)
    release(callee, uid)
    gone(made, second)


def test_the_ttl_of_a_request_ends_access_for_good(made: World, callee: Callee) -> None:
    uid = ask(callee, ttl_s=3).id
    approve(callee, uid)
    credential = claim(callee, uid)
    acknowledge(callee, uid, credential.attempt)
    eventually(lambda: get(callee, uid).approval_state == approval_pb2.APPROVAL_STATE_EXPIRED, timeout_s=10)
    gone(made, credential)


def test_an_operator_revokes_one_lease_and_its_request_gets_another(made: World, callee: Callee) -> None:
    uid = ask(callee).id
    approve(callee, uid)
    credential = claim(callee, uid)
    acknowledge(callee, uid, credential.attempt)
    calls = callee.as_(OPERATOR).operator
    listed = {
        each.handle for each in calls.ListLeases(operator.ListLeasesRequest(state=lease_pb2.LEASE_STATE_ACTIVE)).leases
    }
    assert credential.lease.handle in listed
    revoked = calls.RevokeLease(
        operator.RevokeLeaseRequest(request_id="op", handle=credential.lease.handle, reason="seen in a log")
    )
    assert revoked.lease.state == lease_pb2.LEASE_STATE_REVOKING
    gone(made, credential)
    with pytest.raises(errors.LeaseNotFoundError):
        calls.RevokeLease(operator.RevokeLeaseRequest(request_id="op2", handle="0" * 12))
    another = claim(callee, uid, secret_attempt=credential.attempt)
    assert made.can_log_in(another)
    release(callee, uid)
    gone(made, another)


def test_no_secret_in_ledger_or_log(made: World, callee: Callee, capsys: pytest.CaptureFixture[str]) -> None:
    uid = ask(callee).id
    approve(callee, uid)
    credential = claim(callee, uid)
    out = capsys.readouterr()
    assert credential.password not in out.out + out.err
    for file in made.folder.glob("ledger.db*"):
        assert credential.password.encode() not in Path(file).read_bytes()
    release(callee, uid)
    gone(made, credential)
