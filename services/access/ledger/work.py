"""What is due: the queue lies in the rows themselves, so that it outlives the process."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import sqlalchemy as sa

from services.access.ledger.database import Tx
from services.access.ledger.schema import attempts, requests
from services.access.records import Lane


class Job(NamedTuple):
    """One piece of work: an attempt to look at, or a request if ``attempt`` is empty."""

    attempt: str
    request: str


def due(tx: Tx, *, busy: Collection[str], renews: bool) -> Job | None:
    """The most urgent piece of work that is due and that nobody is at.

    Revoke goes before first issue, that before renew, that before repair; a renewal with less than a quarter of its TTL left before all.

    Args:
        tx: Transaction.
        busy: Attempts and requests that somebody is at.
        renews: Whether renewals are taken, too.
    """
    renewal = _head(tx, Lane.RENEW, busy) if renews else None
    if renewal and renewal.ends_at is not None and renewal.ends_at - tx.now < renewal.lease_ttl_s / 4:
        return Job(renewal.id, "")
    if revoke := _head(tx, Lane.REVOKE, busy):
        return Job(revoke.id, "")
    over = sa.select(requests.c.uid).where(requests.c.work_at <= tx.now).order_by(requests.c.work_at).limit(len(busy) + 1)
    if uid := next((row[0] for row in tx.execute(over) if row[0] not in busy), None):
        return Job("", uid)
    found = _head(tx, Lane.ISSUE, busy) or renewal or _head(tx, Lane.REPAIR, busy)
    return Job(found.id, "") if found else None


def _head(tx: Tx, lane: Lane, busy: Collection[str]) -> sa.Row[Any] | None:
    """What is due the longest in one lane, found by the index however long the queue is."""
    a = attempts.c
    query = sa.select(a.id, a.ends_at, a.lease_ttl_s).where(a.lane == lane, a.work_at <= tx.now).order_by(a.work_at).limit(len(busy) + 1)
    return next((row for row in tx.execute(query) if row.id not in busy), None)


def next_at(tx: Tx) -> float | None:
    """When the next piece of work is due that is not yet."""
    times = [tx.execute(sa.select(sa.func.min(c.work_at)).where(c.work_at > tx.now)).scalar() for c in (attempts.c, requests.c)]
    return min((at for at in times if at is not None), default=None)


def depth(tx: Tx) -> dict[Lane, int]:
    """How much is due, by lane."""
    found = tx.execute(
        sa.select(attempts.c.lane, sa.func.count().label("number")).where(attempts.c.work_at <= tx.now).group_by(attempts.c.lane)
    )
    return {row.lane: row.number for row in found}
