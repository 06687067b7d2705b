"""From a decision in Kubernetes to a readable Secret, one at a time, in turns with raw Vault."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from benchmarks.figures import Figures, Sizes, ms, p50, p99
from benchmarks.place import MEMBER, Place

_TURNS = 5
_WARM = 20
_BETWEEN_S = 0.015
"""Role, RoleBinding, status and Event are written after the Secret: the next one begins when that is done."""


@dataclass(slots=True)
class Times:
    """Seconds of each credential.

    Attributes:
        written: From the answer to the write of the decision.
        sent: From the sending of that write.
        windows: When each was sent and its Secret seen, by ``perf_counter``.
    """

    written: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    windows: list[tuple[float, float]] = field(default_factory=list)

    @property
    def pauses(self) -> list[float]:
        """Seconds from each Secret to the next decision."""
        return [sent - seen for (_, seen), (sent, _) in pairwise(self.windows)]


def approvals(place: Place, prefix: str, count: int) -> tuple[Times, list[str]]:
    """Approve requests one at a time; answers the times and the names."""
    names = [f"{prefix}-{number}" for number in range(count)]
    space = place.space
    bodies, times = space.create(MEMBER, names), Times()
    with space.secrets_watched() as secrets, space.requests_watched() as settled, space.readers_watched() as readers:
        for name in names:
            sent, written = space.approve(name, bodies[name])
            secrets.wait([name], timeout_s=30)
            times.written.append(secrets.came[name] - written)
            times.sent.append(secrets.came[name] - sent)
            times.windows.append((sent, secrets.came[name]))
            settled.wait([name], timeout_s=30)
            readers.wait([name], timeout_s=30)
            time.sleep(_BETWEEN_S)
    return times, names


def warm_up(place: Place) -> None:
    """Take some credentials of either kind that do not count: whatever is first makes connections and fills caches."""
    place.raw.clear(place.raw.singles(MEMBER, _WARM)[1])
    approvals(place, "warm", _WARM)


def measure(place: Place, sizes: Sizes) -> Iterator[Figures]:
    """Approve to Secret over raw ``creds``."""
    warm_up(place)
    each, leases = sizes.single // _TURNS, list[str]()
    ours, pauses, raw, own, paced = Times(), list[float](), list[float](), list[float](), list[float]()

    def note(times: list[float], taken: tuple[list[float], list[str]]) -> None:
        times += taken[0]
        leases.extend(taken[1])

    for turn in range(_TURNS):
        note(raw, place.raw.singles(MEMBER, each))
        note(own, place.raw.singles_with_tokens(MEMBER, each))
        times, _ = approvals(place, f"one-{turn}", each)
        ours.written += times.written
        ours.sent += times.sent
        pauses += times.pauses
        note(paced, place.raw.singles(MEMBER, each, pause_s=p50(times.pauses)))
    place.raw.clear(leases)
    place.space.clear()
    yield {
        "approve_to_secret_vs_raw_creds_p50": p50(ours.written) / p50(raw),
        "approve_to_secret_vs_raw_creds_p99": p99(ours.written) / p99(raw),
        "approve_to_secret_ms_p50": ms(p50(ours.written)),
        "approve_to_secret_ms_p99": ms(p99(ours.written)),
        "approve_sent_to_secret_ms_p50": ms(p50(ours.sent)),
        "approve_pause_ms_p50": ms(p50(pauses)),
        "raw_creds_ms_p50": ms(p50(raw)),
        "raw_creds_ms_p99": ms(p99(raw)),
        "raw_creds_paced_ms_p50": ms(p50(paced)),
        "raw_creds_paced_ms_p99": ms(p99(paced)),
        "raw_creds_own_token_vs_raw_creds_p50": p50(own) / p50(raw),
    }
