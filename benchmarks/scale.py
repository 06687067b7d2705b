"""What grows with the number of live leases: calls, memory, a restart, and first issues while all leases renew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.clients import together
from benchmarks.ending import deletions
from benchmarks.figures import Figures, Sizes, ms, p50, p99
from benchmarks.grpc_callers import GrpcCaller, grpc_caller
from benchmarks.issue import approvals, warm_up
from benchmarks.place import MEMBER, Place
from benchmarks.processes import rss_mb
from benchmarks.progress import say
from benchmarks.waiting import until

_BATCH = 500
_CLIENTS = 8
_NOMINAL = (100, 1000, 10_000)
_RENEWED_BEFORE = 5
"""One in so many leases is renewed before it counts as busy: the rate rises for a tenth of the TTL, over which the
jitter spreads the first of them, and the last ones are still far off then."""
_MEASURED = ("access", "watcher")


def measure(place: Place, sizes: Sizes) -> Iterator[Figures]:
    """Fill up level by level; at the last one restart, and take credentials while the renewals are under way."""
    warm_up(place)
    say("  taking credentials while nothing renews")
    idle = approvals(place, "idle", sizes.single)[0].written
    place.space.clear()
    yield from _levels(place, sizes)
    memory = [_memory(place)]
    yield memory[0] | {key.replace("_mb", "_before_restart_mb"): value for key, value in memory[0].items()}
    yield from _restart(place)
    memory.append(_memory(place))
    yield _worst(memory) | {f"{name}_rss_restart_peak_mb": rss_mb(place.stack, name, peak=True) for name in _MEASURED}
    yield _busy(place, sizes, idle=idle)
    memory.append(_memory(place))
    yield _worst(memory)
    yield {"delete_per_s": _deleted(place)}


def _levels(place: Place, sizes: Sizes) -> Iterator[Figures]:
    """Make leases, and time the same calls at each level."""
    found: Figures = {}
    filling_s = 0.0
    with grpc_caller(place) as kept:
        for nominal, before, level in zip(_NOMINAL, (0, *sizes.levels), sizes.levels, strict=False):
            filling_s += _fill(place, before, level)
            found |= _probes(place, kept, level, nominal=nominal, count=sizes.probes)
            yield found
    yield _growth(found) | {"create_to_secret_per_s": sizes.levels[-1] / filling_s}


def _memory(place: Place) -> Figures:
    return {f"{name}_rss_mb": rss_mb(place.stack, name) for name in _MEASURED}


def _worst(memory: list[Figures]) -> Figures:
    return {key: max(each[key] for each in memory) for key in memory[0]}


def _fill(place: Place, start: int, end: int) -> float:
    """Have so many more live leases; answers the seconds from the first create to the last Secret."""
    began = time.monotonic()
    took = 0.0
    for first in range(start, end, _BATCH):
        names = [f"fill-{number}" for number in range(first, min(first + _BATCH, end))]
        bodies = place.space.create(MEMBER, names)
        with place.space.secrets_watched() as secrets:
            place.space.approve_all(bodies, clients=_CLIENTS)
            secrets.wait(names, timeout_s=300)
        done, took = first + len(names), time.monotonic() - began
        say(f"  {done} of {end} live, {(done - start) / took:.0f} a second from create to Secret")
    place.settled.wait(
        timeout_s=900
    )  # acknowledgements, Roles and status of the last thousands come after their Secrets
    return took


def _deleted(place: Place) -> float:
    """Delete some at once and wait until they are gone, by the second; the others go with the stack."""
    say("  deleting some")
    names = [item["metadata"]["name"] for item in place.space.requests()][:_BATCH]
    with place.space.requests_watched() as requests:
        began = time.monotonic()
        together(_CLIENTS, place.space.delete, names)
        requests.wait(names, timeout_s=300, gone=True)
    return len(names) / (time.monotonic() - began)


def _probes(place: Place, kept: GrpcCaller, level: int, *, nominal: int, count: int) -> Figures:
    """Issue, renew and revoke one at a time, and the same raw."""
    say(f"  calls at {level} live")
    times, names = approvals(place, f"probe-{level}", count)
    revoke = p50(deletions(place, names)[0])
    raw_issue, leases = place.raw.singles(MEMBER, count)
    raw_renew = [_timed(partial(place.raw.renew, lease)) for lease in leases]
    raw_revoke = place.raw.end(leases)
    mine = kept.create()
    kept.approve(mine)
    kept.take(mine)
    renew = p50([_timed(lambda: kept.renew(mine)) for _ in range(count)])
    kept.release(mine)
    figures = {"issue": p50(times.written), "renew": renew, "revoke": revoke}
    raw = {"issue": p50(raw_issue), "renew": p50(raw_renew), "revoke": p50(raw_revoke)}
    return {f"at_{nominal}_{call}_ms_p50": ms(s) for call, s in figures.items()} | {
        f"at_{nominal}_raw_{call}_ms_p50": ms(s) for call, s in raw.items()
    }


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _growth(found: Figures) -> Figures:
    """The worst of the three calls; and raw Vault's own growth, which is in ours."""
    first, last = _NOMINAL[0], _NOMINAL[-1]

    def worst(prefix: str) -> float:
        calls = ("issue", "renew", "revoke")
        return max(
            found[f"at_{last}_{prefix}{call}_ms_p50"] / found[f"at_{first}_{prefix}{call}_ms_p50"] for call in calls
        )

    return {"cost_10000_vs_100_leases": worst(""), "raw_cost_10000_vs_100_leases": worst("raw_")}


def _restart(place: Place) -> Iterator[Figures]:
    """Restart access and watcher; count what Vault issued and what Kubernetes wrote again."""
    say("  restarting access and watcher")
    leases, versions = place.leases(MEMBER), place.space.secret_versions()
    processes = [place.stack.process(name) for name in _MEASURED]
    for process in processes:
        process.terminate()
    began = time.monotonic()
    for process in processes:
        process.start()
    for process in processes:
        process.wait_ready(timeout_s=120)
    ready = time.monotonic()
    say(f"  ready after {ready - began:.1f} s")
    yield {"restart_10000_s": ready - began}
    place.settled.wait(timeout_s=900)  # a watcher that is ready has queued all that it knows
    settled = time.monotonic()
    reissued = len(place.leases(MEMBER) - leases)
    written = sum(versions.get(name) != version for name, version in place.space.secret_versions().items())
    yield {"restart_10000_settled_s": settled - began, "restart_reissues": reissued + written}


def _busy(place: Place, sizes: Sizes, *, idle: list[float]) -> Figures:
    """Take credentials while the leases renew, as many as while nothing did."""
    say("  waiting for the leases' half time, when they renew")
    began, enough = time.time(), sizes.levels[-1] // _RENEWED_BEFORE
    until(lambda: place.settled.renewed(since=began) >= enough, timeout_s=sizes.ttl_s, what="renewals", every_s=0.5)
    say(f"  {enough} were renewed; taking credentials while they renew")
    began = time.time()
    busy = approvals(place, "busy", sizes.single)[0].written
    renewed, took = place.settled.renewed(since=began), time.time() - began
    return {
        "approve_to_secret_p99_busy_vs_idle": p99(busy) / p99(idle),
        "approve_to_secret_busy_ms_p99": ms(p99(busy)),
        "approve_to_secret_idle_ms_p99": ms(p99(idle)),
        "approve_to_secret_busy_ms_p50": ms(p50(busy)),
        "renewals_per_s_while_busy": renewed / took,
    }
