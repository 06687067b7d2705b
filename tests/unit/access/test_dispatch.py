"""What workers do with attempts: recoveries that fail for hours, pauses between tries, and why an attempt ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.access.domain import durations, names
from services.access.domain.attempt_states import ENDING
from services.access.domain.models import Approval, Attempt, AttemptState, DropBy, Origin
from services.access.leases.admin import LeaseAdmin
from services.access.ledger import attempts, recoveries, requests
from services.access.ledger.db.database import Tx
from services.access.requests import reassess
from services.access.vault.circuit_breaker import FAILURES, CircuitBreakers, Key
from services.access.worker.dispatch import LOCKOUT_AFTER_S
from services.access.worker.metrics import AccessMetrics
from services.access.worker.startup import recover
from services.common.errors import (
    LeasegateError,
    LeaseNotFoundError,
    LedgerUnavailableError,
    VaultAuthMissingError,
    VaultFailedError,
    VaultRefusedError,
    VaultUnavailableError,
)
from services.common.rpc import deadline
from services.common.vault import error_texts
from services.common.vault.response import Answer
from tests.fakes.vault_errors import answered
from tests.unit.access.access_builders import a_decision
from tests.unit.access.access_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "ledger.db")
    yield made
    made.ledger.close()


def cleanup_role_is_there(world: World, made: Attempt) -> None:
    with world.ledger.write() as tx:
        recoveries.report(tx, recoveries.require(tx, made, drop_by=DropBy.TEAM), error="")


def test_the_tries_of_a_recovery_do_not_add_up(world: World) -> None:
    """Each further try takes the same few calls, and the ledger keeps no trace of those that failed."""
    made = world.begin(AttemptState.RECOVERING)
    cleanup_role_is_there(world, made)
    for _ in range(30):
        made = world.do(made)
    assert (made.state, made.failures) == (AttemptState.RECOVERING, 30)
    world.vault.revoked.clear()
    made = world.do(made)
    assert world.vault.revoked == ["its-own", "its-own", "accessor-30"]
    with world.ledger.read() as tx:
        assert [each.accessor for each in recoveries.of_attempt(tx, made.id)] == ["accessor-31"]
    world.vault.database_is_there = True
    assert world.do(made).state is AttemptState.RECOVERING  # the first of two recoveries
    assert world.do(made).state is AttemptState.CLOSED
    assert world.vault.revoked[-2:] == ["accessor-32", "accessor-33"]


OWNING = answered(400, "failed to revoke entry: ERROR: objects depend on it (SQLSTATE 2BP01)")
MISTAKEN = answered(400, "failed to revoke entry: ERROR: syntax error (SQLSTATE 42601)")
READ_ONLY = answered(400, "failed to revoke entry: ERROR: read-only transaction (SQLSTATE 25006)")


def refused(world: World, error: LeasegateError, *, statements: tuple[str, ...] = ("DROP ROLE;",)) -> Attempt:
    """An attempt whose revocation PostgreSQL has just refused, with every cleanup role there."""
    made = world.begin(AttemptState.REVOKING, lease_id="m/creds/r/1", revocation_statements=list(statements))
    world.vault.error, world.vault.database_is_there = error, True
    made = world.do(made)
    for drop_by in DropBy:
        with world.ledger.write() as tx:
            recoveries.report(tx, recoveries.require(tx, made, drop_by=drop_by), error="")
    return made


def cleanup_leases(world: World, made: Attempt) -> list[str]:
    with world.ledger.read() as tx:
        return [each.lease_id for each in recoveries.of_attempt(tx, made.id) if each.lease_id]


def test_a_refused_drop_keeps_one_lease_of_its_lockout(world: World) -> None:
    """Each read would leave another lease that Vault cannot revoke."""
    made = refused(world, OWNING, statements=())
    assert (made.state, made.drop_by, made.locked_out_at) == (AttemptState.RECOVERING, DropBy.FORCE, None)
    world.vault.error, world.vault.refused = None, OWNING
    for _ in range(5):
        made = world.do(made)
        assert cleanup_leases(world, made) == ["m/creds/a/1"]
        assert made.locked_out_at is not None
    world.vault.refused = None
    assert world.do(made).state is AttemptState.RECOVERING  # the first of two recoveries
    assert world.do(made).state is AttemptState.CLOSED
    assert world.vault.made == 2


@pytest.mark.parametrize(
    ("error", "tried"),
    [
        (OWNING, [DropBy.TEAM, DropBy.FORCE, DropBy.FORCE]),
        (MISTAKEN, [DropBy.TEAM, DropBy.UNOWNED, DropBy.TEAM]),
    ],
    ids=["owning", "mistaken"],
)
def test_only_owned_objects_change_their_owner_by_force(
    world: World, error: LeasegateError, tried: list[DropBy]
) -> None:
    made = refused(world, error)
    found = [made.drop_by]
    world.vault.error, world.vault.refused = None, error
    for _ in range(2):
        made = world.do(made)
        found.append(made.drop_by)
    assert found == tried
    assert error_texts.sqlstate(error.vault_text) in made.error


def test_what_passes_by_itself_locks_nobody_out_at_once(world: World) -> None:
    made = world.begin(AttemptState.REVOKING, lease_id="m/creds/r/1", revocation_due_at=world.clock.now)
    world.vault.error, since = READ_ONLY, world.clock.now
    while (made := world.do(made)).state is AttemptState.REVOKING:
        assert world.clock.now < since + LOCKOUT_AFTER_S
    assert made.state is AttemptState.RECOVERING
    assert world.clock.now >= since + LOCKOUT_AFTER_S


def test_a_database_that_is_away_is_waited_for(world: World) -> None:
    made = world.begin(AttemptState.REVOKING, lease_id="m/creds/r/1", revocation_due_at=world.clock.now)
    world.vault.error = answered(400, "failed to connect: connection refused")
    for _ in range(20):
        made = world.do(made)
    assert made.state is AttemptState.REVOKING


def test_a_token_is_revoked_a_moment_after_its_lease(world: World) -> None:
    made, woken = world.begin(AttemptState.REVOKING, lease_id="m/creds/r/1"), list[bool]()
    world.ledger.listeners.append(lambda tx: woken.append(tx.work))
    made = world.do(made)
    assert (made.state, made.due_at, woken) == (
        AttemptState.REVOKING_TOKEN,
        world.clock.now + attempts.TOKEN_REVOKE_DELAY_S,
        [False],
    )
    assert world.do(made).state is AttemptState.CLOSED


def test_a_token_whose_revocation_a_seal_interrupted_counts_as_revoked(world: World) -> None:
    made = world.begin(AttemptState.REVOKING_TOKEN)
    world.vault.error = answered(400, "bad namespace")
    made = world.do(made)
    assert (made.state, made.failures) == (AttemptState.REVOKING_TOKEN, 1)
    world.vault.error = answered(400, "token not found")
    assert world.do(made).state is AttemptState.CLOSED


def test_a_failed_prepared_token_is_retried_more_slowly_than_a_revocation(world: World) -> None:
    made = world.begin(AttemptState.PENDING)
    world.vault.error = VaultFailedError("no token role", path="x")
    for _ in range(15):
        made = world.do(made)
    assert made.due_at == world.clock.now + durations.LONGEST_PAUSE_UNURGENT_S


def test_work_that_lacks_an_auth_is_due_at_once_when_it_arrives(world: World) -> None:
    ending, pending = world.begin(AttemptState.REVOKING_TOKEN), world.begin(AttemptState.PENDING, uid="uid-2")
    world.vault.error = VaultAuthMissingError("no auth yet", target="demo/vault")
    for _ in range(15):
        ending, pending = world.do(ending), world.do(pending)
    assert ending.due_at == pending.due_at == world.clock.now + durations.LONGEST_PAUSE_UNURGENT_S
    with world.ledger.write() as tx:
        attempts.retry_failed_now(tx, ending.target)
    world.vault.error = None
    assert world.attempt(pending).due_at == world.clock.now
    assert world.do(ending).state is AttemptState.CLOSED


def test_a_claim_that_failed_for_a_missing_auth_is_due_when_it_arrives(world: World) -> None:
    at = world.begin(AttemptState.PENDING).target
    world.begin(AttemptState.PENDING, uid="uid-2")
    with world.ledger.write() as tx:
        requests.update_silently(tx, "uid-1", error_reason=VaultAuthMissingError.reason, retry_at=tx.now + 30)
        requests.update_silently(tx, "uid-2", error_reason=VaultFailedError.reason, retry_at=tx.now + 30)
    for target, announced in ((at + 1, set[str]()), (at, {"uid-1"})):
        with world.ledger.write() as tx:
            requests.retry_failed_now(tx, target)
            assert tx.changed == announced
    with world.ledger.read() as tx:
        found = [requests.find(tx, uid) for uid in ("uid-1", "uid-2")]
    assert [request.retry_at for request in found if request] == [None, world.clock.now + 30]


@pytest.mark.parametrize(("refused", "longest_s"), [(True, 3600.0 / 20), (False, durations.LONGEST_PAUSE_S)])
def test_a_renewal_that_vault_refuses_leaves_the_renew_rate_to_others(
    world: World, refused: bool, longest_s: float
) -> None:
    made = world.begin(AttemptState.ACTIVE)
    made = world.do(made)  # its time is planned
    world.vault.error = VaultRefusedError("unknown role", path="x") if refused else VaultFailedError("away", path="x")
    pauses = []
    for _ in range(12):
        made = world.do(made)
        pauses.append((made.due_at or 0.0) - world.clock.now)
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert max(pauses) == longest_s
    assert made.state is AttemptState.ACTIVE


def test_a_renewal_takes_the_writers_turn_once(world: World) -> None:
    made = world.do(world.begin(AttemptState.ACTIVE))  # its time is planned
    written: list[Tx] = []
    world.ledger.listeners.append(written.append)
    renewed = world.do(made)
    assert renewed.renewed_at == world.clock.now
    assert len(written) == 1


def test_a_lease_that_an_operator_renews_in_vain_is_replaced(world: World) -> None:
    made = world.begin(AttemptState.ACTIVE)
    world.vault.error = answered(400, "lease not found")
    with pytest.raises(LeaseNotFoundError, match="gets a new credential"):
        LeaseAdmin(world.ledger, world.renewal).renew_lease(names.lease_handle(made.id))
    with world.ledger.read() as tx:
        request = requests.find(tx, "uid-1")
    assert request
    assert request.rotation_due


def test_a_holder_that_stops_renewing_loses_its_credential(world: World) -> None:
    made = world.begin(AttemptState.ACTIVE, origin=Origin.GRPC)
    made = world.do(made)
    assert made.state is AttemptState.ACTIVE
    made = world.do(made)
    assert made.due_at is not None
    assert made.due_at >= 4600
    while made.state is not AttemptState.CLOSED:
        made = world.do(made)
    assert made.end_reason == "its holder did not renew it"
    assert not made.error


@pytest.mark.parametrize(
    ("state", "outcome", "end_reason"),
    [
        (AttemptState.ACTIVE, Approval.EXPIRED, "the time of its access was over"),
        (AttemptState.ACTIVE, Approval.WITHDRAWN, "its access request was deleted or released"),
        (AttemptState.RETIRING, None, "another credential replaced it"),
        (AttemptState.ISSUED, None, "nobody acknowledged it in time"),
    ],
)
def test_the_ledger_says_why_an_attempt_ended(
    world: World, state: AttemptState, outcome: Approval | None, end_reason: str
) -> None:
    made = world.begin(state)
    with world.ledger.write() as tx:
        request = requests.find(tx, made.access_request_id)
        if outcome and request:
            reassess.end_access(tx, request, outcome)
    while made.state is not AttemptState.CLOSED:
        made = world.do(made)
    assert made.end_reason == end_reason


def test_the_ledger_says_that_it_was_denied(world: World) -> None:
    made = world.begin(AttemptState.ACTIVE)
    with world.ledger.write() as tx:
        request = requests.find(tx, made.access_request_id)
        assert request
        requests.decide(tx, request.uid, [a_decision(Approval.DENIED)])
        reassess.reassess(tx, request, None)
    assert world.attempt(made).end_reason == "its access request was denied"


def test_a_limit_that_is_set_later_holds_for_what_was_granted_before(world: World) -> None:
    for number, (since, ends_at) in enumerate(((100.0, None), (100.0, 9000.0), (100.0, 200.0), (None, None))):
        world.begin(AttemptState.PENDING, uid=f"uid-{number}")
        with world.ledger.write() as tx:
            requests.update_silently(tx, f"uid-{number}", first_issued_at=since, ends_at=ends_at)
    recover(world.ledger, max_access_s=None)
    recover(world.ledger, max_access_s=3600.0)
    with world.ledger.read() as tx:
        found = [requests.find(tx, f"uid-{number}") for number in range(4)]
        assert [request.ends_at for request in found if request] == [3700.0, 3700.0, 200.0, None]
        assert [request.due_at for request in found if request] == [3700.0, 3700.0, None, None]


def test_many_requests_of_a_role_are_looked_at_again(world: World) -> None:
    """SQLite takes 32,766 values in a statement."""
    made = world.begin(AttemptState.ACTIVE)
    with world.ledger.write() as tx:
        attempts.schedule(tx, made.id, due_at=tx.now + 1000)
        attempts.schedule_now(tx, [f"uid-{number}" for number in range(40_000)])
    assert world.attempt(made).due_at == world.clock.now


def test_a_callers_haste_opens_no_breaker() -> None:
    """Else a caller with a short deadline would open the circuit for everybody."""
    breakers = CircuitBreakers()

    def slow(*_: Any, **__: Any) -> Answer:
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass
        raise VaultUnavailableError("Vault did not answer in time", address="https://v:1")

    vault: Any = SimpleNamespace(read=slow, address="https://v:1")
    guarded = breakers.guard(vault, Key("https://v:1", ""), probe=lambda: True)
    for _ in range(FAILURES):
        with deadline.within(0.02), pytest.raises(VaultUnavailableError):
            guarded.read("x")
    assert not breakers.pausing()
    for _ in range(FAILURES):
        with deadline.within(5.0), pytest.raises(VaultUnavailableError):
            guarded.read("x")
    assert breakers.pausing()


def test_what_ends_all_says_why_for_each_state(world: World) -> None:
    for number, state in enumerate(ENDING):
        made = world.begin(state, uid=f"uid-{number}")
        with world.ledger.write() as tx:
            attempts.revoke_all(tx, made.access_request_id, ENDING, end_reason="a test ends it")
        assert (world.attempt(made).state, world.attempt(made).end_reason) == (ENDING[state], "a test ends it")


def test_two_namespaces_of_one_vault_are_one_open_circuit() -> None:
    breakers = CircuitBreakers()
    for namespace in ("", "team"):
        for _ in range(20):
            breakers.record_failure(Key("https://v:1", namespace), LedgerUnavailableError("no"))
    breakers.record_success(Key("https://v:2", ""))
    ledger: Any = SimpleNamespace(read=_unreadable, listeners=[])
    scanner: Any = SimpleNamespace(orphaned_leases=None)
    guard: Any = SimpleNamespace(known_id="", paused_access_requests=0)
    registry = CollectorRegistry()
    AccessMetrics(ledger, registry, orphan_scanner=scanner, breakers=breakers, guard=guard)
    assert "leasegate_vault_circuit_open 1.0" in generate_latest(registry).decode()


def _unreadable() -> Any:
    raise LedgerUnavailableError("no")
