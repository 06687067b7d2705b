"""When the process "dies" in the quick path: a BaseException at a chosen point, after which no thread of it reaches anything any more."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass

from services.access import crash

LEDGER_POINTS = ("ledger.begin", "ledger.commit", "ledger.committed")
"""Before a transaction that writes, before its commit, and after it, when nobody has heard of it yet."""

POINTS = (*crash.POINTS, *LEDGER_POINTS)


RARE = tuple(name for name in crash.POINTS if name.startswith(("renew", "rotate", "end.", "endt", "ack", "claim.l", "claim.re", "undo.")))
"""Points that a short life seldom gets to."""


class Crashed(BaseException):
    """The process is gone; like SIGKILL, nothing of the product handles it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a life ends: the ``count``-th pass of any of ``names``, at the latest after ``most`` passes of the service's points."""

    names: frozenset[str]
    count: int
    most: int

    @classmethod
    def draw(cls, rng: random.Random) -> Plan:
        """A plan by chance: most lives end at one of a few points, so that rare ones are met, the others at any."""
        chance = rng.random()
        if chance < 0.75:
            names = rng.sample(crash.POINTS, rng.choice((1, 2, 4, 7)))
            return cls(frozenset(names), rng.choice((1, 1, 1, 2)), rng.randint(8, 24))
        if chance < 0.88:
            return cls(frozenset({rng.choice(LEDGER_POINTS)}), rng.randint(1, 24), rng.randint(6, 15))
        most = rng.randint(3, 15)
        return cls(frozenset(crash.POINTS), rng.randint(1, most), most)

    @classmethod
    def draw_long(cls, rng: random.Random) -> Plan:
        """A plan for a life that is long enough for what takes time: undos end, credentials come into use, are renewed and replaced."""
        return cls(frozenset(rng.sample(RARE, 3)), rng.choice((1, 1, 2)), 400)

    def meets(self, *prefixes: str) -> bool:
        """Whether a point with such a name is among few."""
        return len(self.names) < 10 and any(name.startswith(prefixes) for name in self.names)


class Fate:
    """One life of the process; safe for threads."""

    def __init__(self, plan: Plan | None) -> None:
        """``None`` plans no death."""
        self.plan = self._plan = plan
        self._lock = threading.Lock()
        self._passes: Counter[str] = Counter()
        self.dead = threading.Event()
        self.at = ""

    def pass_by(self, name: str) -> None:
        """Pass a point; for ``services.access.crash.install``.

        Raises:
            Crashed: The process dies here, or has died already.
        """
        with self._lock:
            self.check()
            if self._plan is None:
                return
            self._passes[name] += 1
            met = sum(self._passes[each] for each in self._plan.names)
            own = self._passes.total() - sum(self._passes[each] for each in LEDGER_POINTS)
            if (name in self._plan.names and met == self._plan.count) or own >= self._plan.most:
                self.at = name
                self.dead.set()
        self.check()

    def check(self) -> None:
        """What every call to the outside asks first and last.

        Raises:
            Crashed: The process has died.
        """
        if self.dead.is_set():
            raise Crashed(self.at)

    def die(self, at: str) -> None:
        """End the process from outside, at no point of its own."""
        with self._lock:
            if not self.dead.is_set():
                self.at = at
                self.dead.set()
