"""What is due: the queue lies in the rows themselves, so that it outlives the process."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import sqlalchemy as sa

from services.access.domain.models import Priority
from services.access.ledger.db.database import Tx
from services.access.ledger.db.prepared import Query, given
from services.access.ledger.db.schema import attempts, requests, targets


class _Due(NamedTuple):
    id: str
    ends_at: float | None
    lease_ttl_s: float


class _At(NamedTuple):
    at: float | None


URGENT, TOO_LATE = 1 / 4, 1 / 20
"""A renewal with less than this share of its TTL left goes before all else; does not wait for the renew rate."""

_LINE_GOOD_S, _LINE_MOST = 0.5, 200

_a = attempts.c
_COUNT = sa.bindparam("count", type_=sa.Integer)
_HEAD = Query(
    sa.select(_a.id, _a.ends_at, _a.lease_ttl_s)
    .where(_a.priority == given(_a.priority), _a.due_at <= given(_a.due_at))
    .order_by(_a.due_at)
    .limit(_COUNT),
    _Due,
)
_RENEWALS = Query(
    sa.select(_a.id, _a.ends_at, _a.lease_ttl_s)
    .where(_a.priority == Priority.RENEW, _a.due_at <= given(_a.due_at))
    .order_by(_a.ends_at)
    .limit(_COUNT),
    _Due,
)
_OVER = Query(
    sa.select(requests.c.uid)
    .where(requests.c.due_at <= given(requests.c.due_at))
    .order_by(requests.c.due_at)
    .limit(_COUNT),
    lambda uid: str(uid),
)
_NEXT = [
    Query(sa.select(sa.func.min(c.due_at).label("at")).where(c.due_at > given(c.due_at)), _At) for c in (_a, requests.c)
]


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
    if uid := next((uid for uid in _OVER.all(tx, due_at_=tx.now, count=len(busy) + 1) if uid not in busy), None):
        return Job("", uid)
    if issue := _head(tx, Priority.ISSUE, busy, without):
        return Job(issue.id, "")
    return line.take() if renewal and not throttled else None


def _left(lease: _Due, now: float) -> float:
    """What share of its TTL is left of a lease; more than all of it where its end is not known."""
    return 2.0 if lease.ends_at is None else (lease.ends_at - now) / max(lease.lease_ttl_s, 1.0)


def _renewals(tx: Tx, without: Collection[tuple[str, str]], *, count: int) -> list[_Due]:
    if not without:
        return _RENEWALS.all(tx, due_at_=tx.now, count=count)
    query = sa.select(_a.id, _a.ends_at, _a.lease_ttl_s).where(
        _a.priority == Priority.RENEW, _a.due_at <= tx.now, *_elsewhere(without)
    )
    return [_Due(row.id, row.ends_at, row.lease_ttl_s) for row in tx.execute(query.order_by(_a.ends_at).limit(count))]


def _elsewhere(without: Collection[tuple[str, str]]) -> list[sa.ColumnElement[bool]]:
    """Not at these Vaults."""
    if not without:
        return []
    there = sa.tuple_(targets.c.server, targets.c.vault_namespace).in_(list(without))
    return [_a.target.not_in(sa.select(targets.c.id).where(there))]


def _head(tx: Tx, priority: Priority, busy: Collection[str], without: Collection[tuple[str, str]]) -> _Due | None:
    """What is due the longest in one lane, found by the index however long the queue is."""
    if without:
        query = sa.select(_a.id, _a.ends_at, _a.lease_ttl_s).where(
            _a.priority == priority, _a.due_at <= tx.now, *_elsewhere(without)
        )
        found = tx.execute(query.order_by(_a.due_at).limit(len(busy) + 1))
        return next((_Due(row.id, row.ends_at, row.lease_ttl_s) for row in found if row.id not in busy), None)
    return next(
        (row for row in _HEAD.all(tx, priority_=priority, due_at_=tx.now, count=len(busy) + 1) if row.id not in busy),
        None,
    )


def next_at(tx: Tx) -> float | None:
    """When the next piece of work is due that is not yet."""
    found = [query.first(tx, due_at_=tx.now) for query in _NEXT]
    return min((each.at for each in found if each and each.at is not None), default=None)
