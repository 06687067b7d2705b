"""Workers over a queue: one object is with one worker at a time, and the failure of one object stops no other.

What a reconcile returns says when its key comes back (``watcher.kube.result``); what it raises brings the key back
after a growing pause.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from enum import StrEnum
from typing import Generic, TypeVar

from services.common import logs
from services.common.errors import LeasegateError
from services.common.rpc import request_ids
from watcher.kube.client import KubeError
from watcher.kube.result import Result
from watcher.kube.workqueue import Priority, WorkQueue

LOG = logs.logger(__name__)
K = TypeVar("K", bound=Hashable)


class ReconcileOutcome(StrEnum):
    """How a reconcile ended, as controller-runtime counts it."""

    SUCCESS = "success"
    REQUEUE = "requeue"
    REQUEUE_AFTER = "requeue_after"
    ERROR = "error"


ReconcileObserver = Callable[[str, ReconcileOutcome, float], None]
"""Takes the controller's name, the outcome and the seconds of a reconcile, for the metrics."""


def _unobserved(_name: str, _outcome: ReconcileOutcome, _seconds: float) -> None:
    pass


class Controller(Generic[K]):
    """Takes keys from a queue and reconciles them.

    Args:
        name: For logs, metrics and thread names.
        queue: The keys.
        reconcile: Reconciles the object of one key.
        workers: Number of threads.
        observer: Where reconciles are counted.
    """

    def __init__(
        self,
        name: str,
        queue: WorkQueue[K],
        reconcile: Callable[[K], Result],
        *,
        workers: int,
        observer: ReconcileObserver = _unobserved,
    ) -> None:
        self.name, self.queue, self._reconcile, self._workers = name, queue, reconcile, workers
        self._observer = observer
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the workers."""
        for number in range(self._workers):
            thread = threading.Thread(target=self._work, name=f"{self.name}-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout_s: float) -> None:
        """Let the workers finish the keys that they have, within ``timeout_s`` for all of them together."""
        end = time.monotonic() + timeout_s
        self.queue.close()
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def alive(self) -> bool:
        """Whether all workers run."""
        return all(thread.is_alive() for thread in self._threads)

    def reconcile_key(self, key: K) -> None:
        """Reconcile one key and requeue it as its result says."""
        began = time.perf_counter()
        outcome = self._reconcile_and_requeue(key)
        self._observer(self.name, outcome, time.perf_counter() - began)

    def _reconcile_and_requeue(self, key: K) -> ReconcileOutcome:
        try:
            with request_ids.following(None):
                result = self._reconcile(key)
        except KubeError as err:
            self.queue.add_rate_limited(key)
            if err.status in (404, 409):  # which the next try meets with a newer object
                return ReconcileOutcome.REQUEUE
            LOG.warning(
                "requeueing",
                kind=self.name,
                object=str(key),
                status=err.status,
                reason=err.reason,
                error=err.message,
            )
        except LeasegateError as err:
            LOG.warning("requeueing", kind=self.name, object=str(key), reason=err.reason, error=err.message)
            self.queue.add_rate_limited(key)
        except Exception:
            LOG.exception("unhandled exception in worker", kind=self.name, object=str(key))
            self.queue.add_rate_limited(key)
        else:
            return self._requeue(key, result)
        return ReconcileOutcome.ERROR

    def _requeue(self, key: K, result: Result) -> ReconcileOutcome:
        if result.follow_up:
            self.queue.forget_failures(key)
            self.queue.add(key, Priority.FOLLOW_UP)
            return ReconcileOutcome.REQUEUE_AFTER
        if result.requeue_after_s is not None:
            self.queue.forget_failures(key)
            self.queue.add_after(key, result.requeue_after_s)
            return ReconcileOutcome.REQUEUE_AFTER
        if result.requeue:
            self.queue.add_rate_limited(key)
            return ReconcileOutcome.REQUEUE
        self.queue.forget_failures(key)
        return ReconcileOutcome.SUCCESS

    def _work(self) -> None:
        while (key := self.queue.next_key()) is not None:
            try:
                self.reconcile_key(key)
            finally:
                self.queue.mark_done(key)
