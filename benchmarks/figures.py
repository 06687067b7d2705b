"""Turning times into figures: percentiles, and the sizes of a run. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Figures = dict[str, float]
"""What a measure found, by key."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done.

    Attributes:
        single: Credentials taken one at a time, for each percentile; of 500, five are above the 99th.
        bursts: Requests approved at once, one burst after the other; two.
        held: Credentials taken and renewed over gRPC.
        levels: Live leases at which the same calls are timed, ascending; three.
        probes: Calls of each kind at each level.
        ttl_s: First TTL of the bulk of leases: what it takes to make them all is less than half of it.
    """

    single: int
    bursts: tuple[int, int]
    kept: int
    levels: tuple[int, int, int]
    probes: int
    ttl_s: int


FULL = Sizes(single=500, bursts=(200, 1000), kept=400, levels=(100, 1000, 10_000), probes=60, ttl_s=1200)
QUICK = Sizes(single=40, bursts=(50, 100), kept=80, levels=(20, 60, 200), probes=20, ttl_s=120)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of the values do not exceed, by the nearest rank.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("nothing was measured")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def p50(values: Sequence[float]) -> float:
    """The median."""
    return percentile(values, 0.5)


def p99(values: Sequence[float]) -> float:
    """What one in a hundred exceeds."""
    return percentile(values, 0.99)


def ms(seconds: float) -> float:
    """Seconds as milliseconds."""
    return seconds * 1000
