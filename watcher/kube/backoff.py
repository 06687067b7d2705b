"""Growing pauses with jitter, for whatever is tried again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to pause after each failure in a row.

    Attributes:
        base_s: Seconds after the first failure.
        cap_s: Longest pause in seconds.
        random: A number from 0 to 1; a pause is between half of its length and the whole, so that many do not come back
            at once.
    """

    base_s: float
    cap_s: float
    random: Callable[[], float]

    def pause_s(self, failures: int) -> float:
        """Seconds to pause after so many failures in a row, the first being 1."""
        whole = min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 32))
        return whole * (0.5 + self.random() / 2)
