"""A scene: Vault is sealed for a third of the TTL of 200 leases, just when all of them have to be renewed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from leasegate.access.v1 import lease_pb2
from leasegate.access.v1 import operator_service_pb2 as operator
from tests.eventually import eventually
from tests.integration.access_world import OPERATOR, Callee, World
from tests.integration.lease_world import Keeper, audited, database_users, many, offer, seconds, serving, vault_role
from tests.servers import Servers

LEASES, TTL_S, RATE = 200, 60, 60
SEALED_AT_S, SEALED_S = 22, TTL_S // 3
"""The first is to be renewed 30 to 36 s after its birth."""


@dataclass
class Outage:
    """What was there before and after.

    Attributes:
        before: Users and leases before Vault was sealed.
        after: The same when every lease was renewed.
        claims: Credentials that were claimed all in all.
        peak: Most renewals in any one second after the return.
        renewals: Renewals that Vault was asked for after the return.
    """

    before: tuple[set[str], set[str]]
    after: tuple[set[str], set[str]]
    claims: int
    peak: int
    renewals: int


def sealed(made: World) -> Outage:
    servers = made.servers
    with serving(made, max_renewals_per_second=RATE) as callee, Keeper(made, callee) as keeper:
        offer(made, callee, "many", ttl_s=TTL_S, max_ttl_s=86400)
        kept = [keeper.keep(each) for each in many(callee, "many", LEASES)]
        born, before = min(seconds(each.credential.lease.issue_time) for each in kept), there(made)
        until(born + SEALED_AT_S)
        servers.bao.seal()
        until(time.time() + SEALED_S)
        servers.bao.unseal()
        back = time.time()
        eventually(
            lambda: all(seconds(each.renew_time) > back for each in live(callee)),
            timeout_s=60,
            every_s=0.5,
            what="renewals",
        )
        times = list(renewals(servers, since=back))
        return Outage(before, there(made), sum(each.claims for each in kept), peak(times), len(times))


def until(at: float) -> None:
    """Wait for a moment."""
    eventually(lambda: time.time() >= at, timeout_s=60)


def there(made: World) -> tuple[set[str], set[str]]:
    return database_users(made, "many"), made.leases(vault_role("many"))


def live(callee: Callee) -> list[lease_pb2.Lease]:
    """The leases in use."""
    asked = operator.ListLeasesRequest(state=lease_pb2.LEASE_STATE_ACTIVE, page_size=500)
    found = list(callee.as_(OPERATOR).operator.ListLeases(asked).leases)
    assert len(found) == LEASES
    return found


def renewals(servers: Servers, *, since: float) -> Iterator[float]:
    """When Vault was asked for a renewal, as its audit log says."""
    return (at for at, kind, _ in audited(servers, "sys/leases/renew/") if kind == "request" and at > since)


def peak(times: list[float]) -> int:
    """Most in any one second."""
    window, most = deque[float](), 0
    for at in sorted(times):
        window.append(at)
        while window[0] <= at - 1:
            window.popleft()
        most = max(most, len(window))
    return most
