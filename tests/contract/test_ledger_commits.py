"""Writers that queue share a commit: each is undone alone, none goes on before it is durable, all fail if it fails."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.access.ledger import meta
from services.access.ledger.db import shared_commit
from services.access.ledger.db.database import Ledger, open_ledger
from services.common.errors import LedgerUnavailableError
from tests.eventually import eventually

WRITERS = 12


class Counted:
    """Counts the commits of a ledger, and fails them while ``fails``."""

    def __init__(self, ledger: Ledger) -> None:
        self.commits, self.fails = 0, False
        sa.event.listen(ledger._engine, "commit", self._commit)

    def _commit(self, _connection: object) -> None:
        if self.fails:
            raise sa.exc.OperationalError("COMMIT", None, sqlite3.OperationalError("database or disk is full"))
        self.commits += 1


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(tmp_path / "ledger.db", clock=time.time)
    yield opened
    opened.close()


@pytest.fixture
def counted(ledger: Ledger) -> Counted:
    return Counted(ledger)


class Queueing:
    """Has writers queue behind one that holds the turn, so that all of them are there before the first is done."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._pool, self._go = ledger, ThreadPoolExecutor(WRITERS + 2), threading.Event()
        self._entered = threading.Event()

    def first(self, name: str) -> Future[None]:
        """The one that holds the turn until ``go``."""

        def write() -> None:
            with self._ledger.write() as tx:
                meta.put(tx, name, "1")
                self._entered.set()
                assert self._go.wait(30)

        done = self._pool.submit(write)
        assert self._entered.wait(30)
        return done

    def then(self, work: Callable[[int], None]) -> list[Future[None]]:
        """All others, once they queue."""
        done = [self._pool.submit(work, number) for number in range(WRITERS)]
        eventually(lambda: self._ledger._commits._queued == WRITERS, timeout_s=30)
        return done

    def go(self) -> None:
        self._go.set()

    def __enter__(self) -> Queueing:
        return self

    def __exit__(self, *_error: object) -> None:
        self._go.set()
        self._pool.shutdown()


def names(ledger: Ledger) -> set[str]:
    with ledger.read() as tx:
        return {f"w{name}" for name in meta.names(tx, "w")}


def put(ledger: Ledger, number: int) -> None:
    with ledger.write() as tx:
        meta.put(tx, f"w{number}", "1")
    assert f"w{number}" in names(ledger)  # durable, and seen by readers, when the writer goes on


def test_writers_that_queue_share_one_commit(ledger: Ledger, counted: Counted) -> None:
    with Queueing(ledger) as queue:
        work = [queue.first("w-first"), *queue.then(lambda number: put(ledger, number))]
        queue.go()
        for each in work:
            each.result(30)
    assert names(ledger) == {"w-first", *(f"w{number}" for number in range(WRITERS))}
    assert counted.commits == 1


def test_a_writer_alone_commits_at_once(ledger: Ledger, counted: Counted) -> None:
    for number in range(3):
        put(ledger, number)
    assert counted.commits == 3


def test_a_commit_has_a_limited_number_of_parts(
    ledger: Ledger, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_commit, "MOST_PARTS", 4)
    with Queueing(ledger) as queue:
        work = [queue.first("w-first"), *queue.then(lambda number: put(ledger, number))]
        queue.go()
        for each in work:
            each.result(30)
    assert counted.commits >= (1 + WRITERS) // 4


def test_one_that_fails_is_undone_alone(ledger: Ledger) -> None:
    def sometimes(number: int) -> None:
        with ledger.write() as tx:
            meta.put(tx, f"w{number}", "1")
            if number % 3 == 0:
                raise RuntimeError("changed its mind")

    with Queueing(ledger) as queue:
        first, others = queue.first("w-first"), queue.then(sometimes)
        queue.go()
        first.result(30)
        failed = [number for number, each in enumerate(others) if each.exception(30)]
    assert failed == [number for number in range(WRITERS) if number % 3 == 0]
    assert names(ledger) == {"w-first", *(f"w{number}" for number in range(WRITERS) if number % 3)}


def test_if_the_first_fails_the_others_go_on(ledger: Ledger) -> None:
    with Queueing(ledger) as queue:

        def first() -> None:
            with ledger.write() as tx:
                meta.put(tx, "w-first", "1")
                queue._entered.set()
                assert queue._go.wait(30)
                raise RuntimeError("changed its mind")

        broken = queue._pool.submit(first)
        assert queue._entered.wait(30)
        others = queue.then(lambda number: put(ledger, number))
        queue.go()
        assert isinstance(broken.exception(30), RuntimeError)
        for each in others:
            each.result(30)
    assert names(ledger) == {f"w{number}" for number in range(WRITERS)}


def test_a_commit_that_fails_fails_for_all_and_the_next_goes_on(ledger: Ledger, counted: Counted) -> None:
    counted.fails = True
    called: list[object] = []
    ledger.listeners.append(called.append)
    with Queueing(ledger) as queue:
        work = [queue.first("w-first"), *queue.then(lambda number: put(ledger, number))]
        queue.go()
        errors = [each.exception(30) for each in work]
    assert all(isinstance(err, LedgerUnavailableError) and "full" in str(err) for err in errors)
    assert names(ledger) == set()
    assert called == []
    counted.fails = False
    put(ledger, 1)
    assert names(ledger) == {"w1"}
    assert len(called) == 1


def test_on_a_full_disk_the_ledger_has_what_the_writers_were_told(ledger: Ledger) -> None:
    def large(number: int) -> None:
        with ledger.write() as tx:
            pages = tx.driver.execute("PRAGMA page_count").fetchone()[0]
            tx.driver.execute(f"PRAGMA max_page_count={pages + 3}")
            meta.put(tx, f"w{number}", "x" * (20_000 if number % 3 == 0 else 1))

    with Queueing(ledger) as queue:
        first, others = queue.first("w-first"), queue.then(large)
        queue.go()
        errors = {f"w{number}": each.exception(30) for number, each in enumerate(others)}
        errors["w-first"] = first.exception(30)
    assert all(isinstance(err, LedgerUnavailableError) and "full" in str(err) for err in errors.values() if err)
    assert any(errors.values())
    assert names(ledger) == {name for name, err in errors.items() if err is None}


def test_a_part_that_cannot_be_undone_alone_fails_for_all(ledger: Ledger) -> None:
    def broken(number: int) -> None:
        with ledger.write() as tx:
            meta.put(tx, f"w{number}", "1")
            if number == 0:
                tx.driver.execute("ROLLBACK")  # as SQLite does by itself after some errors
                raise RuntimeError("the disk is full")

    with Queueing(ledger) as queue:
        first, others = queue.first("w-first"), queue.then(broken)
        queue.go()
        errors = {f"w{number}": each.exception(30) for number, each in enumerate(others)}
        errors["w-first"] = first.exception(30)
    assert isinstance(errors["w0"], RuntimeError)
    assert isinstance(errors["w-first"], LedgerUnavailableError)
    assert names(ledger) == {name for name, err in errors.items() if err is None}
    put(ledger, 99)


def test_a_part_that_cannot_be_ended_is_not_committed(ledger: Ledger) -> None:
    def broken() -> None:
        with ledger.write() as tx:
            meta.put(tx, "w1", "1")
            tx.driver.execute("RELEASE part")  # so that the ledger's own fails

    with pytest.raises(LedgerUnavailableError, match="savepoint"):
        broken()
    assert names(ledger) == set()
    put(ledger, 2)


def test_no_writer_goes_on_before_its_commit(ledger: Ledger, counted: Counted) -> None:
    with ledger.write() as tx:
        meta.put(tx, "w1", "1")
        assert (counted.commits, names(ledger)) == (0, set())
    assert (counted.commits, names(ledger)) == (1, {"w1"})


def test_a_thread_that_outlives_the_service_opens_nothing(ledger: Ledger) -> None:
    with Queueing(ledger) as queue:
        first, others = queue.first("w-first"), queue.then(lambda number: put(ledger, number))
        closing = queue._pool.submit(ledger.close)
        queue.go()
        first.result(30)
        closing.result(30)
        assert all(
            each.exception(30) is None or isinstance(each.exception(30), LedgerUnavailableError) for each in others
        )
    with pytest.raises(LedgerUnavailableError, match="closed"):
        put(ledger, 1)
