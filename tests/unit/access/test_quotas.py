"""Each tenant has limits; what is beyond waits, and nothing is lost (attack M3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.access.domain.models import Approval, AttemptState
from services.access.domain.quotas import ISSUES_WITHIN_S, Quotas
from services.access.leases.acknowledge import acknowledge
from services.access.leases.ensure import Ensured
from services.access.ledger import attempts, catalog
from services.access.requests.requests import DesiredAccess
from services.common.errors import QuotaExceededError
from tests.unit.access.access_builders import a_decision
from tests.unit.access.ensure_world import OWNER, World

MOST = 3


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "ledger.db")
    with made.ledger.write() as tx:
        role = catalog.find_role(tx, "-", "c1", "demo", "psql-role")
        assert role
        catalog.put_role(tx, replace(role, allow_from=("other",)))
    yield made
    made.ledger.close()


def desired(world: World, number: int, *, namespace: str = "demo", digest: str = "") -> DesiredAccess:
    """An access request; approved for what has this digest, if one is given."""
    found = replace(world.desired, uid=f"{namespace}-{number}", name=f"cred-{number}", namespace=namespace)
    return replace(found, decisions=(a_decision(digest=digest),), status_digest=digest) if digest else found


def ensure(world: World, number: int, *, namespace: str = "demo", digest: str = "", secret_attempt: int = 0) -> Ensured:
    wanted = desired(world, number, namespace=namespace, digest=digest)
    return world.ensurer.ensure_request(wanted, owner=OWNER, secret_attempt=secret_attempt, claim=True)


def issue(world: World, number: int, *, namespace: str = "demo") -> Ensured:
    """An approved access request whose credential, if there is one, is acknowledged."""
    digest = ensure(world, number, namespace=namespace).view.digest
    done = ensure(world, number, namespace=namespace, digest=digest)
    if done.issued:
        uid, made = done.view.request.uid, done.issued.attempt.sequence
        acknowledge(world.ledger, uid, owner=OWNER, number=made, settings=world.settings)
    return done


def test_m3_open_access_requests_have_a_limit_and_wait_for_room(world: World) -> None:
    world.ledger.quotas = Quotas(open_requests=MOST)
    for number in range(MOST):
        ensure(world, number)
    with pytest.raises(
        QuotaExceededError, match=rf"Namespace demo has {MOST} access requests .* may have {MOST}: delete .*--max-req"
    ):
        ensure(world, MOST)
    ensure(world, 0)  # those that are there go on
    ensure(world, 0, namespace="other")
    world.requests.delete_request(desired(world, 0), owner=OWNER)
    ensure(world, MOST)


def test_m3_a_denial_and_a_deletion_are_taken_in_beyond_the_limit(world: World) -> None:
    world.ledger.quotas = Quotas(open_requests=1)
    ensure(world, 0)
    world.requests.delete_request(desired(world, 7), owner=OWNER)
    denied = replace(desired(world, 8), decisions=(a_decision(Approval.DENIED),))
    done = world.ensurer.ensure_request(denied, owner=OWNER, secret_attempt=0, claim=True)
    assert done.view.request.approval is Approval.DENIED


def test_m3_tokens_are_made_ahead_for_a_bounded_number(world: World) -> None:
    world.ledger.quotas = Quotas(prepared_tokens=MOST)
    for number in range(3 * MOST):
        ensure(world, number)
    ensure(world, 0, namespace="other")
    with world.ledger.read() as tx:
        tenants = {
            name: world.requests.show_request(f"{name}-0", owner=OWNER).request.tenant for name in ("demo", "other")
        }
        prepared = {
            name: attempts.count_of_tenant(tx, tenant, [AttemptState.PENDING], most=100)
            for name, tenant in tenants.items()
        }
    assert prepared == {"demo": MOST, "other": 1}


def test_c3_no_token_is_made_ahead_without_the_owners_consent(world: World) -> None:
    with_consent, without = (ensure(world, 0, namespace=namespace).view for namespace in ("other", "stranger"))
    with world.ledger.read() as tx:
        assert attempts.open_of(tx, with_consent.request.uid)
        assert attempts.open_of(tx, without.request.uid) == []


def test_m3_database_users_have_a_limit_and_the_approved_request_waits(world: World) -> None:
    world.ledger.quotas = Quotas(database_users=MOST)
    for number in range(MOST):
        assert issue(world, number).issued
    waiting = issue(world, MOST)
    assert waiting.issued is None
    assert isinstance(waiting.refused, QuotaExceededError)
    assert "--max-database-users-per-namespace" in waiting.refused.message
    assert waiting.view.request.approved  # the decision is stored
    assert issue(world, 0, namespace="other").issued
    rotated = ensure(world, 0, secret_attempt=0)  # its Secret is gone: who has access keeps it
    assert rotated.issued
    world.requests.delete_request(desired(world, 1), owner=OWNER)
    with world.ledger.write() as tx:
        for attempt in attempts.open_of(tx, "demo-1"):
            attempts.commit_revoked(tx, attempt)
        for attempt in attempts.open_of(tx, "demo-0")[:1]:
            attempts.revoke(tx, attempt, to=AttemptState.REVOKING, end_reason="replaced")
            attempts.commit_revoked(tx, attempts.get(tx, attempt.id))
    assert ensure(world, MOST).issued


def test_m3_a_secret_that_is_edited_all_the_time_has_a_pace(world: World) -> None:
    world.ledger.quotas = Quotas(issues_per_minute=MOST)
    digest = ensure(world, 0).view.digest
    issued = 0
    for _ in range(10):
        issued += ensure(world, 0, digest=digest).issued is not None
        world.clock.now += 1
    assert issued == MOST
    refused = ensure(world, 0).refused
    assert isinstance(refused, QuotaExceededError)
    assert 0 < (refused.retry_after_s or 0) <= ISSUES_WITHIN_S
    world.clock.now += refused.retry_after_s or 0
    assert ensure(world, 0).issued
