"""What is due: the queue lies in the rows themselves, so that it outlives the process."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import sqlalchemy as sa

from services.access.domain.models import Priority
from services.access.ledger.db.database import Tx
from services.access.ledger.db.schema import attempts, requests, targets


class _Due(NamedTuple):
    id: str
    ends_at: float | None
    lease_ttl_s: float


URGENT, TOO_LATE = 1 / 4, 1 / 20
"""A renewal with less than this share of its TTL left goes before all else; does not wait for the renew rate."""

_LINE_GOOD_S, _LINE_MOST = 0.5, 200

_a = attempts.c
_NOW, _COUNT = sa.bindparam("now", type_=sa.Float), sa.bindparam("count", type_=sa.Integer)
_DUE = (
    sa.select(_a.id, _a.ends_at, _a.lease_ttl_s)
    .where(_a.priority == sa.bindparam("priority"), _a.due_at <= _NOW)
    .limit(_COUNT)
)
_DUE_LONGEST, _ENDING_FIRST = _DUE.order_by(_a.due_at), _DUE.order_by(_a.ends_at)
_EXPIRED = sa.select(requests.c.uid).where(requests.c.due_at <= _NOW).order_by(requests.c.due_at).limit(_COUNT)
_NEXT = [sa.select(sa.func.min(c.due_at)).where(c.due_at > _NOW) for c in (_a, requests.c)]


class Job(NamedTuple):
    """One piece of work: an attempt to look at, or a request if ``attempt`` is empty; whether it counts as a renewal."""

    attempt: str
    request: str
    renewal: bool = False


class RenewalQueue:
    """The renewals that are due, that whose lease ends first before the others, however long each has been due.

    Read from the ledger in one go and good for a moment: to sort thousands for each of them would cost more than the
    renewals do.
    """

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._found: list[_Due] = []
        self._read_at, self._without = 0.0, frozenset[tuple[str, str]]()

    def first(self, tx: Tx, *, busy: Collection[str], without: Collection[tuple[str, str]]) -> _Due | None:
        """The one that nobody is at; it stays in the line."""
        fresh = 0 <= tx.now - self._read_at < _LINE_GOOD_S and self._without == frozenset(without)
        if not fresh or not self._next(busy):
            self._found = _renewals(tx, without, count=_LINE_MOST + len(busy))[::-1]
            self._read_at, self._without = tx.now, frozenset(without)
        return self._next(busy)

    def take(self) -> Job:
        """Have the first one begun, which leaves the line."""
        return Job(self._found.pop().id, "", renewal=True)

    def _next(self, busy: Collection[str]) -> _Due | None:
        while self._found and self._found[-1].id in busy:
            self._found.pop()
        return self._found[-1] if self._found else None


def due(
    tx: Tx,
    *,
    busy: Collection[str],
    renews: bool,
    throttled: bool = False,
    line: RenewalQueue | None = None,
    without: Collection[tuple[str, str]] = (),
) -> Job | None:
    """The most urgent piece of work that is due and that nobody is at.

    Revoke goes before first issue, that before renew; a renewal with less than a quarter of its TTL left before all.

    Args:
        tx: Transaction.
        busy: Attempts and requests that somebody is at.
        renews: Whether renewals are taken, too.
        throttled: Whether the rate limit holds renewals back now, all but those that would soon be too late.
        line: The renewals, kept from one call to the next.
        without: Vaults, by server and namespace, whose work is passed over.
    """
    line = line or RenewalQueue()
    renewal = line.first(tx, busy=busy, without=without) if renews else None
    if renewal and _left(renewal, tx.now) < (TOO_LATE if throttled else URGENT):
        return line.take()
    if revoke := _head(tx, Priority.REVOKE, busy, without):
        return Job(revoke.id, "")
    expired = tx.execute(_EXPIRED, {"now": tx.now, "count": len(busy) + 1}).scalars()
    if uid := next((uid for uid in expired if uid not in busy), None):
        return Job("", uid)
    if issue := _head(tx, Priority.ISSUE, busy, without):
        return Job(issue.id, "")
    return line.take() if renewal and not throttled else None


def _left(lease: _Due, now: float) -> float:
    """What share of its TTL is left of a lease; more than all of it where its end is not known."""
    return 2.0 if lease.ends_at is None else (lease.ends_at - now) / max(lease.lease_ttl_s, 1.0)


def _renewals(tx: Tx, without: Collection[tuple[str, str]], *, count: int) -> list[_Due]:
    return _due_at(tx, _ENDING_FIRST, Priority.RENEW, without, count=count)


def _head(tx: Tx, priority: Priority, busy: Collection[str], without: Collection[tuple[str, str]]) -> _Due | None:
    """What is due the longest of one priority, found by the index however long the queue is."""
    found = _due_at(tx, _DUE_LONGEST, priority, without, count=len(busy) + 1)
    return next((each for each in found if each.id not in busy), None)


def _due_at(
    tx: Tx, query: sa.Select[Any], priority: Priority, without: Collection[tuple[str, str]], *, count: int
) -> list[_Due]:
    if without:
        passed_over = sa.tuple_(targets.c.server, targets.c.vault_namespace).in_(list(without))
        query = query.where(_a.target.not_in(sa.select(targets.c.id).where(passed_over)))
    return tx.fetch(_Due, query, {"priority": priority, "now": tx.now, "count": count})


def next_at(tx: Tx) -> float | None:
    """When the next piece of work is due that is not yet."""
    found = [tx.execute(query, {"now": tx.now}).scalar() for query in _NEXT]
    return min((at for at in found if at is not None), default=None)
