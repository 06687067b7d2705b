"""The order of renewals: by the end of their leases, so that none expires behind others that have more time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.access.domain.models import AttemptState, Priority, VaultTargetRow
from services.access.ledger import attempts, catalog, due_work, requests
from services.access.ledger.db import schema
from services.access.ledger.db.database import Ledger, Tx
from services.access.ledger.due_work import RenewalQueue
from tests.unit.access.access_builders import a_request, a_role
from tests.unit.access.access_world import ledger_at

NOW = 100_000.0
HERE, THERE = ("https://one:1", ""), ("https://two:1", "")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = ledger_at(tmp_path / "ledger.db", clock=lambda: NOW)
    yield opened
    opened.close()


def due(tx: Tx, number: int, *, since_s: float, left_s: float, ttl_s: float, server: str = HERE[0]) -> str:
    """A lease whose renewal has been due for so long, and which ends so soon."""
    row = VaultTargetRow(0, "-", "demo", "vault", server, server, server, "", b"", False, "")
    role = catalog.put_role(tx, a_role(target=catalog.put_target(tx, row).id))
    request = a_request(uid=f"uid-{number}", name=f"cred-{number}")
    requests.insert(tx, request)
    made = attempts.begin(tx, request=request, role=role, sequence=1, due_at=None)
    lease = {"due_at": NOW - since_s, "ends_at": NOW + left_s, "lease_ttl_s": ttl_s}
    tx.execute(
        schema.attempts.update()
        .where(schema.attempts.c.id == made.id)
        .values(state=AttemptState.ACTIVE, priority=Priority.RENEW, **lease)
    )
    return made.id


def order(ledger: Ledger, *, throttled: bool = False, renewals: RenewalQueue | None = None) -> list[str]:
    """What workers take, one after the other."""
    taken: list[str] = []
    with ledger.read() as tx:
        while job := due_work.next_job(tx, busy=taken, renews=True, throttled=throttled, renewals=renewals):
            taken.append(job.attempt)
    return taken


def test_a_short_lease_goes_before_long_ones_that_were_due_earlier(ledger: Ledger) -> None:
    """As after an outage: thousands with hours left, one with seconds."""
    with ledger.write() as tx:
        long = [due(tx, number, since_s=60.0, left_s=36_000.0 + number, ttl_s=86_400.0) for number in range(20)]
        short = due(tx, 99, since_s=1.0, left_s=20.0, ttl_s=60.0)
    assert order(ledger, renewals=RenewalQueue()) == [short, *long]


def test_what_would_soon_be_too_late_does_not_wait_for_the_renew_rate(ledger: Ledger) -> None:
    with ledger.write() as tx:
        for number in range(20):
            due(tx, number, since_s=60.0, left_s=36_000.0, ttl_s=86_400.0)
        soon = due(tx, 99, since_s=1.0, left_s=2.0, ttl_s=60.0)
    assert order(ledger, throttled=True, renewals=RenewalQueue()) == [soon]


def test_each_is_taken_once_though_the_queue_is_read_once(ledger: Ledger) -> None:
    with ledger.write() as tx:
        first, second = (due(tx, number, since_s=9.0, left_s=100.0 + number, ttl_s=600.0) for number in range(2))
    renewals = RenewalQueue()
    with ledger.read() as tx:  # who took one is done with it before the next is taken
        assert [
            job.attempt for _ in range(2) if (job := due_work.next_job(tx, busy=(), renews=True, renewals=renewals))
        ] == [
            first,
            second,
        ]


def test_a_vault_that_does_not_answer_holds_up_no_other(ledger: Ledger) -> None:
    with ledger.write() as tx:
        due(tx, 1, since_s=9.0, left_s=100.0, ttl_s=600.0)
        there = due(tx, 2, since_s=9.0, left_s=500.0, ttl_s=600.0, server=THERE[0])
    renewals = RenewalQueue()
    with ledger.read() as tx:
        assert renewals.first(tx, busy=(), without=()) is not None
        job = due_work.next_job(tx, busy=(), renews=True, renewals=renewals, without=[HERE])
    assert job == due_work.Job(there, "", renewal=True)


def test_more_renewals_than_the_queue_has_are_taken_in_order(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due_work, "_QUEUE_SIZE", 3)
    with ledger.write() as tx:
        made = [due(tx, number, since_s=9.0, left_s=1000.0 + number, ttl_s=1200.0) for number in range(10)]
    assert order(ledger, renewals=RenewalQueue()) == made
