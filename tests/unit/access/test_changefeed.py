"""The change feed: cursors, starting over, cleanup roles announced until they are handled, auths requested once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.access.domain.models import AttemptState, CleanupRoleState, DropBy
from services.access.ledger import attempts as stored
from services.access.ledger import catalog, recoveries, requests
from services.access.ledger.db import schema
from services.access.ledger.db.database import Ledger, open_ledger
from services.access.requests.changefeed import ChangeFeed
from services.common.rpc.limit import LongPolls
from tests.unit.access.access_builders import a_request, a_role, a_target

OWNER = "spiffe://leasegate/watcher"
POLLER = {"owner": OWNER, "cluster_uid": "c1"}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(tmp_path / "l.db", clock=lambda: 1000.0)
    yield opened
    opened.close()


@pytest.fixture
def polls() -> LongPolls:
    return LongPolls(2)


@pytest.fixture
def feed(ledger: Ledger, polls: LongPolls) -> ChangeFeed:
    return ChangeFeed(ledger, polls)


def place(ledger: Ledger) -> int:
    with ledger.write() as tx:
        return catalog.put_target(tx, a_target()).id


def insert(ledger: Ledger, uid: str, *, owner: str = OWNER) -> None:
    with ledger.write() as tx:
        requests.insert(tx, a_request(uid=uid, owner=owner))


def need_cleanup_role(ledger: Ledger) -> str:
    target = place(ledger)
    with ledger.write() as tx:
        role = catalog.put_role(tx, a_role(target=target))
        requests.insert(tx, a_request())
        attempt = stored.begin(tx, request=a_request(), role=role, sequence=1, due_at=None)
        tx.execute(schema.attempts.update().values(state=AttemptState.RECOVERING))
        return recoveries.require(tx, attempt, drop_by=DropBy.TEAM).name


def begin(feed: ChangeFeed) -> str:
    return feed.poll("", **POLLER, max_wait_s=0).cursor


def test_each_owner_hears_of_its_own_requests_in_order_and_once(ledger: Ledger, feed: ChangeFeed) -> None:
    cursor = begin(feed)
    for uid in ("a", "b", "c"):
        insert(ledger, uid)
    insert(ledger, "x", owner="somebody else")
    with ledger.write() as tx:
        requests.update(tx, a_request(uid="a"), rotation_due=True)
    batch = feed.poll(cursor, **POLLER, max_wait_s=0)
    assert [each.uid for each in batch.requests] == ["b", "c", "a"]
    assert feed.poll(batch.cursor, **POLLER, max_wait_s=0).requests == ()
    assert feed.poll(cursor, **POLLER, max_wait_s=0).requests == batch.requests  # a cursor may be used again


@pytest.mark.parametrize("cursor", ["", "other:1", "nonsense", "{epoch}:99", "{epoch}:x"])
def test_a_cursor_of_another_feed_starts_over(feed: ChangeFeed, cursor: str) -> None:
    epoch = begin(feed).partition(":")[0]
    assert feed.poll(cursor.format(epoch=epoch), **POLLER, max_wait_s=0).restarted


def test_a_poll_waits_until_something_happens(ledger: Ledger, feed: ChangeFeed) -> None:
    cursor, got = begin(feed), []
    waiting = threading.Thread(target=lambda: got.append(feed.poll(cursor, **POLLER, max_wait_s=20)))
    waiting.start()
    insert(ledger, "a")
    waiting.join(10)
    assert [each.uid for each in got[0].requests] == ["a"]


def test_beyond_the_budget_a_poll_answers_at_once(feed: ChangeFeed, polls: LongPolls) -> None:
    cursor = begin(feed)
    with polls.waiting(), polls.waiting():
        assert not feed.poll(cursor, **POLLER, max_wait_s=20).waited


def test_a_stopping_process_lets_polls_go(feed: ChangeFeed, polls: LongPolls) -> None:
    cursor, got = begin(feed), []
    waiting = threading.Thread(target=lambda: got.append(feed.poll(cursor, **POLLER, max_wait_s=20)))
    waiting.start()
    polls.drain()
    feed.wake()
    waiting.join(10)
    assert got[0].requests == ()


def test_a_cleanup_role_is_announced_again_when_the_feed_starts_over(
    ledger: Ledger, feed: ChangeFeed, polls: LongPolls
) -> None:
    cursor = begin(feed)
    name = need_cleanup_role(ledger)
    batch = feed.poll(cursor, **POLLER, max_wait_s=0)
    assert [cleanup_role.name for cleanup_role, _ in batch.cleanup_roles] == [name]
    assert [
        cleanup_role.name
        for cleanup_role, _ in ChangeFeed(ledger, polls).poll("", **POLLER, max_wait_s=0).cleanup_roles
    ] == [name]


def test_an_unneeded_cleanup_role_is_announced_until_a_later_poll(ledger: Ledger, feed: ChangeFeed) -> None:
    cursor = begin(feed)
    need_cleanup_role(ledger)
    cursor = feed.poll(cursor, **POLLER, max_wait_s=0).cursor
    with ledger.write() as tx:
        (attempt,) = stored.open_of(tx, "uid-1")
        stored.close(tx, attempt.id, AttemptState.RECOVERING)
        recoveries.release(tx, attempt)
    batch = feed.poll(cursor, **POLLER, max_wait_s=0)
    assert [cleanup_role.state for cleanup_role, _ in batch.cleanup_roles] == [CleanupRoleState.UNNEEDED]
    assert feed.poll(cursor, **POLLER, max_wait_s=0).cleanup_roles  # the answer may have been lost
    assert not feed.poll(batch.cursor, **POLLER, max_wait_s=0).cleanup_roles
    with ledger.read() as tx:
        assert not recoveries.pending(tx)


def test_a_missing_auth_is_requested_until_it_arrives(ledger: Ledger, feed: ChangeFeed) -> None:
    target, cursor = place(ledger), begin(feed)
    for _ in range(3):
        feed.request_auth(target)
    batch = feed.poll(cursor, **POLLER, max_wait_s=0)
    assert [row.id for row in batch.missing_auths] == [target]
    assert feed.poll(batch.cursor, **POLLER, max_wait_s=0).missing_auths == ()
    assert [row.id for row in feed.poll("", **POLLER, max_wait_s=0).missing_auths] == [target]
    feed.auth_arrived(target)
    assert feed.poll("", **POLLER, max_wait_s=0).missing_auths == ()


def test_h3_the_feed_shows_a_cluster_what_is_its_own_alone(ledger: Ledger, feed: ChangeFeed) -> None:
    with ledger.write() as tx:
        target = catalog.put_target(tx, a_target(cluster_uid="c2")).id
        role = catalog.put_role(tx, a_role(target=target))
        requests.insert(tx, a_request())
        attempt = stored.begin(tx, request=a_request(), role=role, sequence=1, due_at=None)
    cursor = begin(feed)
    feed.request_auth(target)
    with ledger.write() as tx:
        tx.execute(schema.attempts.update().values(state=AttemptState.RECOVERING))
        recoveries.require(tx, attempt, drop_by=DropBy.TEAM)
    for start in (cursor, ""):
        batch = feed.poll(start, owner=OWNER, cluster_uid="c1", max_wait_s=0)
        assert (batch.cleanup_roles, batch.missing_auths) == ((), ())
        batch = feed.poll(start, owner="spiffe://leasegate/other", cluster_uid="c2", max_wait_s=0)
        assert (len(batch.cleanup_roles), [row.id for row in batch.missing_auths]) == (1, [target])
    with ledger.write() as tx:
        stored.close(tx, attempt.id, AttemptState.RECOVERING)
        recoveries.release(tx, attempt)
    released = feed.poll(cursor, owner="", cluster_uid="c2", max_wait_s=0)
    feed.poll(released.cursor, owner=OWNER, cluster_uid="c1", max_wait_s=0)  # confirms nothing of the other cluster
    assert feed.poll(cursor, owner="", cluster_uid="c2", max_wait_s=0).cleanup_roles
    feed.poll(released.cursor, owner="", cluster_uid="c2", max_wait_s=0)
    with ledger.read() as tx:
        assert not recoveries.pending(tx)


def test_a_cleanup_role_that_nobody_hears_of_is_noticed(
    ledger: Ledger, feed: ChangeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.access.requests.changefeed.UNREAD_S", -1.0)
    assert not feed.unread()
    need_cleanup_role(ledger)
    assert feed.unread()
    begin(feed)
    assert not feed.unread()


def test_changes_of_somebody_elses_requests_let_a_poll_wait_on(ledger: Ledger, feed: ChangeFeed) -> None:
    cursor, found = begin(feed), list[tuple[str, ...]]()
    poll = threading.Thread(
        target=lambda: found.append(tuple(each.uid for each in feed.poll(cursor, **POLLER, max_wait_s=30).requests)),
        daemon=True,
    )
    poll.start()
    for number in range(20):
        insert(ledger, f"other-{number}", owner="spiffe://leasegate/client/alice")
    assert poll.is_alive()
    insert(ledger, "mine")
    poll.join(30)
    assert found == [("mine",)]
