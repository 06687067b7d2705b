"""Counts and ages for metrics, read at each scrape."""

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
_UNDONE = "undone_and_pruned"
_COUNT_UNDONE = sa.select(sa.func.count(sa.distinct(recoveries.c.attempt))).where(
    recoveries.c.second, recoveries.c.done_at.is_not(None)
)


@dataclass(frozen=True, slots=True)
class Due:
    """Work of one lane that is due.

    Attributes:
        count: How much.
        oldest_s: For how long the oldest piece has been due.
    """

    count: int
    oldest_s: float


def due_by_priority(tx: Tx) -> dict[Priority, Due]:
    """What is due, by lane."""
    found = sa.select(_a.priority, sa.func.count().label("number"), sa.func.min(_a.due_at).label("oldest"))
    return {
        row.priority: Due(row.number, tx.now - row.oldest)
        for row in tx.execute(found.where(_a.due_at <= tx.now).group_by(_a.priority))
    }


def failing_by_priority(tx: Tx) -> dict[Priority, int]:
    """Work whose last try failed, due or put off, by lane."""
    failed = sa.or_(_a.failures > 0, _a.renewal_failures > 0)
    query = (
        sa.select(_a.priority, sa.func.count().label("number")).where(_a.state.in_(OPEN), failed).group_by(_a.priority)
    )
    return {row.priority: row.number for row in tx.execute(query)}


def next_lease_expiry_s(tx: Tx) -> float | None:
    """Seconds until the first credential in use ends unless it is renewed; negative if it has ended, None if none is in
    use.
    """
    found: float | None = tx.execute(sa.select(sa.func.min(_a.ends_at)).where(_a.state == AttemptState.ACTIVE)).scalar()
    return None if found is None else found - tx.now


def leases_by_state(tx: Tx) -> dict[AttemptState, int]:
    """Attempts that have a lease and have not ended, by state."""
    query = sa.select(_a.state, sa.func.count().label("number")).where(_a.state.in_(OPEN), _a.lease_id != "")
    return {row.state: row.number for row in tx.execute(query.group_by(_a.state))}


def recovered(tx: Tx) -> int:
    """How many attempts were undone by recovery since the ledger began, those that are not in it any more included."""
    return int(meta.get(tx, _UNDONE) or 0) + int(tx.execute(_COUNT_UNDONE).scalar_one())


def remember_recovered(tx: Tx, attempt_ids: Collection[str]) -> None:
    """Keep counting those of these attempts that were undone, as they are about to be taken out of the ledger."""
    if leaving := int(tx.execute(_COUNT_UNDONE.where(recoveries.c.attempt.in_(attempt_ids))).scalar_one()):
        meta.put(tx, _UNDONE, str(int(meta.get(tx, _UNDONE) or 0) + leaving))
