"""From a decision in Kubernetes to a readable Secret, one at a time, in turns with raw Vault."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from benchmarks.figures import Figures, Sizes, ms, p50, p99
from benchmarks.place import MEMBER, Place

_TURNS = 5
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


def measure(place: Place, sizes: Sizes) -> Figures:
    """Approve to Secret over raw ``creds``."""
    ours, raw, own, leases = Times(), list[float](), list[float](), list[str]()
    place.raw.clear(place.raw.singles(MEMBER, 5)[1])
    for turn in range(_TURNS):
        taken, made = place.raw.singles(MEMBER, sizes.single // _TURNS)
        raw, leases = raw + taken, leases + made
        taken, made = place.raw.singles_with_tokens(MEMBER, sizes.single // _TURNS)
        own, leases = own + taken, leases + made
        times, _ = approvals(place, f"one-{turn}", sizes.single // _TURNS)
        ours.written += times.written
        ours.sent += times.sent
    place.raw.clear(leases)
    place.space.clear()
    return {
        "approve_to_secret_vs_raw_creds_p50": p50(ours.written) / p50(raw),
        "approve_to_secret_vs_raw_creds_p99": p99(ours.written) / p99(raw),
        "approve_to_secret_ms_p50": ms(p50(ours.written)),
        "approve_to_secret_ms_p99": ms(p99(ours.written)),
        "approve_sent_to_secret_ms_p50": ms(p50(ours.sent)),
        "raw_creds_ms_p50": ms(p50(raw)),
        "raw_creds_ms_p99": ms(p99(raw)),
        "raw_creds_own_token_vs_raw_creds_p50": p50(own) / p50(raw),
    }
