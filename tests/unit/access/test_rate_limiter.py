"""The renew rate: it holds on average and within a second, and never holds back what would soon be too late."""

from __future__ import annotations

import pytest

from services.access.domain.models import Priority, VaultTargetRow
from services.access.ledger import attempts, catalog, due_work, requests
from services.access.ledger.db import schema
from services.access.ledger.db.database import Ledger
from services.access.worker.pacing import RateLimiter
from tests.clock import Clock
from tests.unit.access.access_builders import a_request, a_role


def begun(pace: RateLimiter, clock: Clock, *, for_s: float, step_s: float = 0.001) -> int:
    """How many begin if somebody waits for each."""
    end, count = clock.now + for_s, 0
    while clock.now < end:
        while not pace.wait_s():
            pace.count_begun()
            count += 1
        clock.now += step_s
    return count


def test_a_rate_holds_and_a_missed_share_is_not_made_up_for() -> None:
    clock = Clock()
    pace = RateLimiter(50, clock=clock)
    assert begun(pace, clock, for_s=1) <= 50 + 6
    assert begun(pace, clock, for_s=10) == pytest.approx(500, abs=6)
    clock.now += 3600
    assert begun(pace, clock, for_s=1) <= 50 + 6


def test_a_worker_that_wakes_up_late_catches_up() -> None:
    clock = Clock()
    assert begun(RateLimiter(200, clock=clock), clock, for_s=5, step_s=0.05) == pytest.approx(1000, rel=0.05)


def test_a_wait_is_never_so_short_that_waiting_is_work() -> None:
    clock = Clock()
    pace = RateLimiter(1000, clock=clock)
    while not pace.wait_s():
        pace.count_begun()
    assert pace.wait_s() == 0.02


def test_without_a_rate_nothing_waits() -> None:
    pace = RateLimiter(0.0)
    pace.count_begun()
    assert pace.wait_s() == 0


@pytest.mark.parametrize(
    ("left_s", "taken"), [(3600 * 0.3, False), (3600 * 0.1, False), (3600 * 0.04, True), (-1.0, True)]
)
def test_what_would_soon_be_too_late_does_not_wait_for_the_rate(
    ledger: Ledger, clock: Clock, left_s: float, taken: bool
) -> None:
    place = VaultTargetRow(0, "-", "demo", "vault", "0" * 16, "https://v:1", "https://v:1", "", b"", False, "")
    with ledger.write() as tx:
        role = catalog.put_role(tx, a_role(target=catalog.put_target(tx, place).id))
        requests.insert(tx, a_request())
        made = attempts.begin(tx, request=a_request(), role=role, sequence=1, due_at=None)
        due = {
            "priority": Priority.RENEW,
            "due_at": clock.now - 1,
            "ends_at": clock.now + left_s,
            "lease_ttl_s": 3600.0,
        }
        tx.execute(schema.attempts.update().where(schema.attempts.c.id == made.id).values(**due))
        assert due_work.next_job(tx, busy=(), renews=True) == due_work.Job(made.id, "", renewal=True)
        assert (due_work.next_job(tx, busy=(), renews=True, throttled=True) is not None) is taken
