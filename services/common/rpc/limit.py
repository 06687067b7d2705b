"""How many calls may be under way, and how many of them may only be waiting.

Ordinary calls have slots; a long poll gives its slot back while it waits and takes one of a budget of its own, so that
twenty waiting clients never keep out an approval or a revoke.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from services.common.errors import OverloadedError


class Slot:
    """The place of one call; released once, however often ``release`` is called."""

    def __init__(self, free: threading.Semaphore) -> None:
        self._free, self._taken = free, True

    def release(self) -> None:
        """Free the place for another call. Only the thread of the handler calls it."""
        if self._taken:
            self._taken = False
            self._free.release()


_SLOT: ContextVar[Slot | None] = ContextVar("slot", default=None)


class Slots:
    """A number of places for calls."""

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)

    def take_slot(self) -> Slot:
        """Take a place, which the caller releases.

        Raises:
            OverloadedError: None is free.
        """
        if not self._free.acquire(blocking=False):
            raise OverloadedError("too many calls are under way")
        return Slot(self._free)

    @contextmanager
    def taken_slot(self) -> Iterator[None]:
        """Take a place for the time inside.

        Raises:
            OverloadedError: None is free.
        """
        slot = self.take_slot()
        token = _SLOT.set(slot)
        try:
            yield
        finally:
            _SLOT.reset(token)
            slot.release()


class LongPolls:
    """The budget of calls that wait for something to happen.

    ``serve`` and the code that waits use the same object. The code that waits stops when ``draining`` is set, which
    ``serve`` does by its ``on_drain``.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = threading.BoundedSemaphore(count)
        self._draining = threading.Event()

    @property
    def draining(self) -> bool:
        """Whether the process stops, so that no call may wait any longer."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Refuse all further waiting."""
        self._draining.set()

    @contextmanager
    def waiting(self) -> Iterator[bool]:
        """Ask for permission to wait inside. False means: answer at once with the current state and a retry time.

        While the call waits it does not count among the ordinary ones.
        """
        if self.draining or not self._free.acquire(blocking=False):
            yield False
            return
        try:
            if slot := _SLOT.get():
                slot.release()
            yield True
        finally:
            self._free.release()
