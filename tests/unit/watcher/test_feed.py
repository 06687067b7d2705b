"""The feed counts as answered before its changes are handled, and as stuck once a poll does not end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from leasegate.access.v1 import watcher_service_pb2
from services.common.errors import PeerUnavailableError
from tests.clock import Clock
from watcher.clients.changefeed import STUCK_S, ChangeFeed, Handlers
from watcher.kube.backoff import Backoff

IGNORED = Handlers(
    request=lambda _: None, cleanup_role=lambda _: None, vault_auth=lambda _: None, restarted=lambda: None
)


def feed_of(answering: Callable[[], object], handlers: Handlers = IGNORED, **options: Any) -> ChangeFeed:
    """A feed of an access that answers so."""
    peers: Any = SimpleNamespace(access=SimpleNamespace(WatchChanges=lambda _request, timeout: answering()))
    ledger_id: Any = SimpleNamespace(id="", load=lambda: None, store=lambda _id: None)
    backoff = Backoff(base_s=0.1, cap_s=5.0, random=lambda: 0.5)
    return ChangeFeed(peers, handlers, ledger_id=ledger_id, backoff=backoff, **options)


def test_the_feed_has_answered_before_requests_are_compared() -> None:
    answer = watcher_service_pb2.WatchChangesResponse(restarted=True, ledger_id="ledger", next_cursor="1")
    seen: list[bool] = []
    feed = feed_of(lambda: answer, replace(IGNORED, restarted=lambda: seen.append(feed.answered.is_set())))
    feed.poll()
    assert seen == [True]


def test_a_poll_that_never_ends_is_a_feed_that_is_stuck() -> None:
    """A half-open connection of which nothing says that it is (field report 17)."""
    clock, stop, began, ends = Clock(), threading.Event(), threading.Event(), threading.Event()

    def hang() -> object:
        began.set()
        ends.wait(60)
        stop.set()
        return watcher_service_pb2.WatchChangesResponse(ledger_id="ledger", next_cursor="1")

    feed = feed_of(hang, clock=clock)
    clock.now += STUCK_S + 1
    assert not feed.stuck()  # it has not begun
    thread = threading.Thread(target=feed.run, args=(stop,))
    thread.start()
    assert began.wait(30)
    clock.now += STUCK_S - 1
    assert not feed.stuck()
    clock.now += 2
    assert feed.stuck()
    ends.set()
    thread.join(30)


def test_a_feed_that_fails_is_not_stuck() -> None:
    """A restart of the watcher would not bring access back."""
    clock, stop, polls = Clock(), threading.Event(), list[int]()

    def refuse() -> object:
        clock.now += STUCK_S
        polls.append(1)
        assert not feed.stuck()
        if len(polls) == 3:
            stop.set()
        raise PeerUnavailableError("down", peer="access")

    feed = feed_of(refuse, clock=clock)
    feed.run(stop)
    assert len(polls) == 3
