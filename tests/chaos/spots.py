"""Which process is to be killed where next: unmet points first, so that a run of full size meets every one of them."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from services.access.domain import failpoints as access_points
from watcher.reconcilers import failpoints as watcher_points

_MANY = "reassess.step"
"""Needs a changed role with many requests, which the quick path has (``tests.chaos.quick``)."""
POINTS = {
    "access": tuple(point for point in access_points.ALL_POINTS if point != _MANY),
    "watcher": watcher_points.POINTS,
}
VARIABLES = {"access": access_points.VARIABLE, "watcher": watcher_points.VARIABLE}
AT_ANY_MOMENT = "any moment"
SECOND = ("recover.token", "recover.recovery", "recover.outdated", "recover.read", "recover.lease", "recover.dropped")
"""An undo passes these twice: in its first recovery and in its second."""
AIMS = {
    "access": (*POINTS["access"], *(f"{point}:2" for point in SECOND)),
    "watcher": POINTS["watcher"],
}


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a process is to die.

    Attributes:
        name: The point; empty for any moment.
        count: The how many-th pass.
        doubt: Whether the process is killed while it reads first, so that there is something to be undone.
        patience_s: How long it may take, while things happen that lead there.
    """

    name: str
    count: int
    doubt: bool
    patience_s: float

    @property
    def variable(self) -> str:
        """What the process' variable says."""
        return f"{self.name}:{self.count}" if self.name else ""


class Spots:
    """What is to be aimed at. Safe for threads.

    Attributes:
        met: How often a process died where, by process and point.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng, self._lock = rng, threading.Lock()
        self.met: Counter[str] = Counter()
        self._left = {name: rng.sample(aims, len(aims)) for name, aims in AIMS.items()}

    def next(self, process: str) -> Spot:
        """Where a process is to die next: a failpoint not met yet; one time in five, or after all, anywhere."""
        with self._lock:
            left = self._left[process]
            if self._rng.random() < 0.2:
                return Spot("", 0, False, self._rng.uniform(1.0, 4.0))
            if not left:
                aim = self._rng.choice(AIMS[process])
            else:
                aim = left.pop(0)
                left.append(aim)  # it is tried again when its turn comes, until it is met
        return self._spot(aim)

    def _spot(self, aim: str) -> Spot:
        name, _, second = aim.partition(":")
        if name in access_points.LEDGER_POINTS:
            return Spot(name, self._rng.randint(8, 60), False, 10.0)
        if name.startswith("recover."):
            return Spot(name, 2 if second else 1, True, 25.0)
        return Spot(name, 1, False, 40.0 if name.startswith(("renew.", "rotate.", "claim.re")) else 12.0)

    def missing(self, process: str) -> int:
        """How many aims of a process were not met yet."""
        with self._lock:
            return len(self._left[process])

    def died(self, process: str, spot: Spot | None) -> None:
        """A process died at a spot; None for any moment."""
        with self._lock:
            self.met[f"{process} {spot.name if spot and spot.name else AT_ANY_MOMENT}"] += 1
            if spot and spot.name:
                aim = f"{spot.name}:2" if spot.count == 2 and spot.name in SECOND else spot.name
                self._left[process] = [each for each in self._left[process] if each != aim]


def never(met: Counter[str]) -> Sequence[str]:
    """The points at which no process died."""
    return [
        f"{process} {name}" for process, names in POINTS.items() for name in names if f"{process} {name}" not in met
    ]
