"""The feed is answered, and so the watcher ready, before what the answer asks for is done."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from leasegate.access.v1 import watcher_service_pb2
from watcher.clients.changefeed import ChangeFeed, Handlers
from watcher.kube.backoff import Backoff


def test_nobody_waits_for_all_requests_to_be_compared() -> None:
    answer = watcher_service_pb2.WatchChangesResponse(restarted=True, ledger_id="ledger", next_cursor="1")
    peers: Any = SimpleNamespace(access=SimpleNamespace(WatchChanges=lambda _request, timeout: answer))
    known: Any = SimpleNamespace(id="", read=lambda: None, found=lambda _id, paused: None)
    seen: list[bool] = []
    handlers = Handlers(
        request=lambda _: None,
        cleanup_role=lambda _: None,
        login=lambda _: None,
        restarted=lambda: seen.append(feed.answered.is_set()),
    )
    feed = ChangeFeed(peers, handlers, known=known, backoff=Backoff(base_s=0.1, cap_s=5.0, random=lambda: 0.5))
    feed.step()
    assert seen == [True]
