"""The renewal rate: how many renewals begin in a second, so that a Vault that comes back is not flooded."""

from __future__ import annotations

import time
from collections.abc import Callable

_EVENED_OUT_S = 0.1
"""How much a worker that wakes up late may catch up, so that the rate is reached."""
_LEAST_WAIT_S = 0.02


class RateLimiter:
    """Limits how many pieces of work begin in a second. For one thread at a time: the caller has the lock."""

    def __init__(self, per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing has begun yet.

        Args:
            per_s: How many may begin in a second; 0 for no limit.
            clock: Monotonic seconds.
        """
        self._every_s = 1 / per_s if per_s else 0.0
        self._clock, self._next = clock, 0.0

    def wait_s(self) -> float:
        """Seconds until the next one may begin; 0 for now. Never so short that waiting itself is work."""
        left = self._next - self._clock()
        return max(left, _LEAST_WAIT_S) if left > 0 else 0.0

    def count_begun(self) -> None:
        """Count one that begins now."""
        self._next = max(self._next, self._clock() - _EVENED_OUT_S) + self._every_s
