"""EnsureAccessRequest that claims in the same call, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from leasegate.access.v1 import access_request_pb2, approval_pb2
from leasegate.access.v1 import watcher_service_pb2 as watcher
from services.common import errors
from tests.eventually import eventually
from tests.integration.access_world import (
    ALICE,
    ALLOWED,
    CREATE,
    Callee,
    Dar,
    Watcher,
    World,
    in_process,
    put_role,
    world,
)
from tests.servers import Servers


@pytest.fixture(scope="module")
def made(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(servers, tmp_path_factory.mktemp("at-once"), mount="team/at-once") as found:
        found.vault_config_file.write_text(
            found.vault_config_file.read_text().replace("5s", "1s")
        )  # a recovery waits for so long
        yield found


@pytest.fixture(scope="module")
def callee(made: World) -> Iterator[Callee]:
    with in_process(made, overlap_s=1) as found, Watcher(made, found):
        put_role(made, found)
        yield found


def ends(made: World, dar: Dar) -> None:
    dar.end()
    eventually(lambda: not dar.end().open_attempts, timeout_s=30)
    eventually(lambda: not made.database_users(), timeout_s=30)


def test_the_answer_to_a_decision_is_a_credential_that_works(made: World, callee: Callee) -> None:
    dar = Dar(callee)
    assert dar.ensure(claim=True).next_step == watcher.NEXT_STEP_NONE
    answer = dar.decide(claim=True)
    assert (answer.next_step, answer.access_request.approval_state) == (
        watcher.NEXT_STEP_CLAIM,
        approval_pb2.APPROVAL_STATE_APPROVED,
    )
    assert made.can_log_in(answer.credential)
    assert dar.acknowledge(1).access_state == access_request_pb2.ACCESS_STATE_ACTIVE
    again = dar.ensure(secret_attempt=1, claim=True)
    assert (again.next_step, again.HasField("credential")) == (watcher.NEXT_STEP_NONE, False)
    lost = dar.ensure(secret_attempt=0, claim=True)
    assert lost.credential.attempt == 2
    assert made.can_log_in(lost.credential)
    ends(made, dar)


def test_what_cannot_be_made_is_said_beside_where_the_request_stands(made: World, callee: Callee) -> None:
    made.write_role("k8s.-.demo.broken-role", create=["CREATE NONSENSE"])
    put_role(made, callee, name="broken-role")
    dar = Dar(callee, role="broken-role")
    dar.ensure()
    answer = dar.decide(claim=True)
    assert answer.access_request.approval_state == approval_pb2.APPROVAL_STATE_APPROVED
    with pytest.raises(errors.VaultFailedError, match="SQLSTATE 42601"):
        dar.claimed(answer)
    after = dar.ensure(claim=True)
    assert (after.next_step, after.access_request.conditions[0].reason) == (
        watcher.NEXT_STEP_NONE,
        "FailedToGetCredential",
    )
    assert (after.HasField("retry_after"), after.HasField("claim_error")) == (True, False)
    ends(made, dar)


def test_of_two_calls_at_once_one_credential_is_left(made: World, callee: Callee) -> None:
    """Two watchers, one of them a former leader: the later one gets the credential, the other's is revoked."""
    made.write_role("k8s.-.demo.slow-role", create=[*CREATE, "SELECT pg_sleep(1.5);"])
    put_role(made, callee, name="slow-role")
    dar = Dar(callee, role="slow-role")
    dar.ensure()
    dar.decided()
    twins = (dar.again(callee), dar.again(callee))
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda twin: twin.ensure(claim=True), twins))
    (one,) = [answer.credential for answer in answers if answer.HasField("credential")]
    (other,) = [answer for answer in answers if answer.HasField("claim_error")]
    with pytest.raises(errors.ConflictError):
        dar.claimed(other)
    dar.acknowledge(one.attempt)
    eventually(lambda: made.database_users() == {one.username}, timeout_s=30, what="one database user")
    assert made.can_log_in(one)
    ends(made, dar)


def test_the_right_to_claim_is_that_of_the_requesters_service(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may only tell of requests is answered as if it had not asked to claim, and refused where it does."""
    monkeypatch.setitem(ALLOWED, "leasegate.access.v1.RequesterService", {ALICE})
    with world(servers, tmp_path, mount="team/not-claiming") as made, in_process(made) as callee:
        put_role(made, callee)
        dar = Dar(callee)
        dar.ensure()
        answer = dar.decide(claim=True)
        assert (answer.next_step, answer.HasField("credential"), answer.HasField("claim_error")) == (
            watcher.NEXT_STEP_CLAIM,
            False,
            False,
        )
        with pytest.raises(errors.CallerNotAllowedError):
            dar.claimed(answer)
        assert not made.database_users()
