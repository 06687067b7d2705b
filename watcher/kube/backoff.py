"""Growing pauses with jitter between tries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Length of the pause after each failure in a row.

    Attributes:
        base_s: Seconds after the first failure.
        cap_s: Longest pause in seconds.
        random: A number from 0 to 1; a pause takes half of its length to all of it, so that many keys do not come back
            at once.
    """

    base_s: float
    cap_s: float
    random: Callable[[], float]

    def pause_s(self, failures: int) -> float:
        """Seconds to pause after the given number of failures in a row."""
        whole = min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 32))
        return whole * (0.5 + self.random() / 2)
