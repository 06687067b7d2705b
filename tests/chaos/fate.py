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


class Crashed(BaseException):
    """The process is gone; like SIGKILL, nothing of the product handles it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a life ends: the ``count``-th pass of the point ``name`` (any of the service's if empty), at the latest after ``most`` passes."""

    name: str
    count: int
    most: int

    @classmethod
    def draw(cls, rng: random.Random) -> Plan:
        """A plan by chance: most lives end at a point chosen by name, so that rare ones are met."""
        most, chance = rng.randint(8, 25), rng.random()
        if chance < 0.7:
            return cls(rng.choice(crash.POINTS), rng.choice((1, 1, 2, 3)), most)
        if chance < 0.85:
            return cls(rng.choice(LEDGER_POINTS), rng.randint(1, 60), most)
        return cls("", rng.randint(1, most), most)


class Fate:
    """One life of the process; safe for threads."""

    def __init__(self, plan: Plan | None) -> None:
        """``None`` plans no death."""
        self._plan = plan
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
            own = self._passes.total() - sum(self._passes[each] for each in LEDGER_POINTS)
            counted = self._passes[name] if self._plan.name == name else 0 if self._plan.name or name in LEDGER_POINTS else own
            if counted == self._plan.count or own >= self._plan.most:
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
