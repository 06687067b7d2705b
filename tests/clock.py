"""Time that stands still until a test moves it on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Clock:
    """Seconds as the test says.

    Attributes:
        now: What it answers.
    """

    now: float = 1000.0

    def __call__(self) -> float:
        """Answer ``now``."""
        return self.now
