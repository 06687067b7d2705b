"""Keys that wait for a worker: each once, each in one hand at a time, different ones in parallel.

A key that is added while it is being worked on comes back when that is done. Three lanes: what somebody waits for goes before what is left
to do when they have it, and that before what is merely due to be looked at again. While a key of the first lane is in hand, one of the
others is at most: a worker that finds nothing of the first lane would else take processor time from those that somebody waits for.
Nothing is put off for ever: once a lane has had keys for long, every sixteenth key is of the second, every sixty-fourth of the third.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from watcher.kube.backoff import Backoff

K = TypeVar("K", bound=Hashable)
_WAITED_FOR, _FOLLOW_UP, _LOW = range(3)
_FOLLOW_UP_EVERY, _LOW_EVERY = 16, 64
PUT_OFF_S = 2.0
"""So long the second or third lane may wait for the first."""


class WorkQueue(Generic[K]):
    """A queue of keys. Safe for threads.

    Args:
        backoff: Pauses of ``retry``.
        clock: Monotonic seconds.
    """

    def __init__(self, backoff: Backoff, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._backoff, self._clock = backoff, clock
        self._ready = threading.Condition()
        self._lanes: tuple[deque[K], ...] = (deque(), deque(), deque())
        self._since = [0.0, 0.0, 0.0]  # when each lane was empty last
        self._taken = 0
        self._waiting: dict[K, int] = {}  # which lane
        self._working: dict[K, int] = {}  # from which lane
        self._in_hand = [0, 0, 0]
        self._again: dict[K, int] = {}  # added while being worked on
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0
        self._failures: dict[K, int] = {}
        self._closed = False

    def add(self, key: K, *, low: bool = False) -> None:
        """Have the key worked on as soon as a worker is free; ``low`` after all that is not."""
        with self._ready:
            self._due.pop(key, None)
            self._enqueue(key, _LOW if low else _WAITED_FOR)

    def follow_up(self, key: K) -> None:
        """Have the key worked on after all those that somebody waits for."""
        with self._ready:
            self._enqueue(key, _FOLLOW_UP)

    def add_after(self, key: K, delay_s: float) -> None:
        """Have the key worked on in ``delay_s`` seconds, unless it is sooner anyway."""
        with self._ready:
            due = self._clock() + delay_s
            if key in self._waiting or self._due.get(key, due + 1) <= due:
                return
            self._due[key] = due
            self._count += 1
            heapq.heappush(self._heap, (due, self._count, key))
            self._ready.notify()

    def retry(self, key: K) -> None:
        """Have the key worked on after a pause that grows with each call until ``forget``."""
        with self._ready:
            self._failures[key] = self._failures.get(key, 0) + 1
            pause_s = self._backoff.pause_s(self._failures[key])
        self.add_after(key, pause_s)

    def forget(self, key: K) -> None:
        """Begin anew with the pauses of a key."""
        with self._ready:
            self._failures.pop(key, None)

    def take(self) -> K | None:
        """Wait for a key; None when the queue is closed. ``done`` must follow."""
        with self._ready:
            while not self._closed:
                key = self._next()
                if key is not None:
                    self._ready.notify()  # another worker watches over what comes next
                    return key
                self._ready.wait(self._next_due_s())
            return None

    def take_now(self) -> K | None:
        """A key that is ready now, or None."""
        with self._ready:
            return self._next()

    def done(self, key: K) -> None:
        """Give a key back."""
        with self._ready:
            self._in_hand[self._working.pop(key)] -= 1
            if key in self._again:
                self._enqueue(key, self._again.pop(key))
            if self._waiting:
                self._ready.notify()  # what was held back may be free to go

    def close(self) -> None:
        """Let every ``take`` return None."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def delayed(self) -> int:
        """How many keys wait for their time."""
        return len(self._due)

    def _enqueue(self, key: K, lane: int) -> None:
        if key in self._working:
            self._again[key] = min(lane, self._again.get(key, lane))
        elif (
            self._waiting.get(key, _LOW + 1) > lane
        ):  # a key that waits in a lower lane changes over; its old place is passed over
            self._waiting[key] = lane
            if not self._lanes[lane]:
                self._since[lane] = self._clock()
            self._lanes[lane].append(key)
            self._ready.notify()

    def _next(self) -> K | None:
        self._ripen()
        self._taken += 1
        for lane in self._order():
            keys = self._lanes[lane]
            while keys and self._is_free(lane):
                key = keys.popleft()
                if self._waiting.get(key) == lane:
                    del self._waiting[key]
                    self._working[key] = lane
                    self._in_hand[lane] += 1
                    return key
        return None

    def _is_free(self, lane: int) -> bool:
        return lane == _WAITED_FOR or not (
            self._in_hand[_WAITED_FOR] and (self._in_hand[_FOLLOW_UP] or self._in_hand[_LOW])
        )

    def _order(self) -> tuple[int, ...]:
        """In which order the lanes are looked into now."""
        if self._taken % _LOW_EVERY == 0 and self._waits_long(_LOW):
            return (_LOW, _WAITED_FOR, _FOLLOW_UP)
        if self._taken % _FOLLOW_UP_EVERY == 0 and self._waits_long(_FOLLOW_UP):
            return (_FOLLOW_UP, _WAITED_FOR, _LOW)
        return (_WAITED_FOR, _FOLLOW_UP, _LOW)

    def _waits_long(self, lane: int) -> bool:
        return bool(self._lanes[lane]) and self._since[lane] + PUT_OFF_S <= self._clock()

    def _ripen(self) -> None:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self._enqueue(key, _WAITED_FOR)

    def _next_due_s(self) -> float | None:
        return max(0.0, self._heap[0][0] - self._clock()) if self._heap else None
