"""The workers' sleep: one keeps the time for all, work is taken when it becomes due, and none is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from services.access.domain.models import AttemptState, Priority, VaultTargetRow
from services.access.ledger import attempts, catalog, due_work, requests
from services.access.ledger.db import schema
from services.access.ledger.db.database import Ledger, Tx
from services.access.worker.dispatch import AttemptDispatcher
from services.access.worker.pool import WorkerPool
from tests.eventually import eventually
from tests.unit.access.access_builders import a_request, a_role
from tests.unit.access.access_world import ledger_at

WORKERS = 16
DEADLINE_S = 4.0  # of a test; less than the 5 s that a worker without work sleeps


class Dispatcher:
    """Closes each attempt, the blocked one only when the test says so."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._done = ledger, threading.Condition()
        self.processed: list[str] = []
        self.blocked, self.blocking, self.let_go = "", threading.Event(), threading.Event()
        self.all_blocked, self.at_work = set[str](), set[str]()

    def process_attempt(self, attempt_id: str) -> None:
        if attempt_id == self.blocked or attempt_id in self.all_blocked:
            self.at_work.add(attempt_id)
            self.blocking.set()
            self.let_go.wait(2 * DEADLINE_S)
        with self._ledger.write() as tx:
            attempts.close(tx, attempt_id, AttemptState.REVOKING_TOKEN)
        with self._done:
            self.processed.append(attempt_id)
            self._done.notify_all()

    def wait(self, *attempt_ids: str) -> None:
        with self._done:
            assert self._done.wait_for(lambda: {*attempt_ids} <= {*self.processed}, DEADLINE_S), self.processed


class Reads:
    """Counts the reads of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.count, self._read = 0, ledger.read

    @contextmanager
    def read(self) -> Iterator[Tx]:
        self.count += 1
        with self._read() as tx:
            yield tx


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = ledger_at(tmp_path / "ledger.db", clock=time.time)
    yield opened
    opened.close()


@pytest.fixture
def dispatcher(ledger: Ledger) -> Dispatcher:
    return Dispatcher(ledger)


@contextmanager
def running(ledger: Ledger, dispatcher: Dispatcher, *, workers: int = WORKERS) -> Iterator[None]:
    """Workers that run."""
    pool = WorkerPool(ledger, cast(AttemptDispatcher, dispatcher), workers=workers)
    pool.start()
    try:
        yield
    finally:
        dispatcher.let_go.set()
        pool.stop()


def due(
    ledger: Ledger, number: int, *, in_s: float, priority: Priority = Priority.REVOKE, namespace: str = "demo"
) -> str:
    """An attempt of a namespace with work of a priority in so many seconds."""
    row = VaultTargetRow(0, "-", "demo", "vault", "https://one:1", "", "", "", b"", False, "")
    with ledger.write() as tx:
        role = catalog.put_role(tx, a_role(target=catalog.put_target(tx, row).id))
        request = a_request(uid=f"uid-{number}", name=f"cred-{number}", namespace=namespace)
        requests.insert(tx, request)
        made = attempts.begin(tx, request=request, role=role, sequence=1, due_at=tx.now + in_s)
        values = {"state": AttemptState.REVOKING_TOKEN, "priority": priority}
        tx.execute(schema.attempts.update().where(schema.attempts.c.id == made.id).values(**values))
        return made.id


def test_work_that_becomes_due_wakes_one_worker(
    ledger: Ledger, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(ledger)
    monkeypatch.setattr(ledger, "read", reads.read)
    first, second = due(ledger, 1, in_s=0.5), due(ledger, 2, in_s=1.0)
    with running(ledger, dispatcher):
        dispatcher.wait(first, second)
    assert reads.count <= WORKERS + 2 * 7  # each reads once at its start; all would read at each due time


def test_work_that_is_written_while_all_sleep_is_taken_when_due(ledger: Ledger, dispatcher: Dispatcher) -> None:
    with running(ledger, dispatcher):
        late = due(ledger, 1, in_s=0.6)
        soon = due(ledger, 2, in_s=0.2)  # sooner than whoever keeps the time wakes
        dispatcher.wait(late, soon)
    assert dispatcher.processed == [soon, late]


def test_a_worker_that_takes_work_leaves_the_time_to_another(ledger: Ledger, dispatcher: Dispatcher) -> None:
    dispatcher.blocked, after = due(ledger, 1, in_s=0.2), due(ledger, 2, in_s=0.5)
    with running(ledger, dispatcher):
        dispatcher.wait(after)
        assert dispatcher.processed == [after]


@pytest.mark.parametrize("workers", [1, 2, 3, WORKERS])
def test_renewals_and_revocations_are_taken_when_due(ledger: Ledger, dispatcher: Dispatcher, workers: int) -> None:
    """However few renew: one worker renews, or one of two."""
    made = [
        due(ledger, number, in_s=0.1 * number, priority=Priority.RENEW if number % 2 else Priority.REVOKE)
        for number in range(1, 9)
    ]
    with running(ledger, dispatcher, workers=workers):
        dispatcher.wait(*made)


def test_a_worker_that_does_not_renew_keeps_no_time_for_renewals(ledger: Ledger, dispatcher: Dispatcher) -> None:
    renewal = due(ledger, 1, in_s=0.4, priority=Priority.RENEW)
    with running(ledger, dispatcher, workers=2):  # the first of the two does not renew
        dispatcher.wait(renewal)


def test_work_wakes_who_does_not_renew_while_all_others_are_busy(ledger: Ledger, dispatcher: Dispatcher) -> None:
    dispatcher.blocked = due(ledger, 1, in_s=0.1, priority=Priority.RENEW)
    with running(ledger, dispatcher, workers=2):
        assert dispatcher.blocking.wait(DEADLINE_S)
        revocation = due(ledger, 2, in_s=0.1)
        dispatcher.wait(revocation)
        assert dispatcher.processed == [revocation]


# Fairness between tenants (attack M3).


@pytest.mark.parametrize("priority", list(Priority))
def test_m3_calls_of_one_namespace_never_hold_all_workers(
    ledger: Ledger, dispatcher: Dispatcher, priority: Priority
) -> None:
    slow = {due(ledger, number, in_s=0, priority=priority, namespace="greedy") for number in range(20)}
    dispatcher.all_blocked = slow
    with running(ledger, dispatcher, workers=4):
        eventually(lambda: len(dispatcher.at_work) >= 3, timeout_s=DEADLINE_S)
        other = due(ledger, 100, in_s=0, priority=Priority.REVOKE, namespace="demo")
        dispatcher.wait(other)
        assert len(dispatcher.at_work) == 3


def test_m3_work_of_a_namespace_without_a_worker_goes_first(ledger: Ledger) -> None:
    greedy = [due(ledger, number, in_s=-100, namespace="greedy") for number in range(50)]
    other = due(ledger, 100, in_s=-1, namespace="demo")
    tenants = {a_request(namespace="greedy").tenant: 1}
    with ledger.read() as tx:
        job = due_work.next_job(tx, busy={greedy[0]}, renews=False, tenants=tenants, most_of_tenant=3)
        assert job == due_work.Job(other, "")
        alone = due_work.next_job(tx, busy={greedy[0], other}, renews=False, tenants=tenants, most_of_tenant=3)
        assert alone is not None
        assert alone.attempt in greedy
        full = dict.fromkeys(tenants, 3)
        assert due_work.next_job(tx, busy={other}, renews=False, tenants=full, most_of_tenant=3) is None
