"""Maps whose keys tenants choose: none grows without bound."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedMap(OrderedDict[K, V]):
    """A map of the newest ``most`` entries, for what can be found again where an entry is missing."""

    def __init__(self, most: int) -> None:
        """Begin empty."""
        super().__init__()
        self._most = most

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        while len(self) > self._most:
            try:
                self.popitem(last=False)
            except KeyError:  # another thread made room
                return


class KeyedLocks(Generic[K]):
    """A lock for each key that somebody holds or waits for; no others are kept."""

    def __init__(self) -> None:
        """Begin without locks."""
        self._guard = threading.Lock()
        self._locks: dict[K, threading.Lock] = {}
        self._users: Counter[K] = Counter()

    @contextmanager
    def holding(self, key: K, *, timeout_s: float = -1) -> Iterator[bool]:
        """Hold the lock of a key inside; false if it was not to be had within the timeout."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
            self._users[key] += 1
        taken = False
        try:
            taken = lock.acquire(timeout=timeout_s)
            yield taken
        finally:
            if taken:
                lock.release()
            with self._guard:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key], self._locks[key]

    def __len__(self) -> int:
        return len(self._locks)
