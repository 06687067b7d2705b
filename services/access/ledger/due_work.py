"""Finds the work that is due. The queue is the ledger's rows themselves, so that it outlives the process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa

from services.access.domain.models import Priority
from services.access.ledger.db.database import Tx
from services.access.ledger.db.query import Query
from services.access.ledger.db.schema import access_requests, attempts, vault_targets


class _Due(NamedTuple):
    id: str
    tenant: str
    ends_at: float | None
    lease_ttl_s: float


URGENT_SHARE, TOO_LATE_SHARE = 1 / 4, 1 / 20
"""A renewal with less than the first share of its TTL left precedes all other work; with less than the second, the
rate limit does not apply to it.
"""

_QUEUE_FRESH_S, _QUEUE_SIZE = 0.5, 200

_a = attempts.c
_NOW, _COUNT = sa.bindparam("now", type_=sa.Float), sa.bindparam("count", type_=sa.Integer)
_DUE = (
    sa.select(_a.id, _a.tenant, _a.ends_at, _a.lease_ttl_s)
    .where(_a.priority == sa.bindparam("priority"), _a.due_at <= _NOW)
    .limit(_COUNT)
)
_DUE_LONGEST, _ENDING_FIRST = _DUE.order_by(_a.due_at), _DUE.order_by(_a.ends_at)
_DUE_LONGEST_ANYWHERE = Query(_Due, _DUE_LONGEST)
_EXPIRED = (
    sa.select(access_requests.c.uid)
    .where(access_requests.c.due_at <= _NOW)
    .order_by(access_requests.c.due_at)
    .limit(_COUNT)
)


def _earliest(after: sa.ColumnElement[float]) -> sa.Select[Any]:
    """Build the query of when work is due first after a time: of each priority, and of access requests.

    Each of its columns is one step into an index, however long the queue is and however much has no time.
    """
    of_priority = (sa.select(sa.func.min(_a.due_at)).where(_a.priority == each, _a.due_at > after) for each in Priority)
    expiry = sa.select(sa.func.min(access_requests.c.due_at)).where(access_requests.c.due_at > after)
    earliest = (*of_priority, expiry)
    return sa.select(*(query.scalar_subquery().label(f"at_{n}") for n, query in enumerate(earliest)))


_EARLIEST, _NEXT = (Query(lambda **at: tuple(at.values()), _earliest(after)) for after in (sa.literal(0.0), _NOW))


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work.

    Attributes:
        attempt: The attempt to work on.
        request: The access request whose time is over, if ``attempt`` is empty.
        renewal: Whether it counts as a renewal.
        tenant: Whose it is; empty for an access request.
    """

    attempt: str
    request: str
    renewal: bool = False
    tenant: str = field(default="", compare=False)


class RenewalQueue:
    """The renewals that are due, ordered by the end of their lease, however long each has been due.

    They are read from the ledger in one query and kept for a moment: sorting thousands of them for each renewal would
    cost more than the renewals do.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._found: list[_Due] = []
        self._read_at, self._without = 0.0, frozenset[tuple[str, str]]()

    def first(
        self,
        tx: Tx,
        *,
        busy: Collection[str],
        without: Collection[tuple[str, str]],
        full: Collection[str] = (),
    ) -> _Due | None:
        """Return the first one that no worker is at and whose tenant is not full; it stays in the queue."""
        fresh = 0 <= tx.now - self._read_at < _QUEUE_FRESH_S and self._without == frozenset(without)
        if not fresh or not self._first_idle(busy, ()):
            self._found = _due(tx, _ENDING_FIRST, Priority.RENEW, without, count=_QUEUE_SIZE + len(busy))[::-1]
            self._read_at, self._without = tx.now, frozenset(without)
        return self._first_idle(busy, full)

    def take(self, renewal: _Due) -> Job:
        """Take one out of the queue."""
        self._found.remove(renewal)
        return Job(renewal.id, "", renewal=True, tenant=renewal.tenant)

    def _first_idle(self, busy: Collection[str], full: Collection[str]) -> _Due | None:
        while self._found and self._found[-1].id in busy:
            self._found.pop()
        return next((each for each in reversed(self._found) if each.tenant not in full and each.id not in busy), None)


def next_job(
    tx: Tx,
    *,
    busy: Collection[str],
    renews: bool,
    throttled: bool = False,
    renewals: RenewalQueue | None = None,
    without: Collection[tuple[str, str]] = (),
    tenants: Mapping[str, int] | None = None,
    most_of_tenant: int = 0,
) -> Job | None:
    """Return the most urgent piece of work that is due and that no worker is at.

    Revocation precedes first issue, first issue precedes renewal; a renewal with less than a quarter of its TTL left
    precedes all.

    Args:
        tx: Transaction.
        busy: Ids of the attempts and access requests that a worker is at.
        renews: Whether renewals are taken, too.
        throttled: Whether the rate limit applies now, to all renewals but those that would soon be too late.
        renewals: The queue of renewals, kept from one call to the next.
        without: Vaults, by server and namespace, whose work is passed over.
        tenants: How many workers each tenant has. Within a priority, work of one that has none goes first.
        most_of_tenant: How many it may have; 0 for no limit.
    """
    tenants = tenants or {}
    full = {tenant for tenant, count in tenants.items() if 0 < most_of_tenant <= count}
    renewals = renewals or RenewalQueue()
    earliest = _EARLIEST.first(tx) or ()
    revokes, issues, renewable, expires = (at is not None and at <= tx.now for at in earliest)
    renewal = renewals.first(tx, busy=busy, without=without, full=full) if renews and renewable else None
    if renewal and _share_left(renewal, tx.now) < (TOO_LATE_SHARE if throttled else URGENT_SHARE):
        return renewals.take(renewal)
    if revokes and (revocation := _due_fairly(tx, Priority.REVOKE, busy, without, tenants=tenants, full=full)):
        return Job(revocation.id, "", tenant=revocation.tenant)
    if expires and (uid := _expired(tx, busy)):
        return Job("", uid)
    if issues and (issue := _due_fairly(tx, Priority.ISSUE, busy, without, tenants=tenants, full=full)):
        return Job(issue.id, "", tenant=issue.tenant)
    return renewals.take(renewal) if renewal and not throttled else None


def next_due_at(tx: Tx) -> float | None:
    """Return when the next piece of work is due that is not due yet."""
    found = _NEXT.first(tx, now=tx.now) or ()
    return min((at for at in found if at is not None), default=None)


def _expired(tx: Tx, busy: Collection[str]) -> str | None:
    """Return the access request whose time is over the longest."""
    expired = tx.execute(_EXPIRED, {"now": tx.now, "count": len(busy) + 1}).scalars()
    return next((uid for uid in expired if uid not in busy), None)


def _share_left(lease: _Due, now: float) -> float:
    """Return the share of its TTL that a lease has left; more than all of it where its end is not known."""
    return 2.0 if lease.ends_at is None else (lease.ends_at - now) / max(lease.lease_ttl_s, 1.0)


def _due_fairly(
    tx: Tx,
    priority: Priority,
    busy: Collection[str],
    without: Collection[tuple[str, str]],
    *,
    tenants: Mapping[str, int],
    full: Collection[str],
) -> _Due | None:
    """Return what is due the longest of one priority: of a tenant without a worker if there is one, of no full one.

    The index has the tenant, so that passing over a thousand rows of one reads none of them.
    """
    found = _due_longest(tx, priority, busy, without)
    if found is None or found.tenant not in tenants:
        return found
    other = _due_longest(tx, priority, busy, without, no_tenants=tenants)
    if other or found.tenant not in full:
        return other or found
    return _due_longest(tx, priority, busy, without, no_tenants=full)


def _due_longest(
    tx: Tx,
    priority: Priority,
    busy: Collection[str],
    without: Collection[tuple[str, str]],
    *,
    no_tenants: Collection[str] = (),
) -> _Due | None:
    """Return what is due the longest of one priority; an index finds it however long the queue is."""
    query = _DUE_LONGEST.where(_a.tenant.not_in(sorted(no_tenants))) if no_tenants else _DUE_LONGEST
    found = _due(tx, query, priority, without, count=len(busy) + 1)
    return next((each for each in found if each.id not in busy), None)


def _due(
    tx: Tx, query: sa.Select[Any], priority: Priority, without: Collection[tuple[str, str]], *, count: int
) -> list[_Due]:
    if not without and query is _DUE_LONGEST:
        return _DUE_LONGEST_ANYWHERE.all(tx, priority=priority, now=tx.now, count=count)
    if without:
        passed_over = sa.tuple_(vault_targets.c.vault, vault_targets.c.vault_namespace).in_(list(without))
        query = query.where(_a.target.not_in(sa.select(vault_targets.c.id).where(passed_over)))
    return tx.fetch(_Due, query, {"priority": priority, "now": tx.now, "count": count})
