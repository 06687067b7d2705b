"""What is due: the queue lies in the rows themselves, so that it outlives the process."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import sqlalchemy as sa

from services.access.ledger.database import Tx
from services.access.ledger.prepared import Query, given
from services.access.ledger.schema import attempts, requests, targets
from services.access.records import Lane


class _Due(NamedTuple):
    id: str
    ends_at: float | None
    lease_ttl_s: float


class _At(NamedTuple):
    at: float | None


_a = attempts.c
_COUNT = sa.bindparam("count", type_=sa.Integer)
_HEAD = Query(
    sa.select(_a.id, _a.ends_at, _a.lease_ttl_s)
    .where(_a.lane == given(_a.lane), _a.work_at <= given(_a.work_at))
    .order_by(_a.work_at)
    .limit(_COUNT),
    _Due,
)
_OVER = Query(
    sa.select(requests.c.uid).where(requests.c.work_at <= given(requests.c.work_at)).order_by(requests.c.work_at).limit(_COUNT),
    lambda uid: str(uid),
)
_NEXT = [Query(sa.select(sa.func.min(c.work_at).label("at")).where(c.work_at > given(c.work_at)), _At) for c in (_a, requests.c)]


class Job(NamedTuple):
    """One piece of work: an attempt to look at, or a request if ``attempt`` is empty."""

    attempt: str
    request: str


def due(tx: Tx, *, busy: Collection[str], renews: bool, without: Collection[tuple[str, str]] = ()) -> Job | None:
    """The most urgent piece of work that is due and that nobody is at.

    Revoke goes before first issue, that before renew, that before repair; a renewal with less than a quarter of its TTL left before all.

    Args:
        tx: Transaction.
        busy: Attempts and requests that somebody is at.
        renews: Whether renewals are taken, too.
        without: Vaults, by server and namespace, whose work is passed over.
    """
    renewal = _head(tx, Lane.RENEW, busy, without) if renews else None
    if renewal and renewal.ends_at is not None and renewal.ends_at - tx.now < renewal.lease_ttl_s / 4:
        return Job(renewal.id, "")
    if revoke := _head(tx, Lane.REVOKE, busy, without):
        return Job(revoke.id, "")
    if uid := next((uid for uid in _OVER.all(tx, work_at_=tx.now, count=len(busy) + 1) if uid not in busy), None):
        return Job("", uid)
    found = _head(tx, Lane.ISSUE, busy, without) or renewal or _head(tx, Lane.REPAIR, busy, without)
    return Job(found.id, "") if found else None


def _head(tx: Tx, lane: Lane, busy: Collection[str], without: Collection[tuple[str, str]]) -> _Due | None:
    """What is due the longest in one lane, found by the index however long the queue is."""
    if without:
        there = sa.tuple_(targets.c.server, targets.c.vault_namespace).in_(list(without))
        query = sa.select(_a.id, _a.ends_at, _a.lease_ttl_s).where(_a.lane == lane, _a.work_at <= tx.now)
        elsewhere = query.where(_a.target.not_in(sa.select(targets.c.id).where(there))).order_by(_a.work_at).limit(len(busy) + 1)
        return next((_Due(row.id, row.ends_at, row.lease_ttl_s) for row in tx.execute(elsewhere) if row.id not in busy), None)
    return next((row for row in _HEAD.all(tx, lane_=lane, work_at_=tx.now, count=len(busy) + 1) if row.id not in busy), None)


def next_at(tx: Tx) -> float | None:
    """When the next piece of work is due that is not yet."""
    found = [query.first(tx, work_at_=tx.now) for query in _NEXT]
    return min((each.at for each in found if each and each.at is not None), default=None)


def depth(tx: Tx) -> dict[Lane, int]:
    """How much is due, by lane."""
    found = tx.execute(
        sa.select(attempts.c.lane, sa.func.count().label("number")).where(attempts.c.work_at <= tx.now).group_by(attempts.c.lane)
    )
    return {row.lane: row.number for row in found}
