"""EnsureAccessRequest that claims: what EnsureAccessRequest and ClaimCredential do, in one call and one commit less."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from leasegate.access.v1 import requester_service_pb2
from leasegate.access.v1 import watcher_service_pb2 as pb
from leasegate.types.v1 import types_pb2
from services.access.api.clusters import WatcherClusters
from services.access.api.watcher import WatcherServicer
from services.access.domain.decide import Claim, NextStep, Remove, Wait, WaitReason
from services.access.domain.models import Approval, AttemptState, IssuancePause
from services.access.leases.acknowledge import acknowledge
from services.access.leases.ensure import Ensured
from services.access.ledger import attempts, pauses, requests
from services.access.requests.quiesce import IssuancePauses
from services.common import errors, failpoints
from services.common.rpc import caller, status
from tests.fakes.vault_errors import answered
from tests.unit.access.ensure_world import OWNER, World

REQUESTER = requester_service_pb2.DESCRIPTOR.services_by_name["RequesterService"].full_name


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "ledger.db")
    yield made
    made.ledger.close()


# -- what it does


def test_a_decision_with_its_claim_takes_one_read_and_two_commits(world: World) -> None:
    world.pending()
    world.decide()
    done = world.ensure()
    assert done.issued
    assert (done.issued.attempt.sequence, done.issued.password, done.refused) == (1, "password-1", None)
    assert (type(done.next_step), done.view.request.approval) == (Claim, Approval.APPROVED)
    assert (len(world.commits), world.vault.calls) == (2, ["my-postgres-se/creds/k8s.-.demo.psql-role"])
    assert world.states() == [AttemptState.ISSUED]


def test_apart_it_takes_a_commit_more_and_comes_to_the_same(world: World) -> None:
    world.pending()
    world.decide()
    done = world.ensure(claim=False)
    assert (done.issued, done.refused, type(done.next_step)) == (None, None, Claim)
    issued = world.issuer.claim_credential("uid-1", owner=OWNER, secret_attempt=0)
    assert (issued.attempt.sequence, issued.password) == (1, "password-1")
    assert len(world.commits) == 3
    assert world.states() == [AttemptState.ISSUED]


def test_a_token_that_nobody_made_before_takes_a_commit_of_its_own(world: World) -> None:
    world.pending(prepared=False)
    world.decide()
    done = world.ensure()
    assert done.issued
    assert (len(world.commits), world.states()) == (3, [AttemptState.ISSUED])
    assert world.vault.calls == ["auth/token/create/leasegate", "my-postgres-se/creds/k8s.-.demo.psql-role"]


def test_a_secret_that_is_lost_gets_a_new_credential_without_news(world: World) -> None:
    world.pending()
    world.decide()
    world.ensure()
    acknowledge(world.ledger, "uid-1", owner=OWNER, number=1, settings=world.settings)
    done = world.ensure(secret_attempt=0)
    assert done.issued
    assert done.issued.attempt.sequence == 2
    assert world.states() == [AttemptState.ACTIVE, AttemptState.ISSUED]


def test_where_there_is_nothing_new_and_nothing_due_nothing_is_written(world: World) -> None:
    world.pending()
    world.ensure()
    world.decide()
    world.ensure()
    acknowledge(world.ledger, "uid-1", owner=OWNER, number=1, settings=world.settings)
    world.commits.clear()
    done = world.ensure(secret_attempt=1)
    assert (done.issued, done.refused, done.next_step) == (None, None, Wait(WaitReason.UP_TO_DATE))
    assert world.commits == []


def test_a_repeated_deletion_writes_nothing(world: World) -> None:
    world.pending()
    desired = world.desired
    first = world.requests.delete_request(desired, owner=OWNER)
    world.commits.clear()
    again = world.requests.delete_request(desired, owner=OWNER)
    assert world.commits == []
    assert (again.request.approval, again.open_count) == (first.request.approval, first.open_count)
    with pytest.raises(errors.CallerNotAllowedError):
        world.requests.delete_request(desired, owner="somebody else")


# -- where nothing is to be claimed


def _reason(step: NextStep) -> WaitReason | None:
    """Why there is nothing to do; None if access has ended."""
    if isinstance(step, Wait):
        return step.reason
    assert step == Remove()
    return None


def nobody_decided(world: World) -> None:
    world.clock.now += 1


def denied_at_once(world: World) -> None:
    world.decide()
    world.decide(Approval.DENIED)


def something_else_was_approved(world: World) -> None:
    world.decide(digest="0" * 64)


def paused_meanwhile(world: World) -> None:
    world.decide()
    with world.ledger.write() as tx:
        pauses.add(tx, IssuancePause(vault="https://v:1", vault_namespace="", mount="my-postgres-se", connection=""))


def another_ledger_is_known(world: World) -> None:
    world.decide()
    world.guard.observe_ledger_id("another-ledger", cluster_uid="c1")


def failed_a_moment_ago(world: World) -> None:
    world.decide()
    world.vault.error = errors.VaultSealedError("Vault is sealed", address="a")
    world.ensure()


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (nobody_decided, WaitReason.NOT_APPROVED),
        (denied_at_once, None),
        (something_else_was_approved, WaitReason.NOT_APPROVED),
        (paused_meanwhile, WaitReason.SECRET_ENGINE_PAUSED),
        (another_ledger_is_known, WaitReason.LEDGER_MISMATCH),
        (failed_a_moment_ago, WaitReason.BACKOFF),
    ],
)
def test_nothing_is_claimed_that_is_not_due(
    world: World, before: Callable[[World], None], expected: WaitReason | None
) -> None:
    world.pending()
    before(world)
    world.vault.calls.clear()
    done = world.ensure()
    assert (done.issued, done.refused, _reason(done.next_step)) == (None, None, expected)
    assert world.vault.calls == []


def test_nothing_is_claimed_beside_an_unknown_attempt(world: World) -> None:
    world.pending()
    world.decide()
    done = world.ensure(secret_attempt=7)
    assert (done.issued, done.refused, _reason(done.next_step)) == (None, None, WaitReason.ATTEMPT_UNKNOWN)
    assert [each.type for each in done.view.conditions()] == ["Available", "IssuancePaused"]


def test_somebody_elses_request_is_neither_ensured_nor_claimed(world: World) -> None:
    world.pending()
    world.decide()
    with pytest.raises(errors.CallerNotAllowedError):
        world.ensure(owner="spiffe://leasegate/another")
    assert (world.commits, world.vault.calls) == ([], [])


# -- where the claim fails


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (errors.VaultPolicyMissingError("403", path="x"), AttemptState.REVOKING_TOKEN),
        (answered(400, "unknown role: x"), AttemptState.REVOKING_TOKEN),
        (errors.VaultUnavailableError("it does not answer", address="a"), AttemptState.REVOKING),
        (errors.VaultFailedError("the database is away", path="x"), AttemptState.REVOKING),
    ],
)
def test_a_claim_that_vault_refuses_leaves_the_decision_and_counts_once(
    world: World, error: errors.LeasegateError, state: AttemptState
) -> None:
    world.pending()
    world.decide()
    world.vault.error = error
    done = world.ensure()
    assert (done.issued, done.refused, type(done.next_step)) == (None, error, Claim)
    assert done.view.request.approved
    assert (world.states(), world.tries()) == ([state], 1)
    after = world.ensure()
    assert (after.refused, after.view.request.approved) == (None, True)
    assert isinstance(after.next_step, Wait)
    assert after.next_step.reason is WaitReason.BACKOFF
    assert after.next_step.until == pytest.approx(world.clock.now + (error.retry_after_s or 0.0))
    assert [each.reason for each in after.view.conditions()][:1] == ["FailedToGetCredential"]
    world.clock.now += error.retry_after_s or 0
    world.vault.error = None
    assert world.ensure().issued
    assert world.tries() == 0


def test_a_denial_during_the_read_gives_the_credential_back(world: World) -> None:
    world.pending()
    world.decide()

    def deny() -> None:
        world.decide(Approval.DENIED)
        world.ensure(claim=False)

    world.vault.reading = deny
    done = world.ensure()
    assert isinstance(done.refused, errors.ConflictError)
    assert done.issued is None
    assert any("sys/leases/revoke" in call for call in world.vault.calls)
    assert (world.states(), world.tries()) == ([], 0)


def test_of_two_at_once_the_later_one_is_answered(world: World) -> None:
    """As with two claims: the first one's attempt was never answered, and is recovered."""
    world.pending()
    world.decide()
    later: list[Ensured] = []

    def again() -> None:
        world.vault.reading = lambda: None
        later.append(world.ensure())

    world.vault.reading = again
    first = world.ensure()
    assert isinstance(first.refused, errors.ConflictError)
    (second,) = later
    assert second.issued
    assert second.issued.attempt.sequence == 2
    assert world.states() == [AttemptState.ISSUED], "the first one was given back and closed"


def test_access_whose_time_is_over_is_not_claimed(world: World) -> None:
    """The time of access is over, which no worker has noted yet."""
    world.pending()
    with world.ledger.write() as tx:
        requests.update_silently(tx, "uid-1", ends_at=world.clock() + 5)
    world.decide()
    world.clock.now += 10
    world.vault.calls.clear()
    done = world.ensure()
    assert (done.issued, done.refused, _reason(done.next_step)) == (None, None, WaitReason.ACCESS_EXPIRED)
    assert world.vault.calls == []
    with pytest.raises(errors.AccessEndedError):
        world.issuer.claim_credential("uid-1", owner=OWNER, secret_attempt=0)
    with world.ledger.read() as tx:
        assert len(requests.decisions_of(tx, "uid-1")) == 1
    assert world.states() == [AttemptState.TOKEN_READY]


# -- where the process or its disk fails


class Died(BaseException):
    """The process ends here."""


def _raise(what: BaseException) -> Callable[[], object]:
    def die() -> object:
        raise what

    return die


@pytest.fixture
def points() -> Iterator[None]:
    yield
    failpoints.install(failpoints.Failpoints())


@pytest.mark.usefixtures("points")
def test_a_disk_that_is_full_has_nothing_claimed(world: World) -> None:
    world.pending()
    world.decide()
    failpoints.install(
        failpoints.Failpoints("ledger.commit", die=_raise(sqlite3.OperationalError("database or disk is full")))
    )
    with pytest.raises(errors.LedgerUnavailableError):
        world.ensure()
    assert (world.vault.calls, world.states()) == ([], [AttemptState.TOKEN_READY])


@pytest.mark.usefixtures("points")
@pytest.mark.parametrize(
    ("point", "state", "read"),
    [
        ("ensure.committed", AttemptState.ISSUING, 0),
        ("claim.issuing", AttemptState.ISSUING, 0),
        ("claim.read", AttemptState.ISSUING, 1),
        ("claim.lease", AttemptState.ISSUED, 1),
    ],
)
def test_what_is_in_vault_is_in_the_ledger_before(
    world: World, point: str, state: AttemptState, read: Literal[0, 1]
) -> None:
    """A process that dies anywhere leaves an attempt that leads to its database user; the next one issues."""
    world.pending()
    world.decide()
    failpoints.install(failpoints.Failpoints(point, die=_raise(Died())))
    with pytest.raises(Died):
        world.ensure()
    assert (world.attempt().state, world.attempt().accessor) == (state, "accessor-1")
    assert len(world.vault.calls) == read
    world.start()
    with world.ledger.write() as tx:
        attempts.schedule_interrupted(tx)
    done = world.ensure()
    assert done.issued
    assert done.issued.attempt.sequence == 2
    assert world.attempt(1).state is (AttemptState.REVOKING if state is AttemptState.ISSUING else AttemptState.REPLACED)


# -- the servicer


def _servicer(world: World) -> WatcherServicer:
    nothing: Any = None
    issuance_pauses = IssuancePauses(world.ledger)
    return WatcherServicer(
        world.requests,
        nothing,
        issuance_pauses,
        clusters=WatcherClusters({OWNER: "c1"}),
        ensurer=world.ensurer,
        feed=nothing,
        vaults=world.vaults,
        guard=world.guard,
    )


def _desired(world: World) -> pb.EnsureAccessRequestRequest:
    desired = pb.EnsureAccessRequestRequest(
        object=types_pb2.ObjectRef(
            cluster="-", cluster_uid="c1", namespace="demo", name="cred", uid="uid-1", generation=1
        ),
        db_role=types_pb2.ObjectRef(cluster="-", cluster_uid="c1", namespace="demo", name="psql-role"),
        requester="alice",
        status_digest=world.digest,
        claim=True,
    )
    desired.subjects.add(kind="ServiceAccount", name="demo-sa", namespace="demo")
    desired.decisions.add(
        kind="DECISION_KIND_APPROVED", approver="carol", proof="APPROVER_PROOF_ADMISSION", digest=world.digest
    )
    return desired


def _call(world: World, *, allowed: bool = True) -> pb.EnsureAccessRequestResponse:
    with caller.acting(OWNER, may=lambda service: allowed and service == REQUESTER):
        return _servicer(world).EnsureAccessRequest(_desired(world), Any)  # type: ignore[arg-type]


def test_the_answer_carries_the_credential(world: World) -> None:
    world.pending()
    answer = _call(world)
    assert answer.next_step == pb.NEXT_STEP_CLAIM
    assert (answer.credential.attempt, answer.credential.password) == (1, "password-1")
    assert answer.credential.lease.lease_id
    assert not answer.HasField("claim_error")


def test_the_answer_carries_why_there_is_none(world: World) -> None:
    world.pending()
    world.vault.error = errors.VaultSealedError("Vault is sealed", address="a")
    answer = _call(world)
    assert not answer.HasField("credential")
    assert answer.next_step == pb.NEXT_STEP_CLAIM
    found = status.from_any(answer.claim_error)
    assert (type(found), found.message) == (errors.VaultSealedError, "Vault is sealed")


def test_a_caller_who_may_not_claim_gets_the_next_step_alone(world: World) -> None:
    """The right to claim is the one of RequesterService, by whichever call."""
    world.pending()
    answer = _call(world, allowed=False)
    assert answer.next_step == pb.NEXT_STEP_CLAIM
    assert not answer.HasField("credential")
    assert not answer.HasField("claim_error")
    assert world.vault.calls == []


def test_neither_the_answer_nor_its_parts_show_a_password(world: World) -> None:
    world.pending()
    world.decide()
    done = world.ensure()
    assert done.issued
    assert "password-1" not in repr(done)
    assert "password-1" not in str(_call(world))
