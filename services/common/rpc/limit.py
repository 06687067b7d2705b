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
    """The place of one call; given back once, however often it is asked to."""

    def __init__(self, free: threading.Semaphore) -> None:
        self._free, self._held = free, True

    def give_back(self) -> None:
        """Let another call in. Called by the handler's own thread alone."""
        if self._held:
            self._held = False
            self._free.release()


_SLOT: ContextVar[Slot | None] = ContextVar("slot", default=None)


class Slots:
    """A number of places for calls."""

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)

    def take(self) -> Slot:
        """Take a place that the caller gives back.

        Raises:
            Overloaded: None is free.
        """
        if not self._free.acquire(blocking=False):
            raise OverloadedError("too many calls are under way")
        return Slot(self._free)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place inside.

        Raises:
            Overloaded: None is free.
        """
        slot = self.take()
        token = _SLOT.set(slot)
        try:
            yield
        finally:
            _SLOT.reset(token)
            slot.give_back()


class LongPolls:
    """The budget of calls that wait for something to happen.

    Give the same object to ``serve`` and to the code that waits. The waiting itself is the owner's: it should end when
    ``draining`` is set, of which ``serve`` tells by its ``on_drain``.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = threading.BoundedSemaphore(count)
        self._draining = threading.Event()

    @property
    def draining(self) -> bool:
        """Whether the process stops: nobody may wait any longer."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Grant no more waiting."""
        self._draining.set()

    @contextmanager
    def wait(self) -> Iterator[bool]:
        """Ask for leave to wait inside; False means: answer at once with the present state and when to ask again.

        While leave is granted the call counts no longer among the ordinary ones.
        """
        if self.draining or not self._free.acquire(blocking=False):
            yield False
            return
        try:
            if slot := _SLOT.get():
                slot.give_back()
            yield True
        finally:
            self._free.release()
