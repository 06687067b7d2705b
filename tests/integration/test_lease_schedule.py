"""Ten thousand leases of one moment are renewed apart: no second has twice the mean. A real ledger, a fake clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from services.access.domain import approval
from services.access.domain.models import Attempt, VaultTargetRow
from services.access.domain.renewal import next_due_at
from services.access.domain.settings import Settings
from services.access.leases.renew import LeaseRenewal
from services.access.ledger import attempts, catalog, due_work, requests
from services.access.ledger.db.database import Ledger, open_ledger
from services.access.vault.clients import VaultClients
from services.common.vault.response import Answer
from tests.clock import Clock
from tests.unit.access.access_builders import a_decision, a_request, a_role

LEASES, TTL_S, BORN = 10_000, 3600, 1_000_000.0
WINDOW_S = TTL_S // 10
MEAN = LEASES / WINDOW_S


class Prolonging:
    """A Vault that prolongs every lease as asked, and the second of each."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.renewed: list[float] = []

    @contextmanager
    def at(self, _target: VaultTargetRow) -> Iterator[Prolonging]:
        yield self

    def write(self, path: str, body: Mapping[str, Any]) -> Answer:
        assert path.startswith("sys/leases/renew/")
        self.renewed.append(self._clock.now - BORN)
        return Answer(
            data={}, lease_id=path.removeprefix("sys/leases/renew/"), lease_duration_s=body["increment"], renewable=True
        )


@pytest.fixture
def clock() -> Clock:
    return Clock(BORN)


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    found = open_ledger(tmp_path / "ledger.db", clock=clock)
    yield found
    found.close()


def born_together(ledger: Ledger) -> None:
    """So many credentials, issued and acknowledged in one moment."""
    place = VaultTargetRow(0, "-", "demo", "vault", "0" * 16, "https://v:1", "https://v:1", "", b"", False, "")
    lease: dict[str, Any] = {
        "ttl_s": TTL_S,
        "renewable": True,
        "issued_at": BORN,
        "ends_at": BORN + TTL_S,
        "max_ends_at": BORN + 86400,
    }
    with ledger.write() as tx:
        role = catalog.put_role(tx, a_role(target=catalog.put_target(tx, place).id))
        for number in range(LEASES):
            request = a_request(uid=f"uid-{number}", name=f"cred-{number}")
            request = replace(request, digest=approval.digest_of(request, role))
            requests.insert(tx, request)
            requests.decide(tx, request.uid, [a_decision(digest=request.digest)])
            begun = attempts.begin(tx, request=request, role=role, sequence=1, due_at=None)
            attempts.commit_issuing(tx, begun.id, accessor="a", replacing=True, token_ends_at=BORN + 90000)
            attempts.commit_lease(tx, begun.id, lease_id=f"m/creds/r/{number}", **lease)
            issued = attempts.get(tx, begun.id)
            attempts.activate(tx, issued, due_at=next_due_at(issued, request=request, overlap_s=Settings().overlap_s))


def renew_what_is_due(ledger: Ledger, renewal: LeaseRenewal, pool: ThreadPoolExecutor) -> None:
    """As the workers do, eight at once."""
    found: list[Attempt] = []
    with ledger.read() as tx:
        while job := due_work.next_job(tx, busy={each.id for each in found}, renews=True):
            found.append(attempts.get(tx, job.attempt))
    for _ in pool.map(renewal.renew_active, found):
        pass


def planned(ledger: Ledger) -> list[float]:
    """When the next look at each is due, in seconds from birth."""
    with ledger.read() as tx:
        found = [attempts.get(tx, attempt_id) for attempt_id in attempts.ids_with_database_user(tx)]
    return [each.due_at - BORN for each in found if each.due_at is not None]


def peak(times: list[float]) -> int:
    """Most in one second."""
    return max(Counter(int(at) for at in times).values())


def test_10000_leases_of_one_moment_are_renewed_evenly(ledger: Ledger, clock: Clock) -> None:
    vault = Prolonging(clock)
    renewal = LeaseRenewal(ledger, cast(VaultClients, vault), settings=Settings(), jitter=lambda: 0.0)
    born_together(ledger)
    assert peak(planned(ledger)) <= 2 * MEAN
    with ThreadPoolExecutor(8) as pool:
        for second in range(TTL_S // 2 - 2, TTL_S // 2 + WINDOW_S + 2):
            clock.now = BORN + second
            renew_what_is_due(ledger, renewal, pool)
    assert len(vault.renewed) == LEASES  # each once
    assert min(vault.renewed) >= TTL_S * 0.5
    assert max(vault.renewed) <= TTL_S * 0.6 + 1
    print(f"{LEASES} renewals in {WINDOW_S} s, {MEAN:.1f} a second, at most {peak(vault.renewed)} in one")
    assert peak(vault.renewed) <= 2 * MEAN
    assert peak(planned(ledger)) <= 2 * MEAN  # and so is the next round, which is spread wider
