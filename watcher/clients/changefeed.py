"""access' change feed: a long poll that never ends, whose changes become keys in queues.

It decides nothing and loses nothing: a cursor may be asked again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf import duration_pb2

from leasegate.access.v1 import watcher_service_pb2
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
ANSWER_S = 10.0
"""What a poll may take beyond its wait."""


@dataclass(frozen=True, slots=True)
class Handlers:
    """What changes become.

    Attributes:
        request: A request is to be ensured again.
        cleanup_role: A cleanup role is wanted, or no more.
        login: access lacks a login for a target.
        restarted: access says that the feed begins anew: everything is to be said again.
    """

    request: Callable[[types_pb2.ObjectRef], None]
    cleanup_role: Callable[[CleanupRoleChange], None]
    login: Callable[[types_pb2.VaultTargetRef], None]
    restarted: Callable[[], None]


class ChangeFeed:
    """Follows the feed.

    Args:
        peers: The services.
        handlers: What changes become.
        known: Which ledger access had.
        backoff: Pauses after failures.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        peers: ServiceStubs,
        handlers: Handlers,
        *,
        known: LedgerId,
        backoff: Backoff,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._peers, self._handlers, self._backoff, self._clock = peers, handlers, backoff, clock
        self._known = known
        self._cursor, self._ledger = "", ""
        self._failures, self._followed = 0, False
        self.answered = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Follow until ``stop``."""
        while not stop.is_set():
            pause_s = self.step()
            if pause_s > 0:
                stop.wait(pause_s)

    def step(self) -> float:
        """Poll once; answers how many seconds to pause before the next time."""
        try:
            self._known.read()
            answer = self._peers.access.WatchChanges(self._request(), timeout=WAIT_S + ANSWER_S)
            self.answered.set()  # before it is taken: to compare all requests takes seconds, and nobody has to wait for that
            self._take(answer)
        except LeasegateError as err:
            self._failures += 1
            if self._failures == 1:  # else each second of an outage is a line
                LOG.info("feed interrupted", reason=err.reason, error=err.message)
            return self._backoff.pause_s(self._failures)
        except KubeError as err:
            self._failures += 1
            if self._failures == 1:
                text = f"{err.message}; deploy/rbac/watcher.yaml grants it"
                LOG.warning("which ledger was known cannot be read: the feed is not followed", error=text)
            return self._backoff.pause_s(self._failures)
        except Exception:  # one change that makes something go wrong must not end all others
            self._failures += 1
            LOG.exception("feed failed")
            return self._backoff.pause_s(self._failures)
        if self._failures or not self._followed:
            LOG.info("feed followed", ledger=self._ledger)
        self._failures, self._followed = 0, True
        return answer.next_poll_after.ToTimedelta().total_seconds()

    def _request(self) -> watcher_service_pb2.WatchChangesRequest:
        wait = duration_pb2.Duration(seconds=WAIT_S)
        return watcher_service_pb2.WatchChangesRequest(
            cursor=self._cursor, max_wait=wait, known_ledger_id=self._known.id
        )

    def _take(self, answer: watcher_service_pb2.WatchChangesResponse) -> None:
        if answer.ledger_id != self._ledger and answer.issuance_paused:
            do = "restore the ledger, or `leasegate ledger accept-loss`"
            LOG.error(
                "another ledger than the known one: access issues nothing",
                known=self._known.id,
                found=answer.ledger_id,
                do=do,
            )
        self._ledger = answer.ledger_id
        self._known.found(answer.ledger_id, paused=answer.issuance_paused)
        if answer.restarted:
            self._handlers.restarted()
        for change in answer.changes:
            self._one(change)
        self._cursor = answer.next_cursor

    def _one(self, change: watcher_service_pb2.Change) -> None:
        kind = change.WhichOneof("kind")
        if kind == "access_request":
            self._handlers.request(change.access_request)
        elif kind == "cleanup_role_needed":
            self._handlers.cleanup_role(change.cleanup_role_needed)
        elif kind == "cleanup_role_unneeded":
            self._handlers.cleanup_role(change.cleanup_role_unneeded)
        elif kind == "vault_auth_needed":
            self._handlers.login(change.vault_auth_needed)
        else:
            LOG.warning("unknown change", change_kind=str(kind))
