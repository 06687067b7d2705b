"""Follows access' change feed: a long poll without end, whose changes become keys in queues.

It decides nothing and loses nothing: a cursor may be polled again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf import duration_pb2

from leasegate.access.v1 import change_pb2, watcher_service_pb2
from leasegate.types.v1 import types_pb2
from services.common import logs
from services.common.errors import LeasegateError
from watcher.clients.ledger_id import LedgerId
from watcher.clients.stubs import ServiceStubs
from watcher.kube.backoff import Backoff
from watcher.kube.client import KubeError
from watcher.reconcilers.cleanup_role import CleanupRoleChange

LOG = logs.logger(__name__)
WAIT_S = 25
TIMEOUT_MARGIN_S = 10.0
"""How long a poll may take beyond its wait."""
STUCK_S = 180.0
"""A poll that takes longer will not end: neither its deadline nor the connection's keepalive has ended it."""


@dataclass(frozen=True, slots=True)
class Handlers:
    """What is called for each change.

    Attributes:
        request: An access request has to be ensured again.
        cleanup_role: A cleanup role is needed, or no longer.
        vault_auth: access lacks credentials for a Vault target.
        restarted: The feed starts again: access may know no Vault target and no PostgresRole.
    """

    request: Callable[[types_pb2.ObjectRef], None]
    cleanup_role: Callable[[CleanupRoleChange], None]
    vault_auth: Callable[[types_pb2.VaultTargetRef], None]
    restarted: Callable[[], None]


class ChangeFeed:
    """Follows the feed.

    Args:
        peers: The services.
        handlers: What is called for each change.
        ledger_id: The id of access' ledger, as it is stored in Kubernetes.
        backoff: Pauses after failures.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        peers: ServiceStubs,
        handlers: Handlers,
        *,
        ledger_id: LedgerId,
        backoff: Backoff,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._peers, self._handlers, self._backoff = peers, handlers, backoff
        self._ledger_id = ledger_id
        self._cursor, self._ledger = "", ""
        self._failures, self._connected = 0, False
        self.answered = threading.Event()
        self._clock: Callable[[], float] = clock
        self._began_at: float | None = None

    def run(self, stop: threading.Event) -> None:
        """Poll until ``stop``."""
        while not stop.is_set():
            self._began_at = self._clock()
            pause_s = self.poll()
            if pause_s > 0:
                stop.wait(pause_s)

    def stuck(self) -> bool:
        """Whether a poll began long ago and has not ended: changes go unnoticed. A failure ends a poll, too."""
        return self._began_at is not None and self._clock() - self._began_at > STUCK_S

    def poll(self) -> float:
        """Poll once and handle the changes; returns the pause before the next poll in seconds."""
        try:
            self._ledger_id.load()
            answer = self._peers.access.WatchChanges(self._request(), timeout=WAIT_S + TIMEOUT_MARGIN_S)
            self.answered.set()  # before the changes: a restart compares all requests, which takes seconds
            self._handle(answer)
        except LeasegateError as err:
            if not self._failures:  # one line per outage, not one per second
                LOG.info("change feed disconnected", reason=err.reason, error=err.message)
            return self._next_pause_s()
        except KubeError as err:
            if not self._failures:
                LOG.warning(
                    "change feed disconnected: the stored ledger id cannot be read",
                    error=err.message,
                    do="kubectl apply -f deploy/rbac/watcher.yaml",
                )
            return self._next_pause_s()
        except Exception:  # a change that a handler fails on must not stop all others
            LOG.exception("unhandled exception in change feed")
            return self._next_pause_s()
        if self._failures or not self._connected:
            LOG.info("change feed connected", ledger=self._ledger)
        self._failures, self._connected = 0, True
        return answer.retry_after.ToTimedelta().total_seconds()

    def _next_pause_s(self) -> float:
        self._failures += 1
        return self._backoff.pause_s(self._failures)

    def _request(self) -> watcher_service_pb2.WatchChangesRequest:
        wait = duration_pb2.Duration(seconds=WAIT_S)
        return watcher_service_pb2.WatchChangesRequest(
            cursor=self._cursor, max_wait=wait, known_ledger_id=self._ledger_id.id
        )

    def _handle(self, answer: watcher_service_pb2.WatchChangesResponse) -> None:
        if answer.ledger_id != self._ledger and answer.issuance_paused:
            LOG.error(
                "issuance paused: the ledger is not the known one",
                known=self._ledger_id.id,
                found=answer.ledger_id,
                do="restore the ledger, or `leasegate ledger accept-loss`",
            )
        self._ledger = answer.ledger_id
        if not answer.issuance_paused:
            self._ledger_id.store(answer.ledger_id)
        if answer.restarted:
            self._handlers.restarted()
        for change in answer.changes:
            self._handle_change(change)
        self._cursor = answer.next_cursor

    def _handle_change(self, change: change_pb2.Change) -> None:
        kind = change.WhichOneof("change")
        if kind == "access_request_changed":
            self._handlers.request(change.access_request_changed)
        elif kind == "cleanup_role_needed":
            self._handlers.cleanup_role(change.cleanup_role_needed)
        elif kind == "cleanup_role_unneeded":
            self._handlers.cleanup_role(change.cleanup_role_unneeded)
        elif kind == "vault_auth_needed":
            self._handlers.vault_auth(change.vault_auth_needed)
        else:
            LOG.warning("unknown change", change_kind=str(kind))
