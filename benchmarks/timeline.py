"""Where a span of time went, by process and call: each moment counts for the innermost call under way. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Span:
    """One call.

    Attributes:
        process: Who made or answered it.
        name: What it was.
        began: Seconds since 1970.
        ended: The same.
    """

    process: str
    name: str
    began: float
    ended: float

    def __str__(self) -> str:
        return f"{self.process}: {self.name}"


def attribute(spans: Sequence[Span], began: float, ended: float) -> dict[str, float]:
    """Divide the time from ``began`` to ``ended`` among calls.

    Of the calls that are under way at a moment the one that began last has it. A moment of none is on the way after the
    call that was the last to end: the operating system, the network and whatever is not traced (kube-apiserver's watch,
    above all).
    """
    inside = [span for span in spans if span.ended > began and span.began < ended]
    edges = sorted(
        {began, ended, *(edge for span in inside for edge in (span.began, span.ended) if began < edge < ended)}
    )
    shares: dict[str, float] = defaultdict(float)
    for start, stop in pairwise(edges):
        shares[_owner(inside, start, stop)] += stop - start
    return dict(shares)


def _owner(spans: Sequence[Span], start: float, stop: float) -> str:
    active = [span for span in spans if span.began <= start and span.ended >= stop]
    if active:
        return str(max(active, key=lambda span: span.began))
    before = [span for span in spans if span.ended <= start]
    return f"on the way after {max(before, key=lambda span: span.ended)}" if before else "on the way at the beginning"


def mean(shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each share, the largest first."""
    names = {name for each in shares for name in each}
    means = {name: sum(each.get(name, 0.0) for each in shares) / len(shares) for name in names}
    return dict(sorted(means.items(), key=lambda item: -item[1]))
