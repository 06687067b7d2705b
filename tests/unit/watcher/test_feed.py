"""The feed counts as answered, and the watcher as ready, before the answer's changes are handled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from leasegate.access.v1 import watcher_service_pb2
from watcher.clients.changefeed import ChangeFeed, Handlers
from watcher.kube.backoff import Backoff


def test_the_feed_has_answered_before_requests_are_compared() -> None:
    answer = watcher_service_pb2.WatchChangesResponse(restarted=True, ledger_id="ledger", next_cursor="1")
    peers: Any = SimpleNamespace(access=SimpleNamespace(WatchChanges=lambda _request, timeout: answer))
    ledger_id: Any = SimpleNamespace(id="", load=lambda: None, store=lambda _id: None)
    seen: list[bool] = []
    handlers = Handlers(
        request=lambda _: None,
        cleanup_role=lambda _: None,
        vault_auth=lambda _: None,
        restarted=lambda: seen.append(feed.answered.is_set()),
    )
    feed = ChangeFeed(peers, handlers, ledger_id=ledger_id, backoff=Backoff(base_s=0.1, cap_s=5.0, random=lambda: 0.5))
    feed.poll()
    assert seen == [True]
