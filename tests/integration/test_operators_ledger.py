"""A lost or old ledger: what is paused, which condition says so, and how an operator accepts the loss."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from leasegate.access.v1 import lease_pb2, ledger_pb2
from leasegate.access.v1 import operator_service_pb2 as pb
from leasegate.access.v1 import operator_service_pb2_grpc as grpc_pb
from leasegate.access.v1 import watcher_service_pb2 as watcher
from services.common import errors
from tests.eventually import eventually
from tests.integration.access_world import OPERATOR, WATCHER, Callee, Dar, World, in_process, put_role, world
from tests.servers import Servers

NONE, CLAIM = watcher.NEXT_STEP_NONE, watcher.NEXT_STEP_CLAIM


@pytest.fixture
def made(servers: Servers, tmp_path: Path) -> Iterator[World]:
    with world(servers, tmp_path) as found:
        yield found


def operator(callee: Callee) -> grpc_pb.OperatorServiceStub:
    return callee.as_(OPERATOR).operator


def poll(callee: Callee, *, known: str) -> watcher.WatchChangesResponse:
    """Poll the feed as a watcher that knows this ledger."""
    return callee.as_(WATCHER).watcher.WatchChanges(watcher.WatchChangesRequest(known_ledger_id=known))


def ledger_of(callee: Callee) -> ledger_pb2.Ledger:
    return operator(callee).GetLedger(pb.GetLedgerRequest()).ledger


def accept(callee: Callee) -> ledger_pb2.Ledger:
    message = pb.AcceptLedgerLossRequest(ledger_id=ledger_of(callee).id, reason="the disk burnt")
    return operator(callee).AcceptLedgerLoss(message).ledger


def paused_for(dar: Dar, *, secret_attempt: int) -> dict[str, str]:
    """Reason and message of the condition IssuancePaused; empty if nothing is paused."""
    answer = dar.ensure(secret_attempt=secret_attempt)
    found = {c.type: c for c in answer.access_request.conditions}.get("IssuancePaused")
    return {"reason": found.reason, "message": found.message} if found else {}


def wait_dropped(made: World, *credentials: lease_pb2.Credential) -> None:
    eventually(
        lambda: not {each.username for each in credentials} & made.database_users(), timeout_s=30, what="dropped users"
    )


def lose(made: World) -> None:
    """Delete the ledger's files."""
    for file in made.folder.glob("ledger.db*"):
        file.unlink()


def test_a_first_start_and_the_known_ledger_pause_nothing(made: World) -> None:
    with in_process(made) as callee:
        first = poll(callee, known="")
        assert not first.issuance_paused
        assert not poll(callee, known=first.ledger_id).issuance_paused
        assert not ledger_of(callee).issuance_paused


def test_a_lost_ledger_issues_nothing_until_the_loss_is_accepted(made: World) -> None:
    with in_process(made) as callee:
        put_role(made, callee)
        known = poll(callee, known="").ledger_id
        dar = Dar(callee)
        credential = dar.issue()
    lose(made)
    with in_process(made) as callee:
        put_role(made, callee)
        assert poll(callee, known=known).issuance_paused
        again, other = dar.again(callee), Dar(callee)
        step = again.ensure(secret_attempt=credential.attempt)
        assert step.next_step == NONE  # neither replaced nor removed: what the Secret holds works on
        assert paused_for(again, secret_attempt=credential.attempt)["reason"] == "LedgerMismatch"
        assert "accept-loss" in paused_for(again, secret_attempt=credential.attempt)["message"]
        other.ensure()
        assert other.decide().next_step == NONE
        with pytest.raises(errors.LedgerMismatchError, match="accept-loss"):
            other.claim()
        assert made.can_log_in(credential)
    with in_process(made) as callee:  # it outlives a restart, whoever comes first
        other = other.again(callee)
        with pytest.raises(errors.LedgerMismatchError):
            other.claim()
        poll(callee, known=known)
        again = dar.again(callee)
        assert paused_for(again, secret_attempt=credential.attempt)
        assert ledger_of(callee).known_id == known
        assert not accept(callee).issuance_paused
        assert not poll(callee, known=known).issuance_paused
        assert again.ensure(secret_attempt=credential.attempt).next_step == CLAIM
        new = again.claim(secret_attempt=credential.attempt)
        assert new.attempt == credential.attempt + 1
        again.acknowledge(new.attempt)
        orphans = (
            operator(callee).FindOrphans(pb.FindOrphansRequest(database_users=sorted(made.database_users()))).orphans
        )
        assert [orphan.username for orphan in orphans] == [credential.username]  # the one that nobody remembers
        again.end()
        other.ensure()
        other.end()
        wait_dropped(made, new)
    with in_process(made) as callee:  # and so does the acceptance
        assert not poll(callee, known=known).issuance_paused


def test_the_loss_of_one_ledger_is_not_that_of_another(made: World) -> None:
    with in_process(made) as callee:
        poll(callee, known="a" * 32)
        accept(callee)
        assert not poll(callee, known="a" * 32).issuance_paused
        assert poll(callee, known="b" * 32).issuance_paused
        assert ledger_of(callee).issuance_paused


def test_an_old_copy_of_the_ledger_pauses_only_what_it_does_not_know(made: World) -> None:
    copy = made.folder / "copy.db"
    with in_process(made) as callee:
        put_role(made, callee)
        known = poll(callee, known="").ledger_id
        before = Dar(callee)
        old = before.issue()
    shutil.copy(made.ledger, copy)
    with in_process(made) as callee:
        put_role(made, callee)
        after = Dar(callee)
        new = after.issue()
    lose(made)
    shutil.copy(copy, made.ledger)
    with in_process(made) as callee:
        put_role(made, callee)
        assert not poll(callee, known=known).issuance_paused  # the id is the known one
        before, after = before.again(callee), after.again(callee)
        assert before.ensure(secret_attempt=old.attempt).access_request.lease.handle
        assert not paused_for(before, secret_attempt=old.attempt)
        assert paused_for(after, secret_attempt=new.attempt)["reason"] == "AttemptUnknown"
        assert after.ensure(secret_attempt=new.attempt).next_step == NONE
        with pytest.raises(errors.LedgerMismatchError, match="does not know attempt"):
            after.claim(secret_attempt=new.attempt)
        assert made.can_log_in(new)
        assert ledger_of(callee).paused_access_requests == 1
        assert not accept(callee).paused_access_requests
        assert after.ensure(secret_attempt=new.attempt).next_step == CLAIM
        assert after.claim(secret_attempt=new.attempt).attempt == new.attempt + 1
        for dar in (before, after):
            dar.end()
        wait_dropped(made, old)


@pytest.mark.parametrize("forged", [41, 10**6, 10**9 - 1])
def test_a_secret_with_a_raised_number_is_replaced_once_it_is_deleted(made: World, forged: int) -> None:
    """L: a forged Secret that names an attempt far ahead pauses its own access request alone."""
    with in_process(made) as callee:
        put_role(made, callee)
        dar, other = Dar(callee), Dar(callee)
        credential = dar.issue()
        assert paused_for(dar, secret_attempt=forged)["reason"] == "AttemptUnknown"
        assert "delete the Secret" in paused_for(dar, secret_attempt=forged)["message"]
        assert made.can_log_in(credential)
        assert made.can_log_in(other.issue())
        other.end()
        assert dar.ensure(secret_attempt=0).next_step == CLAIM
        assert not ledger_of(callee).paused_access_requests
        second = dar.claim()
        assert second.attempt == 2
        dar.acknowledge(second.attempt)
        dar.end()
        wait_dropped(made, credential, second)


def test_only_the_ledger_in_use_is_accepted_and_only_operators_accept(made: World) -> None:
    with in_process(made) as callee:
        with pytest.raises(errors.SpecInvalidError, match="not the ledger in use"):
            operator(callee).AcceptLedgerLoss(pb.AcceptLedgerLossRequest(ledger_id="another", reason="x"))
        with pytest.raises(errors.CallerNotAllowedError):
            callee.as_(WATCHER).operator.AcceptLedgerLoss(pb.AcceptLedgerLossRequest(ledger_id=ledger_of(callee).id))
