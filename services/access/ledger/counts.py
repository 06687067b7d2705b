"""Counts and ages for the metrics, read at each scrape."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from services.access.domain.models import AttemptState, Priority
from services.access.ledger import meta
from services.access.ledger.attempts import OPEN
from services.access.ledger.db.database import Tx
from services.access.ledger.db.schema import attempts, recoveries

_a = attempts.c
_RECOVERED = "recovered_and_pruned"
_COUNT_RECOVERED = sa.select(sa.func.count(sa.distinct(recoveries.c.attempt))).where(
    recoveries.c.second, recoveries.c.done_at.is_not(None)
)


@dataclass(frozen=True, slots=True)
class Due:
    """Work of one priority that is due.

    Attributes:
        count: Number of pieces.
        oldest_s: For how long the oldest piece has been due.
    """

    count: int
    oldest_s: float


def due_by_priority(tx: Tx) -> dict[Priority, Due]:
    """Return the work that is due, by priority."""
    found = sa.select(_a.priority, sa.func.count().label("number"), sa.func.min(_a.due_at).label("oldest"))
    return {
        row.priority: Due(row.number, tx.now - row.oldest)
        for row in tx.execute(found.where(_a.due_at <= tx.now).group_by(_a.priority))
    }


def failing_by_priority(tx: Tx) -> dict[Priority, int]:
    """Return how much work failed at its last try, by priority."""
    failed = sa.or_(_a.failures > 0, _a.renewal_failures > 0)
    query = (
        sa.select(_a.priority, sa.func.count().label("number")).where(_a.state.in_(OPEN), failed).group_by(_a.priority)
    )
    return {row.priority: row.number for row in tx.execute(query)}


def next_lease_expiry_s(tx: Tx) -> float | None:
    """Return the seconds until the first active lease expires; negative if it has expired, None without one."""
    found: float | None = tx.execute(sa.select(sa.func.min(_a.ends_at)).where(_a.state == AttemptState.ACTIVE)).scalar()
    return None if found is None else found - tx.now


def leases_by_state(tx: Tx) -> dict[AttemptState, int]:
    """Return the number of attempts that have a lease and are not closed, by state."""
    query = sa.select(_a.state, sa.func.count().label("number")).where(_a.state.in_(OPEN), _a.lease_id != "")
    return {row.state: row.number for row in tx.execute(query.group_by(_a.state))}


def recovered(tx: Tx) -> int:
    """Return how many attempts were recovered since the ledger began, including those that were pruned."""
    return int(meta.get(tx, _RECOVERED) or 0) + int(tx.execute(_COUNT_RECOVERED).scalar_one())


def remember_recovered(tx: Tx, attempt_ids: Collection[str]) -> None:
    """Keep counting the recovered among these attempts, which are about to be pruned."""
    if leaving := int(tx.execute(_COUNT_RECOVERED.where(recoveries.c.attempt.in_(attempt_ids))).scalar_one()):
        meta.put(tx, _RECOVERED, str(int(meta.get(tx, _RECOVERED) or 0) + leaving))
