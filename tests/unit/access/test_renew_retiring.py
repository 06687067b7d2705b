"""A retiring credential lives until its overlap ends, and not longer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.access.domain.models import Approval, Attempt, AttemptState
from services.access.domain.settings import Settings
from services.access.leases.acknowledge import acknowledge
from services.access.ledger import requests
from services.access.ledger.db import schema
from services.access.requests import reassess
from services.common.errors import (
    VaultFailedError,
)
from tests.unit.access.access_builders import a_request
from tests.unit.access.access_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "ledger.db")
    yield made
    made.ledger.close()


def replaced(world: World, *, ttl_s: float) -> tuple[Attempt, float]:
    """An active attempt in whose place another was acknowledged; when that was."""
    short: dict[str, Any] = {"lease_ttl_s": ttl_s, "default_ttl_s": ttl_s, "max_ttl_s": 3600.0}
    old = world.begin(AttemptState.ACTIVE, **short, ends_at=world.clock.now + ttl_s)
    world.begin(AttemptState.ISSUED, number=2, **short, ends_at=world.clock.now + ttl_s)
    acknowledge(world.ledger, "uid-1", owner=a_request().owner, number=2, settings=Settings(overlap_s=300.0))
    return old, world.clock.now


def test_a_retiring_credential_with_a_short_ttl_lives_for_the_overlap(world: World) -> None:
    """Kubelets refresh a Secret within 60 to 90 s: a lease of a minute has to be prolonged for that."""
    old, since = replaced(world, ttl_s=60.0)
    while (old := world.do(old)).state is AttemptState.RETIRING:
        assert old.ends_at is not None
        assert old.ends_at > world.clock.now
    assert world.clock.now == since + 300
    assert 5 <= len(world.vault.renewed) <= 12
    assert (old.state, old.end_reason) == (AttemptState.REVOKING, "another credential replaced it")


def test_a_retiring_credential_that_outlives_the_overlap_is_not_renewed(world: World) -> None:
    old, since = replaced(world, ttl_s=600.0)
    assert world.do(old).state is AttemptState.REVOKING
    assert (world.clock.now, world.vault.renewed) == (since + 300, [])


def test_a_retiring_credential_that_vault_cuts_short_ends_with_its_lease(world: World) -> None:
    old, since = replaced(world, ttl_s=60.0)
    world.vault.most_s = 20
    assert world.do(old).state is AttemptState.RETIRING
    assert world.do(old).state is AttemptState.REVOKING
    assert 50 <= world.clock.now - since <= 56
    assert len(world.vault.renewed) == 1


def test_a_retiring_credential_is_not_renewed_without_its_grant(world: World) -> None:
    old, since = replaced(world, ttl_s=60.0)
    with world.ledger.write() as tx:
        tx.execute(schema.db_roles.update().values(deleted=True))
    assert world.do(old).state is AttemptState.RETIRING
    assert world.do(old).state is AttemptState.REVOKING
    assert (world.clock.now, world.vault.renewed) == (since + 60, [])


def test_a_vault_that_is_away_during_the_overlap_is_asked_again(world: World) -> None:
    old, since = replaced(world, ttl_s=60.0)
    world.vault.error = VaultFailedError("away", path="x")
    for _ in range(3):
        old = world.do(old)
    assert (old.state, old.renewal_failures) == (AttemptState.RETIRING, 3)
    world.vault.error = None
    assert world.do(old).renewal_failures == 0
    with world.ledger.write() as tx:
        request = requests.find(tx, "uid-1")
        assert request
        reassess.end_access(tx, request, Approval.WITHDRAWN)  # the end of access does not wait for an overlap
    assert world.attempt(old).state is AttemptState.REVOKING
    assert world.clock.now < since + 60


def test_a_lease_that_was_replaced_meanwhile_replaces_nothing(world: World) -> None:
    """A renewal that was under way when another credential was acknowledged says nothing about that one."""
    old, _ = replaced(world, ttl_s=600.0)
    with world.ledger.read() as tx:
        request = requests.find(tx, "uid-1")
    assert request
    world.renewal.note_lost(old, request)
    with world.ledger.read() as tx:
        request = requests.find(tx, "uid-1")
    assert request
    assert not request.rotation_due
