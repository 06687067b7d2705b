"""How many calls may be under way, how many of them may only be waiting, and how many of either one caller may have.

Ordinary calls have slots; a long poll gives its slot back while it waits and takes one of a budget of its own, so that
twenty waiting clients never keep out an approval or a revoke. A call takes its slot before its message arrives: a
caller that begins calls and sends nothing fills its own share alone.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum

from services.common.errors import OverloadedError


class Rank(IntEnum):
    """Whose calls still find a place when those of others have taken theirs."""

    ORDINARY = 0
    REVOKING = 1  # a call that takes access away
    FIRST = 2  # a call of the watcher


class Places:
    """A number of places: each caller has a share, and some are kept for higher ranks.

    A caller of rank FIRST has three quarters of all, any other one half. A quarter is kept for calls that revoke and
    for the watcher; half of this quarter for the watcher alone.

    Args:
        count: All places.
        shared: False for one pool of which any caller may have all.
    """

    def __init__(self, count: int, *, shared: bool = True) -> None:
        kept = count // 4 if shared else 0
        share = max(1, count // 2) if shared else count
        self._ceilings = {Rank.ORDINARY: count - kept, Rank.REVOKING: count - kept // 2, Rank.FIRST: count}
        self._shares = {Rank.ORDINARY: share, Rank.REVOKING: share, Rank.FIRST: count - kept}
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()
        self._total = 0

    def take(self, who: str, rank: Rank) -> bool:
        """Take a place for a caller, if there is one; ``give_back`` has to follow."""
        with self._lock:
            if self._total >= self._ceilings[rank] or self._taken[who] >= self._shares[rank]:
                return False
            self._total += 1
            self._taken[who] += 1
            return True

    def give_back(self, who: str) -> None:
        """Free a place of a caller."""
        with self._lock:
            self._total -= 1
            self._taken[who] -= 1
            if not self._taken[who]:
                del self._taken[who]  # a name of a certificate is not kept for ever


class Slot:
    """The place of one call; released once, however often ``release`` is called."""

    def __init__(self, places: Places, who: str, rank: Rank) -> None:
        self._places, self._taken = places, True
        self.who, self.rank = who, rank

    def release(self) -> None:
        """Free the place for another call. Only the thread of the handler calls it."""
        if self._taken:
            self._taken = False
            self._places.give_back(self.who)


_SLOT: ContextVar[Slot | None] = ContextVar("slot", default=None)


class Slots:
    """A number of places for calls; ``shared`` as of ``Places``."""

    def __init__(self, count: int, *, shared: bool = True) -> None:
        self._places = Places(count, shared=shared)

    def take_slot(self, who: str = "", *, rank: Rank = Rank.FIRST) -> Slot:
        """Take a place, which the caller releases.

        Args:
            who: Whose share it is of.
            rank: Which of the kept places the call may have.

        Raises:
            OverloadedError: None is free, or this caller has its share.
        """
        if not self._places.take(who, rank):
            raise OverloadedError("too many calls are under way")
        return Slot(self._places, who, rank)

    @contextmanager
    def taken_slot(self, who: str = "", *, rank: Rank = Rank.FIRST) -> Iterator[None]:
        """Take a place for the time inside; arguments and errors as of ``take_slot``."""
        slot = self.take_slot(who, rank=rank)
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
        self._places = Places(count)
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
        slot = _SLOT.get()
        who, rank = (slot.who, slot.rank) if slot else ("", Rank.FIRST)
        if self.draining or not self._places.take(who, rank):
            yield False
            return
        try:
            if slot:
                slot.release()
            yield True
        finally:
            self._places.give_back(who)
