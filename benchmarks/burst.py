"""Measures many approvals at once until the last Secret, beside raw Vault with eight clients, and the leases made."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figures import Figures, Sizes, ms
from benchmarks.place import MEMBER, Place
from benchmarks.processes import cpu_s

_CLIENTS = 8


def burst(place: Place, prefix: str, count: int) -> tuple[float, dict[str, float]]:
    """Approve so many at once; answers the seconds to the last Secret and the processor time of each process."""
    names = [f"{prefix}-{number}" for number in range(count)]
    bodies = place.space.create(MEMBER, names)
    with place.space.secrets_watched() as secrets:
        place.settled.wait()
        before = cpu_s(place.stack)
        began = place.space.approve_all(bodies, clients=_CLIENTS)
        secrets.wait(names, timeout_s=60 + count * 0.2)
        after = cpu_s(place.stack)
        took = max(secrets.came[name] for name in names) - began
    return took, {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}


def measure(place: Place, sizes: Sizes) -> Iterator[Figures]:
    """Two bursts over raw Vault, and leases over requests after them."""
    for nominal, count in zip((200, 1000), sizes.bursts, strict=True):
        raw_s, leases = place.raw.burst(MEMBER, count)
        place.raw.clear(leases)
        ours_s, cpu = burst(place, f"burst-{count}", count)
        each = {name: ms(seconds) / count for name, seconds in cpu.items()}
        yield {
            f"burst_{nominal}_vs_raw": ours_s / raw_s,
            f"burst_{nominal}_per_s": count / ours_s,
            f"raw_burst_{nominal}_per_s": count / raw_s,
            **{f"burst_{nominal}_cpu_ms_each_{name}": spent for name, spent in each.items() if spent >= 0.1},
        }
    place.settled.wait()
    yield {"leases_per_request": len(place.leases(MEMBER)) / len(place.space.requests())}
    place.space.clear()
