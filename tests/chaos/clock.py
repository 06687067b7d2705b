"""The time that the access service is told: real time, and leaps where no read is under way that an adoption has to wait for."""

from __future__ import annotations

import threading
import time


class LeapingClock:
    """Seconds since 1970, ahead of the real ones by what was leapt; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ahead_s = 0.0

    def __call__(self) -> float:
        """The time."""
        return time.time() + self._ahead_s

    def leap(self, seconds: float) -> None:
        """Go forward."""
        with self._lock:
            self._ahead_s += max(seconds, 0.0)
