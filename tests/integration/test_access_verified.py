"""--require-verified-requester on real servers: what an access request gets while nobody knows who is behind it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from leasegate.access.v1 import approval_pb2, lease_pb2
from leasegate.access.v1 import watcher_service_pb2 as watcher
from services.common import errors
from tests.eventually import eventually
from tests.integration.access_world import Callee, Dar, Watcher, World, approve, ask, in_process, put_role, start, world
from tests.servers import Servers

NONE, CLAIM, REMOVE = watcher.NEXT_STEP_NONE, watcher.NEXT_STEP_CLAIM, watcher.NEXT_STEP_REMOVE
PENDING, APPROVED = approval_pb2.APPROVAL_STATE_PENDING, approval_pb2.APPROVAL_STATE_APPROVED
CLAIMED = {"on_behalf_of": "hal"}
UNSTAMPED = {"requester": ""}


@pytest.fixture(scope="module")
def made(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(servers, tmp_path_factory.mktemp("verified"), mount="team/verified") as found:
        yield found


@pytest.fixture
def strict(made: World) -> Iterator[Callee]:
    """The service with the option."""
    with in_process(made, verified_only=True) as found, Watcher(made, found):
        put_role(made, found)
        yield found


def asked(callee: Callee, facts: dict[str, str], *, role: str = "psql-role") -> Dar:
    dar = Dar(callee, role=role)
    for name, value in facts.items():
        setattr(dar.desired, name, value)
    return dar


def unverified(answer: watcher.EnsureAccessRequestResponse) -> str:
    found = {each.type: each.reason for each in answer.access_request.conditions}
    return found.get("RequesterUnverified", "")


def gone(made: World, credential: lease_pb2.Credential) -> None:
    eventually(lambda: credential.username not in made.database_users(), timeout_s=15, what="a dropped database user")


@pytest.mark.parametrize(
    ("facts", "reason"), [(CLAIMED, "OnBehalfOfUnverified"), (UNSTAMPED, "AdmissionPolicyMissing")]
)
def test_an_unverified_request_gets_nothing_until_it_is_verified(
    made: World, strict: Callee, facts: dict[str, str], reason: str
) -> None:
    dar = Dar(strict)
    digest = dar.ensure().access_request.digest
    for name, value in facts.items():
        setattr(dar.desired, name, value)
    waiting = dar.ensure(claim=True)
    assert (waiting.next_step, waiting.access_request.digest, unverified(waiting)) == (NONE, "", reason)
    assert not waiting.access_request.HasField("grant")
    before = made.database_users()
    held = dar.decide(digest=digest, claim=True)
    assert (held.next_step, held.access_request.approval_state, unverified(held)) == (NONE, PENDING, reason)
    with pytest.raises(errors.ApprovalRequiredError, match="who is behind the access request"):
        dar.claim()
    assert made.database_users() <= before
    dar.desired.requester, dar.desired.on_behalf_of, dar.desired.verified_by = "portal", "hal", "portal"
    verified = dar.ensure(claim=True)  # the approval was kept
    assert (unverified(verified), verified.access_request.approval_state) == ("", APPROVED)
    credential = dar.claimed(verified)
    assert made.can_log_in(credential)
    dar.end()
    gone(made, credential)


def test_a_denial_counts_for_an_unverified_request(strict: Callee) -> None:
    dar = asked(strict, CLAIMED)
    dar.ensure()
    assert dar.decide("DENIED", digest="").next_step == REMOVE
    dar.desired.verified_by = "portal"
    assert dar.ensure().access_request.approval_state == approval_pb2.APPROVAL_STATE_DENIED


def test_a_name_that_is_added_later_stops_what_is_not_in_use(made: World, strict: Callee) -> None:
    """What was answered and not acknowledged is revoked; the approval counts again once somebody vouches."""
    dar = Dar(strict)
    dar.ensure()
    dar.decide()
    credential = dar.claim()
    dar.desired.on_behalf_of = "hal"
    assert dar.ensure().access_request.approval_state == PENDING
    gone(made, credential)
    dar.desired.verified_by = "portal"
    again = dar.ensure(claim=True)
    assert again.access_request.approval_state == APPROVED
    second = dar.claimed(again)
    assert made.can_log_in(second)
    dar.end()
    gone(made, second)


def test_callers_over_grpc_are_verified_by_certificate(made: World, strict: Callee) -> None:
    request = ask(strict)
    assert approve(strict, request.id).approval_state == APPROVED
    assert "RequesterUnverified" not in {each.type for each in request.conditions}


def test_switched_on_it_lets_run_out_and_switched_off_it_goes_on(made: World) -> None:
    """What is in use works to the end of its TTL, unrenewed; the approval is not lost."""
    made.write_role("k8s.-.demo.short-role", ttl="6s", max_ttl="1h")
    short = {"name": "short-role", "ttl_s": 6, "max_ttl_s": 3600}
    with in_process(made) as lax, Watcher(made, lax):
        put_role(made, lax, **short)
        dars = {name: asked(lax, facts, role="short-role") for name, facts in (("a", CLAIMED), ("b", {}))}
        credentials = {name: dar.issue() for name, dar in dars.items()}
        assert unverified(dars["a"].ensure(secret_attempt=1)) == "OnBehalfOfUnverified"
    with in_process(made, verified_only=True) as strict, Watcher(made, strict):
        held = dars["a"].again(strict)
        answer = held.ensure(secret_attempt=credentials["a"].attempt)
        assert (answer.next_step, answer.access_request.approval_state) == (NONE, PENDING)
        assert made.can_log_in(credentials["a"])
        gone(made, credentials["a"])
        assert held.ensure(secret_attempt=credentials["a"].attempt, claim=True).next_step == REMOVE
        assert made.can_log_in(credentials["b"])  # renewed meanwhile
    with in_process(made) as lax, Watcher(made, lax):
        back = dars["a"].again(lax)
        second = back.claimed(back.ensure(claim=True))
        assert made.can_log_in(second)
        for dar in dars.values():
            dar.again(lax).end()
        gone(made, second)


def test_it_is_an_option_of_the_process(made: World) -> None:
    process = start(made, "require-verified-requester")
    try:
        put_role(made, process.callee)
        assert not asked(process.callee, CLAIMED).ensure().access_request.digest
        assert Dar(process.callee).ensure().access_request.digest
    finally:
        process.close()
