"""A queue of keys: each key once, each in one worker's hands at a time, different keys in parallel.

A key that is added while a worker has it comes back when the worker is done. A key of a lower priority goes after all
keys of higher ones, as in controller-runtime's priority queue: the first list and each resync queue every object,
thousands of them, and a decision that arrives meanwhile must not wait behind them.

The namespaces take turns, and one namespace never has all workers: neither a thousand keys of one nor calls of one that
nobody answers delay the keys of another. Keys of the lowest priority have a few workers: what is under way when
something happens takes processor time from it, here and in the API server.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from enum import IntEnum
from typing import Generic, TypeVar

from watcher.kube.backoff import Backoff

K = TypeVar("K", bound=Hashable)


class Priority(IntEnum):
    """Which keys go first."""

    EVENT = 0  # something changed, and somebody may wait for what follows
    FOLLOW_UP = 1  # somebody has what was waited for; the rest of its reconcile is due
    RESYNC = 2  # nothing is known to have changed


_TIERS = ((Priority.EVENT, Priority.FOLLOW_UP), (Priority.RESYNC,))
"""Within a tier the namespaces take turns, and each turn takes the namespace's key of the highest priority: the events
of one namespace do not go before what another one's have begun.
"""


class _Tier(Generic[K]):
    """The keys of some priorities and since when each waits, by namespace; None is that of keys without one."""

    def __init__(self, priorities: tuple[Priority, ...]) -> None:
        self._priorities = priorities
        self._waiting: OrderedDict[str | None, dict[Priority, OrderedDict[K, float]]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def priority_of(self, key: K) -> Priority | None:
        """The priority with which a key waits; None if it does not."""
        lanes = self._waiting.get(_namespace_of(key), {})
        return next((priority for priority, lane in lanes.items() if key in lane), None)

    def add(self, key: K, priority: Priority, since: float) -> None:
        """Add a key that does not wait."""
        lanes = self._waiting.setdefault(_namespace_of(key), {each: OrderedDict() for each in self._priorities})
        lanes[priority][key] = since
        self._count += 1

    def remove(self, key: K, priority: Priority) -> float:
        """Remove a key; returns since when it waited."""
        since = self._waiting[_namespace_of(key)][priority].pop(key)
        self._removed(_namespace_of(key))
        return since

    def take(self, is_full: Callable[[str | None], bool]) -> tuple[K, float] | None:
        """Take the first key of the namespace whose turn it is, passing over those that are full."""
        for namespace, lanes in self._waiting.items():
            if not is_full(namespace):
                self._waiting.move_to_end(namespace)
                taken = next(lane for lane in lanes.values() if lane).popitem(last=False)
                self._removed(namespace)
                return taken
        return None

    def _removed(self, namespace: str | None) -> None:
        self._count -= 1
        if not any(self._waiting[namespace].values()):
            del self._waiting[namespace]


class QueueObserver:
    """Takes what a queue reports for its metrics, as the queues of client-go do; this one ignores it."""

    def on_add(self) -> None:
        """A key is added."""

    def on_retry(self) -> None:
        """A key is to be added after a growing pause."""

    def on_start(self, waited_s: float) -> None:
        """A worker takes a key that waited so long."""

    def on_done(self, worked_s: float) -> None:
        """A worker gives a key back after so long."""


class WorkQueue(Generic[K]):
    """A queue of keys. Safe for threads.

    Args:
        backoff: Pauses of ``add_rate_limited``.
        clock: Monotonic seconds.
        observer: Where adds, retries and durations are counted.
        most_of_namespace: How many keys of one namespace workers may have at once; None for no limit.
        most_resyncs: How many keys of the lowest priority workers may have at once; None for no limit.
    """

    def __init__(
        self,
        backoff: Backoff,
        *,
        clock: Callable[[], float] = time.monotonic,
        observer: QueueObserver | None = None,
        most_of_namespace: int | None = None,
        most_resyncs: int | None = None,
    ) -> None:
        self._most_of_namespace, self._most_resyncs = most_of_namespace, most_resyncs
        self._resyncing = set[K]()
        self._busy = Counter[str | None]()
        self._backoff, self._clock, self._observer = backoff, clock, observer or QueueObserver()
        self._changed = threading.Condition()
        self._tiers = [_Tier[K](each) for each in _TIERS]
        self._tier_of = {each: tier for tier, some in zip(self._tiers, _TIERS, strict=True) for each in some}
        self._processing: dict[K, float] = {}  # and since when
        self._again: dict[K, Priority] = {}  # keys added while a worker has them
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._failures: dict[K, int] = {}
        self._closed = False

    def add(self, key: K, priority: Priority = Priority.EVENT) -> None:
        """Queue a key, once; one that waits already gets the higher one of the two priorities."""
        with self._changed:
            self._due.pop(key, None)
            self._enqueue(key, priority)

    def add_after(self, key: K, delay_s: float) -> None:
        """Queue a key in ``delay_s`` seconds, unless it is due sooner."""
        with self._changed:
            due = self._clock() + delay_s
            if self._waits(key) is not None or self._due.get(key, due + 1) <= due:
                return
            self._due[key] = due
            heapq.heappush(self._heap, (due, next(self._order), key))
            self._changed.notify()

    def add_rate_limited(self, key: K) -> None:
        """Queue a key after a pause that grows with each call until ``forget_failures``."""
        with self._changed:
            self._observer.on_retry()
            self._failures[key] = self._failures.get(key, 0) + 1
            pause_s = self._backoff.pause_s(self._failures[key])
        self.add_after(key, pause_s)

    def forget_failures(self, key: K) -> None:
        """Reset the pause of a key."""
        with self._changed:
            self._failures.pop(key, None)

    def next_key(self, *, block: bool = True) -> K | None:
        """Take the next key; ``mark_done`` must follow.

        Args:
            block: Whether to wait for a key.

        Returns:
            The key; None when the queue is closed, or is empty and ``block`` is false.
        """
        with self._changed:
            while not self._closed:
                self._queue_due()
                if taken := self._take():
                    key, since = taken
                    self._busy[_namespace_of(key)] += 1
                    now = self._processing[key] = self._clock()
                    self._observer.on_start(now - since)
                    self._changed.notify()  # another worker waits for what is due next
                    return key
                if not block:
                    return None
                self._changed.wait(self._next_due_s())
            return None

    def mark_done(self, key: K) -> None:
        """Give a key back that ``next_key`` returned."""
        with self._changed:
            self._observer.on_done(self._clock() - self._processing.pop(key))
            self._busy[_namespace_of(key)] -= 1
            if not self._busy[_namespace_of(key)]:
                del self._busy[_namespace_of(key)]
            self._resyncing.discard(key)
            if self._most_of_namespace is not None or self._most_resyncs is not None:
                self._changed.notify()  # a key that a limit kept back may go now
            if key in self._again:
                self._enqueue(key, self._again.pop(key))

    def close(self) -> None:
        """Let every ``next_key`` return None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        """How many keys wait for a worker."""
        return sum(map(len, self._tiers))

    @property
    def delayed(self) -> int:
        """How many keys wait for their time."""
        return len(self._due)

    @property
    def unfinished_s(self) -> float:
        """Seconds of work in progress, summed over the keys that workers have."""
        with self._changed:
            return sum(self._clock() - since for since in self._processing.values())

    def _take(self) -> tuple[K, float] | None:
        """Take the first key that may go, and since when it waited."""
        *urgent, resyncs = self._tiers
        if taken := next(filter(None, (tier.take(self._is_full) for tier in urgent)), None):
            return taken
        if self._most_resyncs is not None and len(self._resyncing) >= self._most_resyncs:
            return None
        if taken := resyncs.take(self._is_full):
            self._resyncing.add(taken[0])
        return taken

    def _is_full(self, namespace: str | None) -> bool:
        limit = self._most_of_namespace
        return limit is not None and namespace is not None and self._busy[namespace] >= limit

    def _waits(self, key: K) -> Priority | None:
        return next((found for tier in self._tiers if (found := tier.priority_of(key)) is not None), None)

    def _enqueue(self, key: K, priority: Priority) -> None:
        if key in self._processing:
            self._again[key] = min(priority, self._again.get(key, priority))
            return
        known = self._waits(key)
        if known is None:
            self._observer.on_add()
            self._tier_of[priority].add(key, priority, self._clock())
        elif priority < known:
            self._tier_of[priority].add(key, priority, self._tier_of[known].remove(key, known))
        self._changed.notify()

    def _queue_due(self) -> None:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self._enqueue(key, Priority.EVENT)

    def _next_due_s(self) -> float | None:
        return max(0.0, self._heap[0][0] - self._clock()) if self._heap else None


def _namespace_of(key: Hashable) -> str | None:
    return getattr(key, "namespace", None)
