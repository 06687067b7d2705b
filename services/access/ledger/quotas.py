"""Whether a tenant has room for one more of something, without counting all it has each time."""

from __future__ import annotations

from collections.abc import Callable

from services.access.ledger.db.database import Tx


def take_room(tx: Tx, kind: str, tenant: str, *, most: int, count: Callable[[], int]) -> int | None:
    """Take room for one more, within a transaction that writes.

    What is left after a count is given out one by one, and counted again when none is left: in between a tenant may
    have got more room and never less.

    Args:
        tx: Transaction.
        kind: What it is.
        tenant: Whose it is.
        most: How many a tenant may have; 0 for no limit.
        count: Counts what it has, up to ``most``.

    Returns:
        None if there is room; else what was counted.
    """
    if not most:
        return None
    left = tx.room.get((kind, tenant), 0)
    if left <= 0:
        found = count()
        left = most - found
        if left <= 0:
            return found
    tx.room[kind, tenant] = left - 1
    return None
