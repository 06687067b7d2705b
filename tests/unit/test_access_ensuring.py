"""EnsureRequest that claims: it does what EnsureRequest and then ClaimCredential would do, in one call and with one commit less."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from leasegate.access.v1 import requester_service_pb2
from leasegate.access.v1 import watcher_service_pb2 as pb
from leasegate.types.v1 import types_pb2
from services.access import crash
from services.access.acknowledging import acknowledge
from services.access.ensuring import Ensured
from services.access.ledger import attempts, quiesced, requests
from services.access.quiesce import Quiescing
from services.access.records import Approval, Quiesced, State
from services.access.servicers.watcher import WatcherServicer
from services.access.view import Step
from services.common import errors
from services.common.rpc import caller, status
from tests.unit.ensuring_world import OWNER, World

REQUESTER = requester_service_pb2.DESCRIPTOR.services_by_name["RequesterService"].full_name


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "ledger.db")
    yield made
    made.ledger.close()


def step(done: Ensured, held: int = 0) -> Step:
    return done.view.next_step(held)[0]


# -- what it does


def test_from_a_decision_to_the_credential_it_takes_one_read_and_two_commits(world: World) -> None:
    world.pending()
    world.decide()
    done = world.ensure()
    assert done.issued
    assert (done.issued.attempt.number, done.issued.password, done.refused) == (1, "password-1", None)
    assert (step(done), done.view.request.approval) == (Step.CLAIM, Approval.APPROVED)
    assert (len(world.commits), world.vault.calls) == (2, ["my-postgres-se/creds/k8s.-.demo.psql-role"])
    assert world.states() == [State.ISSUED]
    assert not any(tx.changed for tx in world.commits), "nobody has to be told what is in the answer"


def test_apart_it_takes_a_commit_more_and_comes_to_the_same(world: World) -> None:
    world.pending()
    world.decide()
    done = world.ensure(claim=False)
    assert (done.issued, done.refused, step(done)) == (None, None, Step.CLAIM)
    issued = world.issuing.claim("uid-1", owner=OWNER, held=0)
    assert (issued.attempt.number, issued.password) == (1, "password-1")
    assert len(world.commits) == 3
    assert world.states() == [State.ISSUED]


def test_a_token_that_nobody_made_before_takes_a_commit_of_its_own(world: World) -> None:
    world.pending(prepared=False)
    world.decide()
    done = world.ensure()
    assert done.issued
    assert (len(world.commits), world.states()) == (3, [State.ISSUED])
    assert world.vault.calls == ["auth/token/create/leasegate", "my-postgres-se/creds/k8s.-.demo.psql-role"]


def test_a_secret_that_is_lost_gets_a_new_credential_without_news(world: World) -> None:
    world.pending()
    world.decide()
    world.ensure()
    acknowledge(world.ledger, "uid-1", owner=OWNER, number=1, settings=world.settings)
    done = world.ensure(held=0)
    assert done.issued
    assert done.issued.attempt.number == 2
    assert world.states() == [State.ACTIVE, State.ISSUED]


def test_where_there_is_nothing_new_and_nothing_due_nothing_is_written(world: World) -> None:
    world.pending()
    world.ensure()
    world.decide()
    world.ensure()
    acknowledge(world.ledger, "uid-1", owner=OWNER, number=1, settings=world.settings)
    world.commits.clear()
    done = world.ensure(held=1)
    assert (done.issued, done.refused, step(done, 1)) == (None, None, Step.NONE)
    assert world.commits == []


# -- where nothing is to be claimed


def nobody_decided(world: World) -> None:
    world.clock.now += 1


def denied_at_once(world: World) -> None:
    world.decide()
    world.decide(Approval.DENIED)


def something_else_was_approved(world: World) -> None:
    world.decide(digest="0" * 64)


def quiesced_meanwhile(world: World) -> None:
    world.decide()
    with world.ledger.write() as tx:
        quiesced.add(tx, Quiesced(server="https://v:1", vault_namespace="", mount="my-postgres-se", connection=""))


def another_ledger_is_known(world: World) -> None:
    world.decide()
    world.losses.said("another-ledger")


def failed_a_moment_ago(world: World) -> None:
    world.decide()
    world.vault.error = errors.VaultSealed("Vault is sealed", address="a")
    world.ensure()


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (nobody_decided, Step.NONE),
        (denied_at_once, Step.REMOVE),
        (something_else_was_approved, Step.NONE),
        (quiesced_meanwhile, Step.NONE),
        (another_ledger_is_known, Step.NONE),
        (failed_a_moment_ago, Step.NONE),
    ],
)
def test_nothing_is_claimed_that_is_not_due(world: World, before: Callable[[World], None], expected: Step) -> None:
    world.pending()
    before(world)
    world.vault.calls.clear()
    done = world.ensure()
    assert (done.issued, done.refused, step(done)) == (None, None, expected)
    assert world.vault.calls == []


def test_nothing_is_claimed_beside_an_attempt_that_the_ledger_does_not_know(world: World) -> None:
    world.pending()
    world.decide()
    done = world.ensure(held=7)
    assert (done.issued, done.refused, step(done, 7)) == (None, None, Step.NONE)
    assert [each.type for each in done.view.conditions()] == ["Available", "LedgerUnknown"]


def test_somebody_elses_request_is_neither_ensured_nor_claimed(world: World) -> None:
    world.pending()
    world.decide()
    with pytest.raises(errors.CallerNotAllowed):
        world.ensure(owner="spiffe://leasegate/another")
    assert (world.commits, world.vault.calls) == ([], [])


# -- where the claim fails


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (errors.VaultPolicyMissing("403", path="x"), State.END_TOKEN),
        (errors.VaultRefused("400: unknown role: x", path="x"), State.END_TOKEN),
        (errors.VaultUnavailable("it does not answer", address="a"), State.END),
        (errors.VaultFailed("the database is away", path="x"), State.END),
    ],
)
def test_a_claim_that_vault_refuses_leaves_the_decision_and_counts_once(world: World, error: errors.LeasegateError, state: State) -> None:
    world.pending()
    world.decide()
    world.vault.error = error
    done = world.ensure()
    assert (done.issued, done.refused, step(done)) == (None, error, Step.CLAIM)
    assert done.view.request.approved
    assert (world.states(), world.tries()) == ([state], 1)
    after = world.ensure()
    assert (after.view.next_step(0)[0], after.refused, after.view.request.approved) == (Step.NONE, None, True)
    assert after.view.next_step(0)[1] == pytest.approx(error.retry_after_s)
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
    assert isinstance(done.refused, errors.Superseded)
    assert done.issued is None
    assert any("sys/leases/revoke" in call for call in world.vault.calls)
    assert (world.states(), world.tries()) == ([], 0)


def test_of_two_at_once_the_later_one_is_answered(world: World) -> None:
    """As with two claims: the first one's attempt was never answered, and is undone."""
    world.pending()
    world.decide()
    later: list[Ensured] = []

    def again() -> None:
        world.vault.reading = lambda: None
        later.append(world.ensure())

    world.vault.reading = again
    first = world.ensure()
    assert isinstance(first.refused, errors.Superseded)
    (second,) = later
    assert second.issued
    assert second.issued.attempt.number == 2
    assert world.states() == [State.ISSUED], "the first one was given back and closed"


def test_a_claim_refused_at_its_beginning_undoes_no_decision(world: World) -> None:
    """The time of access is over, which no worker has noted yet."""
    world.pending()
    with world.ledger.write() as tx:
        requests.note(tx, "uid-1", ends_at=world.clock() + 5)
    world.decide()
    world.clock.now += 10
    world.vault.calls.clear()
    done = world.ensure()
    assert isinstance(done.refused, errors.AccessEnded)
    assert (done.issued, world.vault.calls) == (None, [])
    with world.ledger.read() as tx:
        assert len(requests.decisions_of(tx, "uid-1")) == 1
    assert world.states() == [State.TOKEN]


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
    crash.install(crash.CrashPoints())


@pytest.mark.usefixtures("points")
def test_a_disk_that_is_full_has_nothing_claimed(world: World) -> None:
    world.pending()
    world.decide()
    crash.install(crash.CrashPoints("ledger.commit", die=_raise(sqlite3.OperationalError("database or disk is full"))))
    with pytest.raises(errors.LedgerUnavailable):
        world.ensure()
    assert (world.vault.calls, world.states()) == ([], [State.TOKEN])


@pytest.mark.usefixtures("points")
@pytest.mark.parametrize(
    ("point", "state", "read"),
    [
        ("ensure.committed", State.READING, 0),
        ("claim.reading", State.READING, 0),
        ("claim.read", State.READING, 1),
        ("claim.lease", State.ISSUED, 1),
    ],
)
def test_what_is_in_vault_is_in_the_ledger_before(world: World, point: str, state: State, read: Literal[0, 1]) -> None:
    """A process that dies anywhere leaves an attempt by which its login is found; another one makes a new credential."""
    world.pending()
    world.decide()
    crash.install(crash.CrashPoints(point, die=_raise(Died())))
    with pytest.raises(Died):
        world.ensure()
    assert (world.attempt().state, world.attempt().accessor) == (state, "accessor-1")
    assert len(world.vault.calls) == read
    world.start()
    with world.ledger.write() as tx:
        attempts.abandon_readers(tx)
    done = world.ensure()
    assert done.issued
    assert done.issued.attempt.number == 2
    assert world.attempt(1).state is (State.END if state is State.READING else State.SUPERSEDED)


# -- the servicer


def _servicer(world: World) -> WatcherServicer:
    nothing: Any = None
    quiescing = Quiescing(world.ledger)
    return WatcherServicer(
        world.requests, nothing, quiescing, ensuring=world.ensuring, feed=nothing, vaults=world.vaults, losses=world.losses
    )


def _wish(world: World) -> pb.EnsureRequestRequest:
    wish = pb.EnsureRequestRequest(
        object=types_pb2.ObjectRef(cluster="-", cluster_uid="c1", namespace="demo", name="cred", uid="uid-1", generation=1),
        role=types_pb2.ObjectRef(cluster="-", cluster_uid="c1", namespace="demo", name="psql-role"),
        requester="alice",
        status_digest=world.digest,
        claim=True,
    )
    wish.subjects.add(kind="ServiceAccount", name="demo-sa", namespace="demo")
    wish.decisions.add(kind="DECISION_KIND_APPROVED", approver="carol", proof="APPROVER_PROOF_ADMISSION", digest=world.digest)
    return wish


def _call(world: World, *, allowed: bool = True) -> pb.EnsureRequestResponse:
    with caller.acting(OWNER, may=lambda service: allowed and service == REQUESTER):
        return _servicer(world).EnsureRequest(_wish(world), Any)  # type: ignore[arg-type]


def test_the_answer_carries_the_credential(world: World) -> None:
    world.pending()
    answer = _call(world)
    assert answer.next_step == pb.NEXT_STEP_CLAIM
    assert (answer.credential.attempt, answer.credential.password) == (1, "password-1")
    assert answer.credential.lease.lease_id
    assert not answer.HasField("claim_error")


def test_the_answer_carries_why_there_is_none(world: World) -> None:
    world.pending()
    world.vault.error = errors.VaultSealed("Vault is sealed", address="a")
    answer = _call(world)
    assert not answer.HasField("credential")
    assert answer.next_step == pb.NEXT_STEP_CLAIM
    found = status.from_any(answer.claim_error)
    assert (type(found), found.message) == (errors.VaultSealed, "Vault is sealed")


def test_who_may_not_claim_is_answered_as_if_nothing_was_to_be_claimed_here(world: World) -> None:
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
