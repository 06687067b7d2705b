"""The access service's metrics: outcomes are counted once they are committed, and every metric is declared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.access.domain.models import AttemptState, DropBy
from services.access.ledger import attempts
from services.access.ledger.db.database import Ledger
from services.access.vault.circuit_breaker import CircuitBreakers
from services.access.worker.metrics import AccessMetrics, access_metrics
from services.common.vault.call_metrics import server_metrics
from tests.clock import Clock
from tests.contract.test_ledger import in_state
from tests.unit.access.access_world import ledger_at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    opened = ledger_at(tmp_path / "ledger.db", clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def registry(ledger: Ledger) -> CollectorRegistry:
    made = CollectorRegistry()
    scanner: Any = SimpleNamespace(orphaned_leases=2, skipped_mounts=1, scanned_at=5.0)
    guard: Any = SimpleNamespace(known_id="another", paused_access_requests=0)
    AccessMetrics(ledger, made, orphan_scanner=scanner, breakers=CircuitBreakers(), guard=guard)
    return made


def test_every_metric_is_declared_and_every_declared_one_is_there(ledger: Ledger, registry: CollectorRegistry) -> None:
    with ledger.write() as tx:
        in_state(tx, AttemptState.ACTIVE)
    found = {family.name + "_total" * (family.type == "counter") for family in registry.collect()}
    assert found == {spec.name for spec in access_metrics()} - {spec.name for spec in server_metrics()}
    assert registry.get_sample_value("leasegate_orphaned_leases") == 2
    assert registry.get_sample_value("leasegate_issuance_paused", {"reason": "LedgerMismatch"}) == 1


def test_a_revocation_is_timed_from_when_it_was_due(ledger: Ledger, registry: CollectorRegistry, clock: Clock) -> None:
    with ledger.write() as tx:
        made = in_state(tx, AttemptState.ACTIVE)
        attempts.revoke(tx, made, to=AttemptState.REVOKING, end_reason="a test revokes it")
    clock.now += 20
    with ledger.write() as tx:  # the first try fails
        attempts.postpone(tx, attempts.get(tx, made.id), until=clock.now + 10)
    clock.now += 10
    with ledger.write() as tx:
        attempts.commit_revoked(tx, attempts.get(tx, made.id))
    assert registry.get_sample_value("leasegate_leases_revoked_total") == 1
    assert registry.get_sample_value("leasegate_lease_revocation_seconds_sum") == 30


def test_an_interrupted_issuance_that_is_recovered_counts_as_revoked(
    ledger: Ledger, registry: CollectorRegistry, clock: Clock
) -> None:
    with ledger.write() as tx:
        made = in_state(tx, AttemptState.ISSUING)
        attempts.begin_recovery(tx, made, drop_by=DropBy.TEAM)
    clock.now += 7
    with ledger.write() as tx:
        attempts.close(tx, made.id, AttemptState.RECOVERING)
    assert registry.get_sample_value("leasegate_leases_revoked_total") == 1
    assert registry.get_sample_value("leasegate_lease_revocation_seconds_sum") == 7


def issue(ledger: Ledger, *, fails: bool) -> None:
    with ledger.write() as tx:
        made, ends_at = in_state(tx, AttemptState.ISSUING), tx.now + 60
        times = {"ends_at": ends_at, "issued_at": tx.now, "ttl_s": 60.0}
        assert attempts.commit_lease(tx, made.id, lease_id="l", renewable=True, max_ends_at=None, **times)
        if fails:
            raise RuntimeError("half-way")


def test_what_is_rolled_back_is_not_counted(ledger: Ledger, registry: CollectorRegistry) -> None:
    with pytest.raises(RuntimeError):
        issue(ledger, fails=True)
    assert registry.get_sample_value("leasegate_leases_issued_total") == 0
    issue(ledger, fails=False)
    assert registry.get_sample_value("leasegate_leases_issued_total") == 1


def test_renewals_and_their_failures_are_counted(ledger: Ledger, registry: CollectorRegistry) -> None:
    with ledger.write() as tx:
        made = in_state(tx, AttemptState.ACTIVE)
        attempts.schedule(tx, made.id, due_at=tx.now + 1, renew_failed=True)
        attempts.commit_renewal(tx, attempts.get(tx, made.id))
    assert registry.get_sample_value("leasegate_lease_renewal_failures_total") == 1
    assert registry.get_sample_value("leasegate_leases_renewed_total") == 1
