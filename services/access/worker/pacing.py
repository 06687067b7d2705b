"""The renew rate: how many renewals begin in a second at most, so that a Vault that comes back is not asked for all that waited at once."""

from __future__ import annotations

import time
from collections.abc import Callable

_EVENED_OUT_S = 0.1
"""A worker that wakes up late may catch up on so much, so that the rate is reached."""
_LEAST_WAIT_S = 0.02


class RateLimiter:
    """Says when the next one may begin. For one thread at a time: its user has the lock."""

    def __init__(self, per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing has begun.

        Args:
            per_s: How many may begin in a second; 0 for no limit.
            clock: Monotonic seconds.
        """
        self._every_s = 1 / per_s if per_s else 0.0
        self._clock, self._next = clock, 0.0

    def wait_s(self) -> float:
        """How long to wait until the next one may begin; 0 for not at all. Never so short that waiting itself is work."""
        left = self._next - self._clock()
        return max(left, _LEAST_WAIT_S) if left > 0 else 0.0

    def begin(self) -> None:
        """One begins now."""
        self._next = max(self._next, self._clock() - _EVENED_OUT_S) + self._every_s
