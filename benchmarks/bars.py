"""The keys that have a bar, what each one is, and Vault Secrets Operator's figure in the same ratio. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.figures import Figures


@dataclass(frozen=True, slots=True)
class Bar:
    """One key.

    Attributes:
        what: In words.
        bar: The bar.
        least: Whether more is better.
        peer: Vault Secrets Operator in the same ratio; None where it has no such thing.
    """

    what: str
    bar: float
    least: bool = False
    peer: float | None = None


BARS: Mapping[str, Bar] = {
    "approve_to_secret_vs_raw_creds_p50": Bar(
        "decision written to Secret readable, one at a time, over raw creds, p50", 1.7, peer=1.7
    ),
    "approve_to_secret_vs_raw_creds_p99": Bar("the same, p99", 2, peer=1.6),
    "burst_200_vs_raw": Bar("200 approved at once to the last Secret, over raw with 8 clients", 2, peer=3.1),
    "burst_1000_vs_raw": Bar("1,000 of them", 2, peer=3.3),
    "delete_to_user_dropped_vs_raw_revoke_p50": Bar(
        "delete answered to user dropped, over raw revoke, p50", 2, peer=1.4
    ),
    "delete_to_object_gone_ms_p50": Bar("delete answered to object gone, ms, p50", 15, peer=12),
    "claim_vs_raw_rate": Bar("credentials a second over gRPC, create to claim, 8 clients, over raw", 0.8, least=True),
    "renew_vs_raw_rate": Bar("renewals a second over gRPC, 8 clients, over raw", 0.7, least=True),
    "approve_to_secret_p99_busy_vs_idle": Bar("p99 of approve to Secret while 10,000 leases renew, over idle", 2),
    "cost_10000_vs_100_leases": Bar("worst of issue, renew, revoke with 10,000 live leases, over 100", 1.2),
    "restart_10000_s": Bar("restart with 10,000 live leases until ready, s", 10),
    "restart_reissues": Bar("new credentials and Secret writes of that restart", 0),
    "access_rss_mb": Bar("memory of access at 10,000 live leases, MiB", 200, peer=99),
    "watcher_rss_mb": Bar("memory of the watcher there, MiB", 100),
    "leases_per_request": Bar("Vault leases over requests after the bursts", 1, peer=2),
}

HOW_TO_READ = """\
How to read it: everything was measured in this one run, on these servers, beside raw Vault calls with the same SQL
(group membership, as GRANT ... ON ALL TABLES slows with the number of database users). Times vary with what else the
machine does; ratios much less. "VSO" is Vault Secrets Operator in the same ratio, which neither approves nor journals
(its memory is at 1,000 objects). "miss" is a bar that was not met. raw_creds_own_token_vs_raw_creds_p50 is raw Vault
where each credential has an orphan token of its own, as in Leasegate (a lease dies with the token that asked for it):
no approval can take less. raw_creds_paced_ms_p50 is raw Vault that pauses before each call for approve_pause_ms_p50,
as long as Leasegate does from a Secret to the next decision (it writes Role, RoleBinding and status meanwhile). The
bars compare with raw calls back to back, whose caches are warm; this says how much of a miss is the pause's. Beside
raw Vault there are the writes of decision and Secret to Kubernetes, their two watches, and two commits: `make profile`
says how long each takes. Claims and renewals over gRPC are limited by the processor time of access and of the client,
both Python, beside Vault's on the same two cores."""


def table(found: Figures, *, quick: bool) -> Iterator[str]:
    """The keys with their bars, then all else, a line each."""
    yield f"{'key':44} {'figure':>9} {'bar':>8} {'VSO':>6}"
    for key, bar in BARS.items():
        if key in found:
            met = found[key] >= bar.bar if bar.least else found[key] <= bar.bar
            peer = "-" if bar.peer is None else f"{bar.peer:g}"
            sign = ">=" if bar.least else "<="
            limit, verdict = f"{sign}{bar.bar:g}", "" if met else "miss"
            yield f"{key:44} {found[key]:9.2f} {limit:>8} {peer:>6} {verdict:5} {bar.what}"
    yield ""
    yield from (f"{key:58} {value:12.2f}" for key, value in found.items() if key not in BARS)
    yield ""
    yield HOW_TO_READ
    if quick:
        yield "This was --quick: fewer of everything (10,000 is 200 here). No figure stands for its key."
        yield "latest.json is unchanged."
