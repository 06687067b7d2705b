"""The clock of the access service: real time, and leaps where no read of credentials is under way."""

from __future__ import annotations

import threading
import time


class LeapingClock:
    """Seconds since 1970, ahead of the real ones by what was leapt; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ahead_s = 0.0
        self._leaps: list[tuple[float, float]] = []  # until when it was ahead, and how much

    def __call__(self) -> float:
        """The time."""
        return time.time() + self._ahead_s

    def leap(self, seconds: float) -> None:
        """Go forward."""
        with self._lock:
            self._leaps.append((self(), self._ahead_s))
            self._ahead_s += max(seconds, 0.0)

    def real(self, counts: float) -> float:
        """The real time at which it told a time."""
        with self._lock:
            return counts - next((ahead_s for until, ahead_s in self._leaps if counts <= until), self._ahead_s)
